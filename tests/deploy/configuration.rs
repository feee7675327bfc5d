//! The configuration that the ConfigMap has, and what the pods give the program to read it with.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use regex::Regex;
use serde_json::{Value, json};
use toml::Table;

use super::{job, kubernetes, list, manifest, pod, read, root, sidecar, text};

/// How long a sidecar that is told to stop waits for the ledger at the most.
const LAST_FLUSH_S: i64 = 5;

const CONFIGURATION: &str = "deploy/kubernetes/tollgate/tollgate.toml";

fn configuration() -> Table {
    read(CONFIGURATION).parse().expect("TOML")
}

/// The variables that the Secret gives, as its example has them.
fn secret() -> Vec<(&'static str, &'static str)> {
    let secret = &manifest("secret.example.yaml", "Secret")["stringData"];
    let secret = secret.as_object().expect("values by name").iter();
    secret
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect()
}

/// `tollgate check` under these variables and no other.
fn check(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["check", "--config"]);
    command.arg(root().join(CONFIGURATION));
    let command = command.env_clear().envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

#[test]
fn the_configuration_is_valid_with_what_the_secret_gives_and_not_without() {
    let output = check(&secret());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (left_out, _) in secret() {
        let mut variables = secret();
        variables.retain(|(name, _)| *name != left_out);
        let output = check(&variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{left_out}: {said}");
        assert!(said.contains(left_out), "{said}");
    }
}

#[test]
fn bounded_is_one_variable_away() {
    let readme = read("deploy/README.md");
    let set = "TOLLGATE__STORE__ON_STORE_DOWN";
    assert!(readme.contains(set));
    let mut variables = secret();
    variables.push((set, "bounded"));
    let output = check(&variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn no_secret_is_in_the_config_map_and_none_in_its_example() {
    let written = read(CONFIGURATION);
    let variable = Regex::new(r"\$\{(\w+)\}").expect("a pattern");
    let named = variable.captures_iter(&written);
    let named: BTreeSet<String> = named.map(|name| name[1].to_owned()).collect();
    let given: BTreeSet<String> = secret().iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(named, given, "what is named is given, and nothing else is");
    for (name, value) in secret() {
        assert_eq!(value, "REPLACE-ME", "{name}");
    }
    // What stands where a password or a credential does is a variable.
    let password = Regex::new(r"://[^/\s]*:([^@/\s]+)@").expect("a pattern");
    let passwords = password
        .captures_iter(&written)
        .map(|one| one[1].to_owned());
    let credential = Regex::new(r#"value = "(?:Bearer )?([^"]+)""#).expect("a pattern");
    let credentials = credential
        .captures_iter(&written)
        .map(|one| one[1].to_owned());
    let secrets: Vec<String> = passwords.chain(credentials).collect();
    assert_eq!(secrets.len(), named.len(), "{secrets:?}");
    for secret in secrets {
        assert!(variable.is_match(&secret), "{secret}");
    }
}

#[test]
fn sidecar_and_job_read_it_with_all_that_it_names() {
    let name = &manifest("secret.example.yaml", "Secret")["metadata"]["name"];
    for (pod, container) in [(pod(), sidecar()), (job(), &job()["containers"][0])] {
        let from = &container["envFrom"];
        assert_eq!(*from, json!([{"secretRef": {"name": name}}]));
        let arguments = list(&container["args"]);
        let file = text(arguments.last().expect("arguments"));
        assert_eq!(arguments[1], "--config");
        let mounts = list(&container["volumeMounts"]).iter();
        let mut mounts = mounts.filter(|mount| file.starts_with(text(&mount["mountPath"])));
        let mount = mounts.next().expect("the file is in a volume");
        let volumes = list(&pod["volumes"]).iter();
        let mut volumes = volumes.filter(|volume| volume["name"] == mount["name"]);
        let volume = volumes.next().expect("the volume is in the pod");
        assert_eq!(volume["configMap"]["name"], "tollgate");
        assert!(CONFIGURATION.ends_with(file.rsplit('/').next().expect("a name")));
    }
}

#[test]
fn probes_reach_the_health_listener_from_outside_and_callers_stay_inside() {
    let listen = &configuration()["listen"];
    let address = |name: &str| {
        let address = listen[name].as_str().expect("an address");
        let address: std::net::SocketAddr = address.parse().expect("an address");
        address
    };
    assert!(address("health").ip().is_unspecified());
    let port = &sidecar()["ports"][0]["containerPort"];
    assert_eq!(*port, Value::from(address("health").port()));
    for inside in ["proxy", "control"] {
        assert!(address(inside).ip().is_loopback(), "{inside}");
    }
    let app = list(&pod()["containers"][0]["env"]);
    let url = app.iter().find(|one| one["name"] == "OPENAI_BASE_URL");
    let prefix = configuration()["route"][0]["prefix"].clone();
    let expected = format!(
        "http://{}{}/v1",
        address("proxy"),
        prefix.as_str().expect("a path")
    );
    assert_eq!(url.expect("a base URL")["value"], expected);
}

/// The app's end and the sidecar's come one after the other, out of one period.
#[test]
fn the_pod_may_take_longer_than_the_sidecar_needs_to_drain_after_the_app() {
    let drain_s = configuration()["listen"]["drain_s"].as_integer();
    let drain_s = drain_s.expect("seconds");
    let pause = &pod()["containers"][0]["lifecycle"]["preStop"]["exec"]["command"];
    let pause_s: i64 = text(&pause[1]).parse().expect("seconds");
    let app = read("deploy/kubernetes/app/app.py");
    let timeout = Regex::new(r"TIMEOUT_S = (\d+)").expect("a pattern");
    let app_s: i64 = timeout.captures(&app).expect("it is there")[1]
        .parse()
        .expect("seconds");
    // For its calls, and for the store.
    let sidecar_s = 2 * drain_s + LAST_FLUSH_S;
    let grace_s = pod()["terminationGracePeriodSeconds"].as_i64();
    assert!(grace_s > Some(pause_s + app_s + sidecar_s), "{grace_s:?}");
    let serve = read("src/proxy/serve/mod.rs");
    let last_flush = format!("LAST_FLUSH: Duration = Duration::from_secs({LAST_FLUSH_S})");
    assert!(serve.contains(&last_flush));
}

#[test]
fn all_that_the_sidecar_writes_is_in_a_volume_that_a_restart_leaves_alone() {
    let store = &configuration()["store"];
    let journal = store["bounded_journal"].as_str().expect("a path");
    let mounts = list(&sidecar()["volumeMounts"]).iter();
    let mut mounts = mounts.filter(|mount| mount["readOnly"] != true);
    let mount = mounts.next().expect("a volume to write to");
    assert!(mounts.next().is_none());
    assert!(journal.starts_with(text(&mount["mountPath"])), "{journal}");
    let volumes = list(&pod()["volumes"]).iter();
    let mut volumes = volumes.filter(|volume| volume["name"] == mount["name"]);
    let volume = volumes.next().expect("the volume is in the pod");
    assert!(volume["emptyDir"]["sizeLimit"].is_string());
    // The image's own place for it.
    let dockerfile = read("Dockerfile");
    let place = format!("\nWORKDIR {}\n", text(&mount["mountPath"]));
    assert!(dockerfile.contains(&place), "{place}");
}

#[test]
fn redis_is_set_up_as_the_readme_demands() {
    let readme = read("README.md");
    let (_, demanded) = readme
        .split_once("Redis needs these settings.")
        .expect("it is there");
    let demanded = demanded.split("```").nth(1).expect("a list").trim();
    assert_eq!(demanded.lines().count(), 3);
    let written = read(kubernetes().join("example-stores/redis.conf"));
    let written: Vec<&str> = written.lines().collect();
    for setting in demanded.lines() {
        let setting = setting.split('#').next().unwrap_or_default().trim();
        assert!(written.contains(&setting), "{setting}");
    }
}
