//! The manifests for Kubernetes, held against the shape that the API wants ([`kinds`]), against
//! each other, and against the rules that they are made from.

use std::{collections::BTreeSet, fs, process::Command};

use super::{read, root};

#[path = "kinds.rs"]
#[expect(dead_code, reason = "that a document has the shape is mostly what is asked")]
#[expect(clippy::upper_case_acronyms, clippy::struct_field_names, reason = "the API's names")]
mod kinds;
#[path = "schemas.rs"]
mod schemas;

use kinds::{Container, DaemonSet, Document, IntOrString, Kustomization, Rule};

const FOLDER: &str = "deploy/kubernetes";

fn document(file: &str) -> Document {
    kinds::read(&read(&format!("{FOLDER}/{file}"))).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn kustomization() -> Kustomization {
    let Document::Kustomization(it) = document("kustomization.yaml") else { panic!("another") };
    it
}

fn daemon_set() -> DaemonSet {
    let Document::DaemonSet(it) = document("daemonset.yaml") else { panic!("another") };
    *it
}

/// What the API server takes and the kubelet then stumbles over: a name that nothing has.
fn names_agree(set: &DaemonSet, container: &Container) {
    let spec = &set.spec.template.spec;
    let volumes: Vec<_> = spec.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let mounts: Vec<_> = container.volume_mounts.iter().map(|mount| mount.name.as_str()).collect();
    assert_eq!(mounts, volumes, "each volume is mounted once, in the same order");
    let places: BTreeSet<_> =
        container.volume_mounts.iter().map(|mount| &mount.mount_path).collect();
    assert_eq!(places.len(), mounts.len(), "{places:?}");
    for volume in &spec.volumes {
        let sources =
            usize::from(volume.config_map.is_some()) + usize::from(volume.host_path.is_some());
        assert_eq!(sources, 1, "{}: one source", volume.name);
    }
    let ports: Vec<_> = container.ports.iter().map(|port| port.name.as_str()).collect();
    for probe in [&container.startup_probe, &container.readiness_probe, &container.liveness_probe] {
        let IntOrString::String(port) = &probe.http_get.port else { panic!("{probe:?}") };
        assert!(ports.contains(&port.as_str()), "{port} of {ports:?}");
        assert!(matches!(probe.http_get.path.as_str(), "/healthz" | "/readyz"), "{probe:?}");
    }
}

#[test]
fn manifests_have_the_shape_that_the_api_wants_and_agree() {
    let kustomization = kustomization();
    let mut known: BTreeSet<String> = kustomization.resources.iter().cloned().collect();
    known.extend(kustomization.config_map_generator.iter().flat_map(|one| one.files.clone()));
    known.insert("kustomization.yaml".to_owned());
    let files = fs::read_dir(root().join(FOLDER)).expect("a folder").flatten();
    let files: BTreeSet<_> =
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(files, known, "each file is used");
    for file in &kustomization.resources {
        document(file);
    }
    let set = daemon_set();
    let [container] = &*set.spec.template.spec.containers else { panic!("{set:?}") };
    names_agree(&set, container);
    let [image] = &*kustomization.images else { panic!("{kustomization:?}") };
    assert_eq!(
        (&image.name, image.new_tag.as_str()),
        (&container.image, env!("CARGO_PKG_VERSION"))
    );
    let maps: Vec<_> = kustomization.config_map_generator.iter().map(|one| &one.name).collect();
    let used = set.spec.template.spec.volumes.iter().filter_map(|one| one.config_map.as_ref());
    assert_eq!(maps, used.map(|one| &one.name).collect::<Vec<_>>());
    let Document::PodMonitor(monitor) = document("podmonitor.yaml") else { panic!("another") };
    assert_eq!(monitor.spec.selector.match_labels, kustomization.labels[0].pairs);
    let [endpoint] = &*monitor.spec.pod_metrics_endpoints else { panic!("{monitor:?}") };
    assert_eq!(endpoint.port, container.ports[0].name);
}

#[test]
fn nothing_of_the_node_can_be_written_but_the_socket_s_folder() {
    let set = daemon_set();
    let spec = &set.spec.template.spec;
    let [container] = &*spec.containers else { panic!("{set:?}") };
    let writable: Vec<_> = container.volume_mounts.iter().filter(|one| !one.read_only).collect();
    let writable: Vec<_> = writable.iter().map(|one| one.mount_path.as_str()).collect();
    assert_eq!(writable, ["/run/tcpmon"]);
    let page = read("docs/kubernetes.md");
    for host in spec.volumes.iter().filter_map(|volume| volume.host_path.as_ref()) {
        assert!(page.contains(&format!("`{}`", host.path)), "docs: why {}?", host.path);
    }
    // The unit's, which docs/security.md explains.
    let unit = read("deploy/systemd/tcpmon.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit: Vec<_> = line.expect("a line").split(' ').collect();
    let added = container.security_context.capabilities.add.iter();
    assert_eq!(added.map(|name| format!("CAP_{name}")).collect::<Vec<_>>(), of_unit);
}

#[test]
fn kubernetes_schemas_have_a_place_for_all_that_is_written() {
    let of_kubernetes: Vec<_> = kustomization()
        .resources
        .into_iter()
        .filter(|file| {
            let text = read(&format!("{FOLDER}/{file}"));
            schemas::validate(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
        })
        .collect();
    assert_eq!(of_kubernetes, ["namespace.yaml", "daemonset.yaml"]);
    let good = read(&format!("{FOLDER}/daemonset.yaml"));
    for (from, to, why) in [
        ("hostPID: true", "hostPid: true", "hostPid"),
        ("privileged: false", "privileged: maybe", "expected a boolean"),
        ("periodSeconds:", "periodSecond:", "periodSecond"),
        ("kubernetes.io/os: linux", "kubernetes.io/os: [linux]", "expected a string"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = schemas::validate(&good.replace(from, to)).expect_err(to);
        assert!(error.contains(why), "{to}: {error}");
    }
}

#[test]
fn what_the_api_does_not_know_is_refused() {
    let good = read(&format!("{FOLDER}/daemonset.yaml"));
    for (from, to, why) in [
        ("hostPID: true", "hostPid: true", "unknown field `hostPid`"),
        ("HostToContainer", "HostToContainers", "unknown variant `HostToContainers`"),
        ("containerPort: 10066", "containerPort: 100660", "invalid u16"),
        ("privileged: false", "privileged: maybe", "invalid boolean"),
        ("kind: DaemonSet", "kind: DaemonSets", "nobody knows DaemonSets"),
        ("kubernetes.io/os: linux", "kubernetes.io/os: [linux]", "expected string"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = kinds::read(&good.replace(from, to)).expect_err(to);
        assert!(error.contains(why), "{to}: {error}");
    }
}

#[test]
fn the_operator_s_rules_are_prometheus_own() {
    let made = xtask::manifests::prometheus_rule().expect("made");
    // Not assert_eq, which would print both.
    assert!(read(xtask::manifests::PROMETHEUS_RULE) == made, "run `cargo xtask manifests`");
    let Document::PrometheusRule(document) = document("prometheusrule.yaml") else {
        panic!("another")
    };
    let rules: Vec<&Rule> = document.spec.groups.iter().flat_map(|group| &group.rules).collect();
    let names = |pick: fn(&Rule) -> Option<&String>| {
        rules.iter().filter_map(|rule| pick(rule)).cloned().collect::<Vec<_>>()
    };
    let of = |file, kind| super::rules(file, kind).into_iter().map(|(name, _)| name);
    assert_eq!(names(|rule| rule.alert.as_ref()), of(super::RULES, "alert").collect::<Vec<_>>());
    let recorded = of(super::RECORDING, "record").collect::<Vec<_>>();
    assert_eq!(names(|rule| rule.record.as_ref()), recorded);
    assert!(rules.iter().all(|rule| rule.alert.is_some() != rule.record.is_some()));
}

#[test]
fn kustomize_makes_documents_of_the_same_shape() {
    let mut command = Command::new("kubectl");
    let Ok(output) = command.arg("kustomize").arg(root().join(FOLDER)).output() else {
        eprintln!("not looked at: there is no kubectl");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut kinds = BTreeSet::new();
    for part in text.split("\n---\n") {
        let document = kinds::read(part).unwrap_or_else(|error| panic!("{error}: {part}"));
        schemas::validate(part).unwrap_or_else(|error| panic!("{error}: {part}"));
        if let Document::DaemonSet(set) = &document {
            let labels = set.spec.template.metadata.as_ref().map(|metadata| &metadata.labels);
            assert_eq!(set.spec.selector.as_ref().map(|one| &one.match_labels), labels);
            assert!(labels.is_some());
        }
        kinds.insert(format!("{document:?}").split('(').next().unwrap_or_default().to_owned());
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}
