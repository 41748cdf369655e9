//! Tests of service names: paths as the programs named make them.

use super::*;
use proptest::prelude::*;

/// Sixty-four digits that begin with `0123456789ab`.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn fill(text: &str) -> String {
    text.replace("UID_", "6bd0b0c6_9d8c_4e4c_8c5a_0d6e3c3d5f11")
        .replace("UID", "6bd0b0c6-9d8c-4e4c-8c5a-0d6e3c3d5f11")
        .replace("ID", ID)
}

#[test]
fn paths_have_the_names_that_people_give() {
    let cases = [
        // Nobody.
        ("/", None),
        ("", None),
        ("/..", None),
        ("/system.slice", None),
        ("/user.slice/user-1000.slice", None),
        ("/kubepods.slice/kubepods-burstable.slice", None),
        ("/docker", None),
        ("/lxc/_", None),
        ("/openrc.", None),
        ("/process_api/4b620c220639f4d60a42cc52dc6c9b42", None),
        // systemd, any hierarchy.
        ("/system.slice/nginx.service", Some("nginx.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
        (
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            Some("postgresql@15-main.service"),
        ),
        (r"/system.slice/my\x2dapp.service", Some("my-app.service")),
        (
            r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid.service",
            Some("systemd-fsck@dev-disk-by-uuid.service"),
        ),
        ("/system.slice/api.service/workers/3", Some("api.service")),
        ("/init.scope", Some("init.scope")),
        ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("user@1000.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
            Some("foo.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-42.scope",
            Some("app-gnome-firefox-42.scope"),
        ),
        ("/system.slice/run-u12.service", Some("run-u12.service")),
        ("/system.slice/proc-sys-fs-binfmt_misc.mount", Some("proc-sys-fs-binfmt_misc.mount")),
        ("/system.slice/_cpu.service", Some("cpu.service")),
        ("/../../system.slice/cron.service", Some("cron.service")),
        // One instance a connection.
        (
            "/system.slice/system-ssh.slice/ssh@3-10.0.0.1:22-10.0.0.2:51234.service",
            Some("ssh@.service"),
        ),
        ("/system.slice/ssh@0-[2001:db8::1]:22-[fe80::2]:40000.service", Some("ssh@.service")),
        ("/system.slice/systemd-coredump@7-4242-0.service", Some("systemd-coredump@.service")),
        ("/system.slice/systemd-coredump@7-4242_88-0.service", Some("systemd-coredump@.service")),
        ("/system.slice/worker@1-2.service", Some("worker@1-2.service")),
        // OpenRC.
        ("/openrc.sshd", Some("sshd")),
        // Docker: cgroupfs driver and systemd driver; rootless; init system inside.
        ("/docker/ID", Some("0123456789ab")),
        ("/system.slice/docker-ID.scope", Some("0123456789ab")),
        ("/docker/ID/init.scope", Some("0123456789ab")),
        ("/docker/ID/system.slice/nginx.service", Some("nginx.service")),
        ("/docker/buildx/ID", Some("0123456789ab")),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            Some("0123456789ab"),
        ),
        ("/actions_job/ID", Some("0123456789ab")),
        // containerd and nerdctl.
        ("/system.slice/nerdctl-ID.scope", Some("0123456789ab")),
        (
            "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
            Some("0123456789ab"),
        ),
        ("/system.slice/containerd.service", Some("containerd.service")),
        // Kubernetes.
        ("/kubepods/burstable/podUID/ID", Some("0123456789ab")),
        ("/kubepods/podUID/ID", Some("0123456789ab")),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            Some("0123456789ab"),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope",
            Some("0123456789ab"),
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container",
            Some("0123456789ab"),
        ),
        ("/kubepods.slice/kubepods-podUID_.slice/docker-ID.scope", Some("0123456789ab")),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
            Some("0123456789ab"),
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice",
            Some("podUID"),
        ),
        ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice", Some("podUID")),
        ("/kubepods/besteffort/podUID", Some("podUID")),
        (
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef",
            Some("pod0123456789abcdef0123456789abcdef"),
        ),
        // CRI-O and podman.
        ("/system.slice/crio-ID.scope", Some("0123456789ab")),
        ("/machine.slice/libpod-ID.scope", Some("0123456789ab")),
        ("/machine.slice/libpod-ID.scope/container", Some("0123456789ab")),
        ("/machine.slice/libpod-conmon-ID.scope", Some("0123456789ab")),
        ("/libpod_parent/libpod-ID", Some("0123456789ab")),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            Some("0123456789ab"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_ID.slice/libpod-ID.scope",
            Some("0123456789ab"),
        ),
        ("/system.slice/web.service/libpod-payload-ID", Some("web.service")),
        ("/custom/libpod-payload-ID", Some("0123456789ab")),
        // LXC, LXD, Incus.
        ("/lxc.payload.web", Some("web")),
        ("/lxc.payload.web/init.scope", Some("web")),
        ("/lxc.payload.web/system.slice/nginx.service", Some("nginx.service")),
        ("/lxc.monitor.web", Some("web")),
        ("/lxc.payload/web", Some("web")),
        ("/lxc/101/ns", Some("101")),
        ("/lxc/101", Some("101")),
        ("/lxc", None),
        ("/lxc/_", None),
        // Virtual machines and systemd-nspawn.
        (
            r"/machine.slice/machine-qemu\x2d1\x2ddebian.scope/libvirt/emulator",
            Some("qemu-1-debian"),
        ),
        ("/machine.slice/machine-deb.scope/payload/init.scope", Some("deb")),
        ("/machine.slice/systemd-nspawn@deb.service/payload", Some("systemd-nspawn@deb.service")),
        (
            "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/sshd.service",
            Some("sshd.service"),
        ),
        // Amazon ECS.
        (
            "/ecs/cluster/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            Some("0123456789ab"),
        ),
        ("/ecs/0123456789abcdef0123456789abcdef/ID", Some("0123456789ab")),
        // Nearly.
        ("/.service", None),
        ("/x/podcast.d", None),
        ("/kubepods/podium", None),
        ("/docker/0123456789abcdef", None),
    ];
    for (path, expected) in cases {
        assert_eq!(service_name(&fill(path)), expected.map(fill), "{path}");
    }
}

#[test]
fn paths_lead_through_containers() {
    let short = Some("0123456789ab");
    let cases = [
        // None, though some have a service.
        ("/", None),
        ("", None),
        ("/docker", None),
        ("/lxc", None),
        ("/init.scope", None),
        ("/machine.slice/machine-.scope", None),
        ("/machine.slice/systemd-nspawn@.service", None),
        ("/system.slice/nginx.service", None),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice", None),
        ("/system.slice/docker-0123456789ab.scope", None),
        // Beside one, and not in it.
        ("/machine.slice/libpod-conmon-ID.scope", None),
        ("/machine.slice/crio-conmon-ID.scope", None),
        ("/lxc.monitor.web", None),
        ("/lxc.monitor/web", None),
        ("/lxc.monitor/web/init.scope", None),
        ("/system.slice/web.service/supervisor", None),
        // Docker, and what runs inside.
        ("/docker/ID", short),
        ("/system.slice/docker-ID.scope", short),
        ("/../../system.slice/docker-ID.scope", short),
        ("/docker/ID/system.slice/nginx.service", short),
        ("/docker/ID/init.scope", short),
        // Seventy-six digits are no id; the container around is one.
        ("/docker/ID/docker/ffffffffffffID", short),
        // containerd, CRI-O and Kubernetes.
        ("/system.slice/nerdctl-ID.scope", short),
        (
            "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
            short,
        ),
        ("/kubepods/burstable/podUID/ID", short),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            short,
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/crio-ID.scope/container",
            short,
        ),
        // podman, inside a unit too.
        ("/machine.slice/libpod-ID.scope/container", short),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            short,
        ),
        ("/system.slice/web.service/libpod-payload-ID", short),
        // By name.
        ("/lxc.payload.web", Some("web")),
        ("/lxc.payload.web/system.slice/nginx.service", Some("web")),
        ("/lxc.payload/web", Some("web")),
        ("/lxc/101/ns", Some("101")),
        ("/machine.slice/machine-deb.scope/payload/init.scope", Some("deb")),
        (r"/machine.slice/machine-my\x2dweb.scope", Some("my-web")),
        ("/machine.slice/systemd-nspawn@deb.service/payload", Some("deb")),
        (
            "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/sshd.service",
            Some("deb"),
        ),
        // The inner one.
        ("/lxc.payload.web/docker/ID", short),
        ("/docker/ID/lxc.payload.web", Some("web")),
        // Amazon ECS.
        (
            "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            short,
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(container_name(&fill(path)).as_deref(), expected, "{path}");
    }
}

#[test]
fn escapes() {
    for (name, expected) in [
        (r"a\x2db", "a-b"),
        (r"a\x2", r"a\x2"),
        (r"a\x+1b", r"a\x+1b"),
        (r"a\xzz\x5c", r"a\xzz\"),
        (r"\xff", "\u{fffd}"),
        (r"a\é\x", r"a\é\x"),
    ] {
        assert_eq!(unescape(name), expected);
    }
}

proptest! {
    #[test]
    fn no_path_panics(path in ".*") {
        let _ = service_name(&path);
        let _ = container_name(&path);
    }

    #[test]
    fn no_likely_path_panics(
        path in "(/(lxc|\\.payload|pod|-pod|kubepods|[0-9a-f]{12}|@|-|:|\\\\x|é|\\.scope|\\.service){0,6}){0,4}",
    ) {
        prop_assert_ne!(service_name(&path), Some(String::new()));
        prop_assert_ne!(container_name(&path), Some(String::new()));
    }
}
