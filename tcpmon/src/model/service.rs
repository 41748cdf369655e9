//! From the path of a cgroup to the name that a person would give the service in it.
//!
//! A path is read from its deepest component up, and the first component that means something
//! names the service: a unit inside a container is that unit, a user's unit is that unit and not
//! `user@1000.service`. What is only scenery (slices, `payload`, `container`) is passed over.
//!
//! Where the names come from: systemd.unit(5), `cg_escape` in systemd's
//! src/basic/cgroup-util.c, and the cgroup drivers of Docker, containerd, CRI-O, podman, LXC and
//! the kubelet.

/// Characters of a container's id that are shown, as `docker ps` does.
const SHORT_ID: usize = 12;

/// The service whose cgroup has `path` (within its hierarchy: `/system.slice/nginx.service`).
///
/// A systemd unit by its name, a container by the first twelve characters of its id or by its
/// name where that is in the path, a pod by its uid; `None` where no component says anything, as
/// in the root cgroup.
#[must_use]
pub fn service_name(path: &str) -> Option<String> {
    // Of use only where nothing above says more.
    let mut weak = None;
    let mut child = None;
    for component in path.rsplit('/').filter(|component| !matches!(*component, "" | "." | "..")) {
        let component = component.strip_prefix('_').unwrap_or(component);
        match meaning(component, child) {
            Meaning::Service(name) => return Some(name),
            Meaning::Weak(name) => weak = weak.or(Some(name)),
            Meaning::None => {}
        }
        child = Some(component);
    }
    weak
}

/// The container whose cgroup has `path`, or that has the unit with that cgroup in it; `None`
/// where the path leads through none.
///
/// The same names as [`service_name`] gives containers: the first twelve characters of the id, or
/// the name where the path has it (LXC, systemd-nspawn, libvirt). Of containers in containers it
/// is the inner one. A runtime's own process beside a container (podman's and CRI-O's conmon,
/// LXC's monitor) is in none: it stays in the namespaces of the host.
#[must_use]
pub fn container_name(path: &str) -> Option<String> {
    let mut child = None;
    for component in path.rsplit('/').filter(|component| !matches!(*component, "" | "." | "..")) {
        let component = component.strip_prefix('_').unwrap_or(component);
        if let Some(name) = container(component, child) {
            return Some(name);
        }
        child = Some(component);
    }
    None
}

/// The container that `component` names; `child` is the component below it.
fn container(component: &str, child: Option<&str>) -> Option<String> {
    if component.starts_with("lxc.monitor") || component.contains("-conmon-") {
        return None;
    }
    let machine = || {
        let unit = component.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
        (!unit.is_empty()).then(|| unescape(unit))
    };
    lxc_name(component, child)
        .map(str::to_owned)
        .or_else(|| container_id(component).map(|id| id[..SHORT_ID].to_owned()))
        .or_else(|| machine_name(component))
        .or_else(machine)
}

/// Who names the service in a path, of what Kubernetes can say more about.
pub(super) enum Owner<'a> {
    /// A container, by its whole id.
    Container(&'a str),
    /// A pod, by its uid.
    Pod(String),
    Other,
}

/// The owner that [`service_name`] finds first, and the path up to its component, which is
/// included; `None` where nothing names a service but what is [`Meaning::Weak`].
pub(super) fn innermost(path: &str) -> Option<(Owner<'_>, &str)> {
    let mut child = None;
    let mut above = path;
    loop {
        let start = above.rfind('/').map_or(0, |at| at + 1);
        let component = &above[start..];
        let component = component.strip_prefix('_').unwrap_or(component);
        if !matches!(component, "" | "." | "..") {
            let owner = if lxc_name(component, child).is_some() {
                Some(Owner::Other)
            } else if let Some(id) = container_id(component) {
                Some(Owner::Container(id))
            } else if let Some(uid) = pod_uid(component) {
                Some(Owner::Pod(uid))
            } else {
                matches!(meaning(component, child), Meaning::Service(_)).then_some(Owner::Other)
            };
            if let Some(owner) = owner {
                return Some((owner, above));
            }
            child = Some(component);
        }
        above = above.get(..start.checked_sub(1)?)?;
    }
}

enum Meaning {
    /// This names the service.
    Service(String),
    /// This names it unless a component further up does.
    Weak(String),
    None,
}

/// What `component` says; `child` is the component below it.
fn meaning(component: &str, child: Option<&str>) -> Meaning {
    if let Some(name) = lxc_name(component, child) {
        return Meaning::Service(name.to_owned());
    }
    if let Some(id) = container_id(component) {
        // podman --cgroups=split puts the container below the unit that runs it: the unit it is.
        let inside_unit = component.starts_with("libpod-payload-");
        let short = id[..SHORT_ID].to_owned();
        return if inside_unit { Meaning::Weak(short) } else { Meaning::Service(short) };
    }
    if let Some(uid) = pod_uid(component) {
        return Meaning::Service(format!("pod{uid}"));
    }
    if let Some(machine) = machine_name(component) {
        return Meaning::Service(machine);
    }
    if let Some(name) = component.strip_prefix("openrc.").filter(|name| !name.is_empty()) {
        return Meaning::Service(name.to_owned());
    }
    match component.rsplit_once('.') {
        // The manager itself: its container, its user@.service, or, on the host, process 1.
        Some(("init", "scope")) => Meaning::Weak(component.to_owned()),
        Some(("", _)) => Meaning::None,
        Some((name, "service")) => Meaning::Service(service_unit(name)),
        Some((_, "scope" | "socket" | "mount" | "swap")) => Meaning::Service(unescape(component)),
        _ => Meaning::None,
    }
}

/// The name of a service unit. That of a connection's own instance (`Accept=yes`), which holds
/// both ends' ports, is that of its template: there would be one service a connection otherwise.
fn service_unit(name: &str) -> String {
    if let Some((template, instance)) = name.split_once('@')
        && is_connection(instance)
    {
        return format!("{}@.service", unescape(template));
    }
    format!("{}.service", unescape(name))
}

/// `3-10.0.0.1:22-10.0.0.2:51234` or, of a Unix socket, `3-1234_567-0` and `3-1234-0`
/// (`instance_from_socket` in systemd's src/core/socket.c).
fn is_connection(instance: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((number, rest)) = instance.split_once('-') else { return false };
    let Some((local, remote)) = rest.rsplit_once('-') else { return false };
    let port = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| digits(port));
    digits(number)
        && (port(local) && port(remote) || local.split('_').all(digits) && digits(remote))
}

/// The name in `lxc.payload.NAME`, `lxc.monitor.NAME`, or `lxc.payload/NAME` and `lxc/NAME`.
fn lxc_name<'a>(component: &'a str, child: Option<&'a str>) -> Option<&'a str> {
    match component.strip_prefix("lxc")? {
        // `_` alone is nothing once systemd's escape is undone.
        "" | ".payload" | ".monitor" => child.filter(|name| !name.is_empty()),
        rest => rest
            .strip_prefix(".payload.")
            .or_else(|| rest.strip_prefix(".monitor."))
            .filter(|name| !name.is_empty()),
    }
}

/// The name in `machine-NAME.scope`, which systemd-machined makes.
fn machine_name(component: &str) -> Option<String> {
    let name = component.strip_prefix("machine-")?.strip_suffix(".scope")?;
    (!name.is_empty()).then(|| unescape(name))
}

/// The container id in a component: sixty-four hexadecimal digits, alone (Docker's and the
/// kubelet's cgroupfs drivers) or after the runtime's name (`docker-ID.scope`,
/// `cri-containerd-ID.scope`, `crio-ID`, `SLICE:cri-containerd:ID`); on Amazon ECS thirty-two,
/// `-`, and a number.
pub(super) fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let last = name.rsplit(['-', ':']).next().unwrap_or(name);
    if is_hex(last, 64) {
        return Some(last);
    }
    let (task, number) = name.split_once('-')?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_hex(task, 32) && numbered).then_some(task)
}

/// The uid of a Kubernetes pod, as the API server writes it: `pod<uid>` below `kubepods`, or
/// `kubepods-burstable-pod<uid>.slice`, where systemd needed `_` for `-`. A static pod's uid is
/// a digest of thirty-two digits.
pub(super) fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.rsplit_once("-pod") {
        Some((qos, uid)) if qos.contains("kubepods") => uid,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let groups: Vec<_> = uid.split('-').collect();
    let is_uuid = groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, len)| is_hex(group, len));
    (is_uuid || is_hex(&uid, 32)).then_some(uid)
}

pub(super) fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Undoes systemd's escaping: `\x2d` is `-`. What is not an escape stays as it is.
fn unescape(name: &str) -> String {
    if !name.contains("\\x") {
        return name.to_owned();
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = rest.strip_prefix(b"\\x").and_then(|digits| {
            let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
            if is_hex(digits, 2) { u8::from_str_radix(digits, 16).ok() } else { None }
        });
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &rest[4..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
