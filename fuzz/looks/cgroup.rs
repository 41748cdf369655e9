//! From a cgroup's path, and from a link of the kubelet's, to a name. Whoever may make containers
//! chooses parts of both: no panics, no empty names, and no name that is not in the text.

use super::model::{
    pod::{PodCgroup, PodContainer},
    service::{container_name, service_name},
};

/// Feeds them anything: a path, and on two more lines a link's name and where it leads.
pub(super) fn look(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (path, name, target) = (line(), line(), line());
    assert_ne!(service_name(path).as_deref(), Some(""));
    assert_ne!(container_name(path).as_deref(), Some(""));
    if let Some(found) = PodCgroup::of_path(path) {
        assert!(found.container.is_none_or(|id| path.contains(&id)), "{path}");
        assert!(service_name(path).is_some(), "a pod's cgroup has a name without links too");
    }
    if let Some(found) = PodContainer::of_link(name, target) {
        assert_eq!(found.service().split('/').count(), 3, "{name} {target}");
        assert!(found.service().starts_with(&found.pod_service()));
        assert!(name.contains(&found.id) && target.contains(&found.uid));
    }
}
