"""Validates manifests, and shows them: every document of the files that are named, one a line of JSON, with the file it is in.

The first that does not fit ends it, with a status of 1 and the reason. The schemas come with the package: nothing is asked
of a cluster, or of the network.
"""

import json
import sys

import kubernetes_validate
import yaml

# The first Kubernetes that has native sidecars without being asked, and the newest that there is a schema of.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
# These are read by kustomize, and by an operator: Kubernetes has no schema of its own for them.
FOREIGN = ("kustomize.config.k8s.io/", "monitoring.coreos.com/")


class Loader(yaml.SafeLoader):
    """YAML in which no key hides another one."""


def mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"line {node.start_mark.line + 1}: `{key}` is there twice")
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)

for path in sys.argv[1:]:
    try:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.load_all(file, Loader))
        for document in documents:
            if not document["apiVersion"].startswith(FOREIGN):
                for version in VERSIONS:
                    kubernetes_validate.validate(document, version, strict=True)
            print(json.dumps({"file": path, "document": document}))
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(step) for step in error.path)
        sys.exit(f"{path}: Kubernetes {error.version}: {place}: {error.message}")
    except (kubernetes_validate.SchemaNotFoundError, ValueError, KeyError, yaml.YAMLError) as error:
        sys.exit(f"{path}: {error!r}")
