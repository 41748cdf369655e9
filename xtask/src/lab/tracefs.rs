//! The kernel's tracepoint `sock:inet_sock_set_state`, read as text from an instance of tracefs:
//! a witness that shares nothing with tcpmon.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};
use tcpmon_common::TcpState;

use super::edge::Edge;
use super::error::{LabError, Result};

/// Where systemd, or anybody else, may have mounted it.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/sock/inet_sock_set_state";
/// A buffer for each CPU; an event takes about 100 bytes.
const BUFFER_KB: &str = "16384";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Of the task that happened to be on the CPU.
    pub(super) pid: u32,
    /// `ipv4` or `ipv6`.
    pub(super) family: String,
    pub(super) edge: Edge,
    pub(super) source: IpAddr,
    pub(super) sport: u16,
    pub(super) destination: IpAddr,
    pub(super) dport: u16,
}

/// A tracing instance of our own, removed when dropped, with the mount if that was ours too.
pub(super) struct Instance {
    path: PathBuf,
    mounted: Option<PathBuf>,
}

impl Instance {
    /// Starts to record the transitions of TCP sockets with one of `ports` at either end.
    pub(super) fn record(ports: &[u16]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcpmon-lab-{}-{number}", std::process::id());
        let (root, mounted) = mount(&name)?;
        let instance = Self { path: root.join("instances").join(name), mounted };
        fs::create_dir(&instance.path)
            .map_err(LabError::io(format!("make {}", instance.path.display())))?;
        let conditions: Vec<String> =
            ports.iter().map(|port| format!("sport == {port} || dport == {port}")).collect();
        instance.write("buffer_size_kb", BUFFER_KB)?;
        // One clock for all CPUs: the default one is not exact enough to order events of two.
        instance.write("trace_clock", "mono")?;
        instance.write(
            &format!("{EVENT}/filter"),
            &format!("protocol == {} && ({})", libc::IPPROTO_TCP, conditions.join(" || ")),
        )?;
        instance.write(&format!("{EVENT}/enable"), "1")?;
        Ok(instance)
    }

    /// Everything recorded so far, in order; an error if anything was lost.
    pub(super) fn events(&self) -> Result<Vec<Event>> {
        self.write(&format!("{EVENT}/enable"), "0")?;
        let lost = self.lost()?;
        if lost > 0 {
            return Err(LabError::Unsuitable(format!(
                "the tracing buffer was too small: {lost} events are lost; use fewer connections with --verify"
            )));
        }
        let path = self.path.join("trace");
        let text =
            fs::read_to_string(&path).map_err(LabError::io(format!("read {}", path.display())))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                parse(line).ok_or_else(|| {
                    LabError::Disagrees(format!("it has a line that cannot be read: {line}"))
                })
            })
            .collect()
    }

    /// How many events found no room.
    fn lost(&self) -> Result<u64> {
        let folder = self.path.join("per_cpu");
        let cpus =
            fs::read_dir(&folder).map_err(LabError::io(format!("read {}", folder.display())))?;
        let mut lost = 0;
        for cpu in cpus.flatten() {
            let path = cpu.path().join("stats");
            let stats = fs::read_to_string(&path)
                .map_err(LabError::io(format!("read {}", path.display())))?;
            for name in ["overrun: ", "dropped events: "] {
                let value = stats.lines().find_map(|line| line.strip_prefix(name));
                lost += value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(lost)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value)
            .map_err(LabError::io(format!("write {value:?} to {}", path.display())))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _gone = fs::remove_dir(&self.path);
        if let Some(place) = &self.mounted {
            unmount(place);
        }
    }
}

/// Where tracefs is; mounted in a place of our own, called `name`, if nobody has.
fn mount(name: &str) -> Result<(PathBuf, Option<PathBuf>)> {
    if let Some(root) = USUAL.iter().map(Path::new).find(|root| root.join("instances").is_dir()) {
        return Ok((root.to_path_buf(), None));
    }
    let place = std::env::temp_dir().join(name);
    fs::create_dir(&place).map_err(LabError::io(format!("make {}", place.display())))?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    match rustix::mount::mount("tracefs", &place, "tracefs", flags, None) {
        Ok(()) => Ok((place.clone(), Some(place))),
        Err(error) => {
            unmount(&place);
            Err(LabError::Io {
                what: "mount tracefs (has the kernel CONFIG_FTRACE?)".into(),
                source: io::Error::from(error),
            })
        }
    }
}

fn unmount(place: &Path) {
    let _gone = rustix::mount::unmount(place, UnmountFlags::DETACH);
    let _gone = fs::remove_dir(place);
}

/// `  comm-PID  [CPU] flags  time: inet_sock_set_state: family=AF_INET protocol=... newstate=...`
fn parse(line: &str) -> Option<Event> {
    let (task, fields) = line.split_once(": inet_sock_set_state: ")?;
    // A name may have dashes, blanks and brackets in it; a pid has not.
    let (task, _) = task.rsplit_once(" [")?;
    let pid = task.trim_end().rsplit_once('-')?.1.parse().ok()?;
    let field = |name: &str| {
        fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let state =
        |name: &str| TcpState::from_name(&field(name)?.strip_prefix("TCP_")?.to_lowercase());
    let (family, source, destination) = match field("family")? {
        "AF_INET" => ("ipv4", "saddr", "daddr"),
        "AF_INET6" => ("ipv6", "saddrv6", "daddrv6"),
        _ => return None,
    };
    Some(Event {
        pid,
        family: family.to_owned(),
        edge: Edge { old: state("oldstate")?, new: state("newstate")? },
        source: field(source)?.parse().ok()?,
        sport: field("sport")?.parse().ok()?,
        destination: field(destination)?.parse().ok()?,
        dport: field("dport")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "   my-odd [1] name-4242    [001] ..s2.   914.112233: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=20000 dport=40000 saddr=127.64.0.1 daddr=127.0.0.1 saddrv6=::ffff:127.64.0.1 daddrv6=::ffff:127.0.0.1 oldstate=TCP_FIN_WAIT1 newstate=TCP_FIN_WAIT2";

    #[test]
    fn a_line_of_the_trace() {
        let event = parse(LINE).expect("an event");
        assert_eq!(event.pid, 4242);
        assert_eq!((event.sport, event.dport), (20000, 40000));
        assert_eq!(event.source.to_string(), "127.64.0.1");
        assert_eq!(event.edge.to_string(), "fin_wait1>fin_wait2");
        let six = LINE.replace("AF_INET ", "AF_INET6 ");
        let event = parse(&six).expect("an event");
        assert_eq!(event.destination.to_string(), "::ffff:127.0.0.1");
    }

    #[test]
    fn anything_else_is_no_event() {
        for line in ["", "x-1 [000] .... 1.0: other_event: a=b", &LINE.replace("TCP_FIN", "TCP_NO")]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
