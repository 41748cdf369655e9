//! From the cgroup of a container of Kubernetes, and from the kubelet's link to its log, to
//! `namespace/pod/container`.
//!
//! A cgroup's path has the pod's uid and the container's id. What these are called stands in
//! `/var/log/containers`, where the kubelet keeps a link for each container:
//! `POD_NAMESPACE_CONTAINER-ID.log`, to `.../NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`
//! (`LogSymlink` and `BuildContainerLogsDirectory`, pkg/kubelet/kuberuntime). Both have the same
//! names; where they do not agree, nothing is told.

use super::service::{Owner, container_id, innermost, is_hex, pod_uid};

/// Digits of a container's id.
const ID: usize = 64;

/// Which container of which pod has a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's uid, with `-` between its groups; of a static pod a digest without.
    pub uid: String,
    /// The container's whole id; `None` for the cgroup of the pod itself.
    pub container: Option<String>,
}

impl PodCgroup {
    /// Reads the path of a cgroup within its hierarchy. `None` where it is no pod's, or where a
    /// unit or a container inside of the pod's names the service.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let (owner, above) = innermost(path)?;
        let id = match owner {
            Owner::Pod(uid) => return Some(Self { uid, container: None }),
            Owner::Container(id) => Some(id.to_owned()),
            Owner::Other => return None,
        };
        for component in above.rsplit('/') {
            // `kubepods-podUID.slice:cri-containerd:ID`.
            let folder = component.split(':').next().unwrap_or(component);
            if let Some(uid) = pod_uid(folder) {
                return Some(Self { uid, container: id });
            }
            // A container in a container: the links know the outer one alone.
            if container_id(component).is_some_and(|outer| Some(outer) != id.as_deref()) {
                return None;
            }
        }
        None
    }
}

/// What a link of the kubelet's tells of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// The container's whole id.
    pub id: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl PodContainer {
    /// Reads a link: its name, and where it leads. `None` where they are not the kubelet's, do not
    /// agree, or where the name was too long for the id.
    #[must_use]
    pub fn of_link(name: &str, target: &str) -> Option<Self> {
        let mut parts = target.rsplit('/');
        let (log, container, folder) = (parts.next()?, parts.next()?, parts.next()?);
        log.strip_suffix(".log")?;
        // Neither namespaces nor pods, uids or containers may have `_` in them.
        let mut words = folder.split('_');
        let (namespace, pod, uid) = (words.next()?, words.next()?, words.next()?);
        let words = [namespace, pod, container, uid];
        if folder.split('_').count() != 3 || !words.iter().all(|word| is_name(word)) {
            return None;
        }
        let rest = name.strip_prefix(pod)?.strip_prefix('_')?.strip_prefix(namespace)?;
        let rest = rest.strip_prefix('_')?.strip_prefix(container)?.strip_prefix('-')?;
        let id = rest.strip_suffix(".log").filter(|id| is_hex(id, ID))?;
        Some(Self {
            id: id.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
        })
    }

    /// The container as `service`.
    #[must_use]
    pub fn service(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pod, self.container)
    }

    /// Its pod as `service`.
    #[must_use]
    pub fn pod_service(&self) -> String {
        format!("{}/{}", self.namespace, self.pod)
    }
}

/// Whether it may be a name in Kubernetes (RFC 1123's, as the API server checks them).
fn is_name(word: &str) -> bool {
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=253).contains(&word.len()) && word.bytes().all(known) && !word.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "6bd0b0c6-9d8c-4e4c-8c5a-0d6e3c3d5f11";
    const DIGEST: &str = "0123456789abcdef0123456789abcdef";

    fn fill(text: &str) -> String {
        text.replace("UID_", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("OTHER", &"ab".repeat(32))
            .replace("ID", &DIGEST.repeat(2))
    }

    #[test]
    fn the_cgroups_of_pods() {
        let id = fill("ID");
        let container = |uid: &str| Some((uid.to_owned(), Some(id.clone())));
        let pod = |uid: &str| Some((uid.to_owned(), None));
        let cases = [
            ("/kubepods/burstable/podUID/ID", container(UID)),
            ("/kubepods/podUID/ID", container(UID)),
            ("/kubepods.slice/kubepods-podUID_.slice/docker-ID.scope", container(UID)),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
                container(UID),
            ),
            ("/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/container", container(UID)),
            ("/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/init.scope", container(UID)),
            (
                "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
                container(UID),
            ),
            // A node that is a container itself.
            (
                "/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
                container(UID),
            ),
            ("/kubepods/burstable/pod0123456789abcdef0123456789abcdef/ID", container(DIGEST)),
            ("/kubepods/besteffort/podUID", pod(UID)),
            ("/kubepods.slice/kubepods-podUID_.slice", pod(UID)),
            // What is inside names the service.
            ("/kubepods/podUID/ID/system.slice/nginx.service", None),
            ("/kubepods/podUID/OTHER/docker/ID", None),
            ("/kubepods/podUID/ID/lxc.payload.web", None),
            // No pods.
            ("/docker/ID", None),
            ("/system.slice/nginx.service", None),
            ("/kubepods.slice", None),
            ("/", None),
            ("", None),
        ];
        for (path, expected) in cases {
            let found = PodCgroup::of_path(&fill(path));
            assert_eq!(found.map(|found| (found.uid, found.container)), expected, "{path}");
        }
    }

    #[test]
    fn links_tell_what_containers_are_called() {
        let (name, target) =
            (fill("web-7d9_shop_nginx-ID.log"), fill("/var/log/pods/shop_web-7d9_UID/nginx/0.log"));
        let found = PodContainer::of_link(&name, &target).expect("a container");
        assert_eq!((&*found.id, &*found.uid), (&*fill("ID"), UID));
        assert_eq!(
            (found.service(), found.pod_service()),
            ("shop/web-7d9/nginx".into(), "shop/web-7d9".into())
        );
        // Static pods; another folder of logs.
        for (name, target) in [
            (
                "etcd-n1_kube-system_etcd-ID.log",
                "/data/pods/kube-system_etcd-n1_0123456789abcdef0123456789abcdef/etcd/12.log",
            ),
            ("a.b-c_n_d-e-ID.log", "../pods/n_a.b-c_UID/d-e/0.log"),
        ] {
            assert!(PodContainer::of_link(&fill(name), &fill(target)).is_some(), "{name}");
        }
    }

    #[test]
    fn what_does_not_agree_is_not_guessed() {
        let good = "/var/log/pods/shop_web_UID/nginx/0.log";
        for (name, target) in [
            // Another pod, another namespace, another container.
            ("api_shop_nginx-ID.log", good),
            ("web_bank_nginx-ID.log", good),
            ("web_shop_proxy-ID.log", good),
            // Cut short by the longest name that a file may have.
            ("web_shop_nginx-0123456789abcdef.log", good),
            ("web_shop_nginx-ID", good),
            ("web_shop_nginx.log", good),
            // Not the kubelet's.
            ("web_shop_nginx-ID.log", "/var/lib/docker/containers/ID/ID-json.log"),
            ("web_shop_nginx-ID.log", "/var/log/pods/shop_web/nginx/0.log"),
            ("web_shop_nginx-ID.log", "/var/log/pods/shop_web_UID_x/nginx/0.log"),
            ("web_shop_nginx-ID.log", "/var/log/pods/shop_web_UID/nginx/0.txt"),
            ("web_shop_nginx-ID.log", "0.log"),
            ("web_shop_ng inx-ID.log", "/var/log/pods/shop_web_UID/ng inx/0.log"),
            ("web_.._nginx-ID.log", "/var/log/pods/.._web_UID/nginx/0.log"),
            ("", ""),
        ] {
            assert_eq!(PodContainer::of_link(&fill(name), &fill(target)), None, "{name} {target}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(path in ".*", name in ".*", target in ".*") {
            let _ = PodCgroup::of_path(&path);
            let _ = PodContainer::of_link(&name, &target);
        }

        #[test]
        fn no_likely_path_panics(path in "(/(pod|-pod|kubepods|[0-9a-f]{64}|[0-9a-f]{32}|:|é|\\.slice){0,4}){0,4}") {
            if let Some(found) = PodCgroup::of_path(&path) {
                prop_assert!(found.container.is_none_or(|id| path.contains(&id)));
            }
        }
    }
}
