//! What the daemon was told, and how that differs from what it is told now.

use super::pipeline::Limits;
use crate::{
    export::alertmanager::Endpoint,
    kernel::probes::{MapSizes, TimeWaitMode},
    pressure::thresholds::Thresholds,
};
use std::path::PathBuf;

/// What the daemon was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `host:port` to serve HTTP on; `:port` is every address.
    pub listen: Vec<String>,
    /// What is asked of whoever comes over TCP.
    pub web_config: Option<PathBuf>,
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// How large things may get.
    pub limits: Limits,
    /// Series with a line of their own in families without a natural bound.
    pub top: usize,
    /// Let the kernel measure what the probes cost.
    pub measure: bool,
    /// How the time-wait table is watched.
    pub time_wait: TimeWaitMode,
    /// Alertmanagers that are told of alerts.
    pub alertmanagers: Vec<Endpoint>,
    /// When alerts begin and end.
    pub thresholds: Thresholds,
    /// Watch the tables of all network namespaces, not only of our own.
    pub all_namespaces: bool,
}

impl Settings {
    /// The keys of what differs, and what only a restart puts into force. `alert.*` stands for all
    /// keys of the thresholds: several of these go into one.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<&'static str> {
        // Taken apart, so that none can be forgotten.
        let Self {
            listen,
            web_config,
            socket,
            limits,
            top,
            measure,
            time_wait,
            alertmanagers,
            thresholds,
            all_namespaces,
        } = self;
        let mut keys = vec![
            ("web.listen-address", *listen == other.listen),
            ("web.config.file", *web_config == other.web_config),
            ("socket", *socket == other.socket),
            ("top", *top == other.top),
            ("probe-stats", *measure == other.measure),
            ("time-wait", *time_wait == other.time_wait),
            ("namespaces", *all_namespaces == other.all_namespaces),
            ("alertmanager.url", *alertmanagers == other.alertmanagers),
            ("alert.*", *thresholds == other.thresholds),
        ];
        keys.extend(same_limits(limits, &other.limits));
        keys.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }
}

/// The keys of all limits, and whether they are the same.
fn same_limits(limits: &Limits, other: &Limits) -> [(&'static str, bool); 10] {
    let Limits { maps, queue_bytes, snapshot_cpu_share } = limits;
    let MapSizes {
        ring_bytes,
        sockets,
        listeners,
        services,
        failures,
        embryos,
        namespaces,
        destinations,
    } = maps;
    [
        ("ring-bytes", *ring_bytes == other.maps.ring_bytes),
        ("max-sockets", *sockets == other.maps.sockets),
        ("max-listeners", *listeners == other.maps.listeners),
        ("max-services", *services == other.maps.services),
        ("max-failures", *failures == other.maps.failures),
        ("max-embryos", *embryos == other.maps.embryos),
        ("max-namespaces", *namespaces == other.maps.namespaces),
        ("max-destinations", *destinations == other.maps.destinations),
        ("subscriber-queue-bytes", *queue_bytes == other.queue_bytes),
        ("snapshot-cpu-share", snapshot_cpu_share.total_cmp(&other.snapshot_cpu_share).is_eq()),
    ]
}
