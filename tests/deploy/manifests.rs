//! The manifests as files: each fits its schema, each is part of something, and names that have to agree do.

use serde_json::Value;

use super::{files, kubernetes, list, manifest, manifests, pod, read, text, validate};

#[test]
fn every_manifest_fits_the_first_and_the_newest_kubernetes_with_native_sidecars() {
    let kinds: Vec<&str> = manifests()
        .iter()
        .map(|manifest| text(&manifest.document["kind"]))
        .collect();
    for kind in ["Deployment", "Job", "NetworkPolicy", "Namespace", "Secret"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}

#[test]
fn a_mistake_in_a_manifest_is_found() {
    let written = read("deploy/kubernetes/app/deployment.yaml");
    let place = tempfile::tempdir().expect("a place for temporary files");
    let file = place.path().join("deployment.yaml");
    for (right, wrong, said) in [
        ("startupProbe:", "startupProbes:", "startupProbes"),
        (
            "restartPolicy: Always",
            "restartPolicy: [Always]",
            "restartPolicy",
        ),
        ("  replicas: 2", "  replicas: 2\n  replicas: 3", "twice"),
    ] {
        assert!(written.contains(right), "{right}");
        std::fs::write(&file, written.replace(right, wrong)).expect("it is written");
        let output = validate(std::slice::from_ref(&file));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{wrong}: {error}");
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn every_manifest_is_in_a_kustomization_or_is_said_to_be_in_none() {
    // The files of the kustomizations, and what they name.
    let mut named = Vec::new();
    for file in files("kustomization.yaml") {
        let folder = file.parent().expect("a folder");
        let inside = file.strip_prefix(kubernetes()).expect("below");
        let inside = inside.display().to_string();
        let found = manifests().iter().find(|manifest| manifest.file == inside);
        let kustomization = &found.expect("it is a manifest").document;
        let generated = list(&kustomization["configMapGenerator"]).iter();
        let generated = generated.flat_map(|map| list(&map["files"]));
        let parts = ["resources", "components"].into_iter();
        let parts = parts.flat_map(|part| list(&kustomization[part]));
        for part in parts.chain(generated) {
            let path = folder.join(text(part));
            assert!(path.exists(), "{inside} names {part}");
            named.push(path.canonicalize().expect("it exists"));
        }
    }
    for file in files("") {
        let name = file.file_name().expect("a name").to_string_lossy();
        let apart = name == "kustomization.yaml" || read(&file).contains("in no kustomization");
        let path = file.canonicalize().expect("it exists");
        assert_ne!(named.contains(&path), apart, "{}", file.display());
    }
}

/// Kustomize finds the ConfigMap whose name gets a hash, and the image whose tag is set, by these names.
#[test]
fn what_is_mounted_is_made_by_a_kustomization() {
    let maps_of = |file: &str| -> Vec<&str> {
        let made = manifests().iter().find(|manifest| manifest.file == file);
        let made = list(&made.expect("it is there").document["configMapGenerator"]);
        made.iter().map(|map| text(&map["name"])).collect()
    };
    let mut made = maps_of("tollgate/kustomization.yaml");
    made.extend(maps_of("app/kustomization.yaml"));
    let volumes = list(&pod()["volumes"]).iter();
    let mounted: Vec<&str> = volumes
        .filter_map(|volume| volume["configMap"]["name"].as_str())
        .collect();
    assert_eq!(made, ["tollgate", "example-app"]);
    assert_eq!(mounted, made);
}

#[test]
fn what_selects_pods_selects_these() {
    let template = &manifest("app/deployment.yaml", "Deployment")["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    let service = manifest("app/service.yaml", "Service");
    let budget = manifest("app/service.yaml", "PodDisruptionBudget");
    let policy = manifest("app/network-policy.yaml", "NetworkPolicy");
    let monitor = manifest("pod-monitor.yaml", "PodMonitor");
    for selector in [
        &service["spec"]["selector"],
        &budget["spec"]["selector"]["matchLabels"],
        &policy["spec"]["podSelector"]["matchLabels"],
        &monitor["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    let job = manifest("migrate/job.yaml", "Job");
    let policy = manifest("migrate/job.yaml", "NetworkPolicy");
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);

    let everywhere = &manifest("tollgate/namespace.yaml", "Namespace")["metadata"]["name"];
    let stores = manifest("example-stores/kustomization.yaml", "Kustomization");
    let secret = manifest("secret.example.yaml", "Secret");
    let component = manifest("tollgate/kustomization.yaml", "Component");
    for namespace in [
        &stores["namespace"],
        &secret["metadata"]["namespace"],
        &component["namespace"],
        &monitor["metadata"]["namespace"],
    ] {
        assert_eq!(namespace, everywhere);
    }
}

#[test]
fn the_job_goes_away_when_it_is_done_and_is_tried_again_when_it_fails() {
    let job = &manifest("migrate/job.yaml", "Job")["spec"];
    assert!(job["ttlSecondsAfterFinished"].as_u64() > Some(0));
    assert!(job["backoffLimit"].as_u64() > Some(0));
    assert_eq!(job["template"]["spec"]["restartPolicy"], "Never");
    let arguments = &job["template"]["spec"]["containers"][0]["args"];
    assert_eq!(arguments[0], Value::from("migrate"));
}
