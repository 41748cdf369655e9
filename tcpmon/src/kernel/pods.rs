//! Names of Kubernetes' containers, from the links that the kubelet keeps to their logs.
//!
//! The links alone are read, never what they lead to: a daemon in a container of its own is given
//! the folder of links, and no log can be read through it. Where there is no such folder, or a
//! container has no link, it has the name that its cgroup gives.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::pod::{PodCgroup, PodContainer};

/// Where the kubelet keeps the links (`DefaultContainerLogsDir`); no setting of its changes that.
pub(super) const LINKS: &str = "/var/log/containers";
/// How often the folder is read at most.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How many links are looked at: the kubelet runs 110 pods on a node unless told otherwise.
const LIMIT: usize = 8_192;
/// How many containers are remembered, those that have gone among them, until all are forgotten.
const REMEMBERED: usize = 2 * LIMIT;

/// Names containers and pods by their cgroups.
#[derive(Debug)]
pub(super) struct PodNames {
    links: PathBuf,
    /// By the container's id: its pod's uid and its name.
    containers: HashMap<String, (String, Arc<str>)>,
    /// By the pod's uid; `None` where links do not agree.
    pods: HashMap<String, Option<Arc<str>>>,
    read: Option<Instant>,
}

impl PodNames {
    /// Nothing is read yet. `links` is the folder of links.
    pub(super) fn new(links: &Path) -> Self {
        Self {
            links: links.to_owned(),
            containers: HashMap::new(),
            pods: HashMap::new(),
            read: None,
        }
    }

    /// `namespace/pod/container`, or `namespace/pod` for the pod's own cgroup; `None` where the
    /// cgroup is no pod's, or no link tells.
    pub(super) fn service(&mut self, path: &str, now: Instant) -> Option<Arc<str>> {
        let cgroup = PodCgroup::of_path(path)?;
        self.known(&cgroup).or_else(|| self.refresh(now).then(|| self.known(&cgroup)).flatten())
    }

    fn known(&self, cgroup: &PodCgroup) -> Option<Arc<str>> {
        let Some(id) = &cgroup.container else {
            return self.pods.get(&cgroup.uid).cloned().flatten();
        };
        let (uid, name) = self.containers.get(id)?;
        (*uid == cgroup.uid).then(|| Arc::clone(name))
    }

    /// Reads the folder anew; false if it was read less than a second ago.
    fn refresh(&mut self, now: Instant) -> bool {
        if self.read.is_some_and(|read| now.duration_since(read) < READ_INTERVAL) {
            return false;
        }
        self.read = Some(now);
        // Neither ids nor uids come twice, so what has gone may be remembered.
        if self.containers.len() > REMEMBERED {
            self.containers.clear();
            self.pods.clear();
        }
        let Ok(entries) = fs::read_dir(&self.links) else { return true };
        for entry in entries.flatten().take(LIMIT) {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let name = entry.file_name();
            let (Some(name), Some(target)) = (name.to_str(), target.to_str()) else { continue };
            let Some(found) = PodContainer::of_link(name, target) else { continue };
            let pod: Arc<str> = found.pod_service().into();
            let known = self.pods.entry(found.uid.clone()).or_insert_with(|| Some(pod.clone()));
            if known.as_ref() != Some(&pod) {
                *known = None;
            }
            let service = found.service().into();
            self.containers.insert(found.id, (found.uid, service));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const UID: &str = "6bd0b0c6-9d8c-4e4c-8c5a-0d6e3c3d5f11";

    fn id(pair: &str) -> String {
        pair.repeat(32)
    }

    /// Makes the link of a container; what it leads to does not exist.
    fn link(folder: &Path, pod: &str, container: &str, pair: &str, uid: &str) {
        let name = format!("{pod}_shop_{container}-{}.log", id(pair));
        let target = format!("/nowhere/pods/shop_{pod}_{uid}/{container}/0.log");
        symlink(target, folder.join(name)).expect("a link");
    }

    fn cgroup(uid: &str, pair: &str) -> String {
        format!("/kubepods/burstable/pod{uid}/{}", id(pair))
    }

    #[test]
    fn containers_have_the_names_that_their_links_have() {
        let folder = tempfile::tempdir().expect("a folder");
        link(folder.path(), "web", "nginx", "ab", UID);
        link(folder.path(), "web", "proxy", "cd", UID);
        fs::write(folder.path().join(format!("x_y_z-{}.log", id("ef"))), "no link")
            .expect("a file");
        let mut names = PodNames::new(folder.path());
        let now = Instant::now();
        let mut service = |path: &str| names.service(path, now).map(|name| name.to_string());
        assert_eq!(service(&cgroup(UID, "ab")).as_deref(), Some("shop/web/nginx"));
        assert_eq!(service(&cgroup(UID, "cd")).as_deref(), Some("shop/web/proxy"));
        assert_eq!(service(&format!("/kubepods/pod{UID}")).as_deref(), Some("shop/web"));
        assert_eq!(service(&cgroup(UID, "ef")), None, "the pause container has no log");
        assert_eq!(service(&format!("/docker/{}", id("ab"))), None, "not a pod's");
        // The id is known, but not as one of this pod's.
        let other = UID.replace('6', "7");
        assert_eq!(service(&cgroup(&other, "ab")), None);
        assert_eq!(service(&format!("/kubepods/pod{other}")), None);
    }

    #[test]
    fn a_pod_that_two_names_claim_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        link(folder.path(), "web", "nginx", "ab", UID);
        link(folder.path(), "api", "nginx", "cd", UID);
        let mut names = PodNames::new(folder.path());
        assert_eq!(names.service(&format!("/kubepods/pod{UID}"), Instant::now()), None);
    }

    #[test]
    fn links_are_read_again_once_a_second_for_what_is_not_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut names = PodNames::new(folder.path());
        let now = Instant::now();
        assert_eq!(names.service(&cgroup(UID, "ab"), now), None);
        link(folder.path(), "web", "nginx", "ab", UID);
        assert_eq!(names.service(&cgroup(UID, "ab"), now), None);
        let later = now + READ_INTERVAL;
        assert_eq!(names.service(&cgroup(UID, "ab"), later).as_deref(), Some("shop/web/nginx"));
        fs::remove_dir_all(folder.path()).expect("removed");
        let _ = names.service(&cgroup(UID, "ef"), later + READ_INTERVAL);
        assert!(names.service(&cgroup(UID, "ab"), later).is_some(), "still known");
        let mut nowhere = PodNames::new(Path::new("/nonexistent"));
        assert_eq!(nowhere.service(&cgroup(UID, "ab"), now), None);
    }
}
