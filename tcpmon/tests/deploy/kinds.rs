//! The kinds of the Kubernetes API that deploy/kubernetes uses, as far as it uses them: the names
//! and types of fields as in the API's reference for 1.30, and of the Prometheus operator's v1.
//!
//! The API's own schemas would be half a megabyte for a DaemonSet alone. With fewer fields this is
//! stricter than they are: whoever uses another field adds it here, from the reference.

use std::collections::BTreeMap;

use serde::Deserialize;

type Labels = BTreeMap<String, String>;

macro_rules! kinds {
    ($(struct $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name { $($(#[$meta])* pub(super) $field: $type,)* }
    )*};
}

macro_rules! words {
    ($($name:ident { $($word:ident),* })*) => {$(
        #[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum $name { $($word),* }
    )*};
}

words! {
    Protocol { TCP, UDP, SCTP }
    Strategy { RollingUpdate, OnDelete }
    DnsPolicy { ClusterFirst, ClusterFirstWithHostNet, Default, None }
    Operator { Exists, Equal }
    SeccompKind { RuntimeDefault, Unconfined, Localhost }
    Propagation { None, HostToContainer, Bidirectional }
    PathKind { Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice, BlockDevice }
}

/// A number or a name: `IntOrString`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrString {
    Int(u32),
    String(String),
}

/// A document, by `apiVersion` and `kind`.
#[derive(Debug)]
pub(super) enum Document {
    Namespace(Namespace),
    ConfigMap(ConfigMap),
    DaemonSet(Box<DaemonSet>),
    PodMonitor(PodMonitor),
    PrometheusRule(PrometheusRule),
    Kustomization(Kustomization),
}

kinds! {
    struct Metadata { name: String, namespace: Option<String>, labels: Option<Labels>, }
    struct Namespace { api_version: String, kind: String, metadata: Metadata, }
    struct ConfigMap { api_version: String, kind: String, metadata: Metadata, data: Labels, }

    struct DaemonSet { api_version: String, kind: String, metadata: Metadata, spec: DaemonSetSpec, }
    struct DaemonSetSpec {
        update_strategy: UpdateStrategy,
        // The kustomization adds it.
        selector: Option<Selector>,
        template: Template,
    }
    struct UpdateStrategy {
        #[serde(rename = "type")]
        kind: Strategy,
        rolling_update: RollingUpdate,
    }
    struct RollingUpdate { max_unavailable: IntOrString, }
    struct Selector { match_labels: Labels, }
    struct Template { metadata: Option<TemplateMetadata>, spec: PodSpec, }
    struct TemplateMetadata { labels: Labels, }
    struct PodSpec {
        host_network: bool,
        #[serde(rename = "hostPID")]
        host_pid: bool,
        dns_policy: DnsPolicy,
        automount_service_account_token: bool,
        enable_service_links: bool,
        priority_class_name: String,
        termination_grace_period_seconds: u64,
        node_selector: Labels,
        tolerations: Vec<Toleration>,
        containers: Vec<Container>,
        volumes: Vec<Volume>,
    }
    struct Toleration { operator: Operator, }
    struct Container {
        name: String,
        image: String,
        args: Vec<String>,
        ports: Vec<Port>,
        security_context: SecurityContext,
        resources: Resources,
        startup_probe: Probe,
        readiness_probe: Probe,
        liveness_probe: Probe,
        volume_mounts: Vec<VolumeMount>,
    }
    struct Port { name: String, container_port: u16, protocol: Protocol, }
    struct SecurityContext {
        run_as_user: u32,
        run_as_group: u32,
        privileged: bool,
        read_only_root_filesystem: bool,
        capabilities: Capabilities,
        seccomp_profile: SecurityProfile,
        app_armor_profile: SecurityProfile,
    }
    struct Capabilities { drop: Vec<String>, add: Vec<String>, }
    struct SecurityProfile {
        #[serde(rename = "type")]
        kind: SeccompKind,
    }
    struct Resources { requests: Labels, limits: Labels, }
    struct Probe {
        http_get: HttpGet,
        period_seconds: Option<u32>,
        timeout_seconds: Option<u32>,
        failure_threshold: Option<u32>,
    }
    struct HttpGet { path: String, port: IntOrString, }
    struct VolumeMount {
        name: String,
        mount_path: String,
        #[serde(default)]
        read_only: bool,
        mount_propagation: Option<Propagation>,
    }
    struct Volume { name: String, config_map: Option<ConfigMapVolume>, host_path: Option<HostPath>, }
    struct ConfigMapVolume { name: String, }
    struct HostPath {
        path: String,
        #[serde(rename = "type")]
        kind: PathKind,
    }

    struct PodMonitor { api_version: String, kind: String, metadata: Metadata, spec: PodMonitorSpec, }
    struct PodMonitorSpec { pod_metrics_endpoints: Vec<Endpoint>, selector: Selector, }
    struct Endpoint {
        port: String,
        path: String,
        interval: String,
        scrape_timeout: String,
        relabelings: Vec<Relabeling>,
    }
    struct Relabeling { action: String, source_labels: Vec<String>, target_label: String, }

    struct PrometheusRule { api_version: String, kind: String, metadata: Metadata, spec: RuleSpec, }
    struct RuleSpec { groups: Vec<RuleGroup>, }
    struct RuleGroup { name: String, interval: String, rules: Vec<Rule>, }
    struct Rule {
        alert: Option<String>,
        record: Option<String>,
        expr: String,
        #[serde(rename = "for")]
        pending: Option<String>,
        // The only one that is not in camel case: it is Prometheus' own.
        #[serde(rename = "keep_firing_for")]
        keep_firing_for: Option<String>,
        #[serde(default)]
        labels: Labels,
        #[serde(default)]
        annotations: Labels,
    }

    struct Kustomization {
        api_version: String,
        kind: String,
        namespace: String,
        labels: Vec<KustomizeLabels>,
        resources: Vec<String>,
        config_map_generator: Vec<Generator>,
        images: Vec<Image>,
    }
    struct KustomizeLabels { include_selectors: bool, pairs: Labels, }
    struct Generator { name: String, files: Vec<String>, }
    struct Image { name: String, new_tag: String, }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

/// Reads a document; the error names what is not as the API wants it.
pub(super) fn read(text: &str) -> Result<Document, String> {
    fn of<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
    let Head { api_version, kind } = of(text)?;
    match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => of(text).map(Document::Namespace),
        ("v1", "ConfigMap") => of(text).map(Document::ConfigMap),
        ("apps/v1", "DaemonSet") => of(text).map(|one| Document::DaemonSet(Box::new(one))),
        ("monitoring.coreos.com/v1", "PodMonitor") => of(text).map(Document::PodMonitor),
        ("monitoring.coreos.com/v1", "PrometheusRule") => of(text).map(Document::PrometheusRule),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization") => {
            of(text).map(Document::Kustomization)
        }
        (version, kind) => Err(format!("nobody knows {kind} of {version}")),
    }
}
