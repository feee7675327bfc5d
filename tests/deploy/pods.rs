//! The pods: probes, the order of their end, and what no container of them may do.

use serde_json::{Value, json};

use super::{job, list, manifest, manifests, pod, sidecar, text};

/// Every container that is in a manifest, with its pod.
fn containers() -> Vec<(&'static Value, &'static Value)> {
    let pods = manifests()
        .iter()
        .map(|manifest| &manifest.document["spec"]["template"]["spec"]);
    let pods = pods.filter(|pod| pod.is_object());
    let of_pod = |pod: &'static Value| {
        let containers = list(&pod["initContainers"])
            .iter()
            .chain(list(&pod["containers"]));
        containers.map(move |container| (pod, container))
    };
    pods.flat_map(of_pod).collect()
}

#[test]
fn no_container_is_root_writes_to_its_root_or_has_a_capability() {
    assert!(containers().len() >= 5);
    for (pod, container) in containers() {
        let (of_pod, own) = (&pod["securityContext"], &container["securityContext"]);
        let name = &container["name"];
        assert_eq!(of_pod["runAsNonRoot"], true, "{name}");
        assert!(of_pod["runAsUser"].as_u64() > Some(0), "{name}");
        let profile = &of_pod["seccompProfile"];
        assert_eq!(*profile, json!({"type": "RuntimeDefault"}), "{name}");
        assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}), "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
    }
}

#[test]
fn every_container_has_requests_and_limits_and_an_image_with_a_tag() {
    for (_, container) in containers() {
        let resources = &container["resources"];
        for bound in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                assert!(resources[bound][resource].is_string(), "{container}");
            }
        }
        let image = text(&container["image"]);
        let (_, tag) = image.rsplit_once(':').expect("a tag");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{image}");
    }
}

#[test]
fn the_job_and_the_sidecar_are_the_same_program() {
    let migrate = &job()["containers"][0];
    for same in ["image", "envFrom"] {
        assert_eq!(migrate[same], sidecar()[same], "{same}");
    }
    let image = concat!("tollgate:", env!("CARGO_PKG_VERSION"));
    assert_eq!(sidecar()["image"], image);
    let component = manifest("tollgate/kustomization.yaml", "Component");
    let images = &component["images"][0];
    assert_eq!(images["name"], "tollgate");
    assert_eq!(images["newTag"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_sidecar_starts_before_the_app_and_is_restarted_by_itself() {
    assert_eq!(sidecar()["restartPolicy"], "Always");
    assert_eq!(sidecar()["args"][0], "serve");
    // The app waits for the process alone: a dependency that is away would keep it from starting.
    assert_eq!(sidecar()["startupProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(sidecar()["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(sidecar()["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn who_calls_the_sidecar_from_outside_reaches_the_health_listener_and_nothing_else() {
    let ports = list(&sidecar()["ports"]);
    let [health] = ports else {
        panic!("the proxy and the control listener are no ports of the pod: {ports:?}")
    };
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(sidecar()[probe]["httpGet"]["port"], health["name"]);
    }
    let monitor = &manifest("pod-monitor.yaml", "PodMonitor")["spec"]["podMetricsEndpoints"];
    assert_eq!(monitor[0]["port"], health["name"]);
    assert_eq!(monitor[0]["path"], "/metrics");
    let policy = &manifest("app/network-policy.yaml", "NetworkPolicy")["spec"];
    let allowed = list(&policy["ingress"])
        .iter()
        .flat_map(|rule| list(&rule["ports"]));
    let allowed: Vec<&Value> = allowed.map(|port| &port["port"]).collect();
    let app = &pod()["containers"][0]["ports"][0];
    assert_eq!(allowed, [&app["containerPort"], &health["containerPort"]]);
}
