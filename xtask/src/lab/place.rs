//! The place where recipes are carried out: namespaces, their settings, and who removes them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{LabError, Result};
use super::expectation::{Expectation, Namespace};
use super::interface;
use super::netns;
use super::play;
use super::protocol::Command;
use super::puppet::{Puppet, find_program};
use super::recipe::{AddressPlan, Addresses, Recipe};
use super::table;
use super::wire::Wire;

/// How a lab is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// With which addresses.
    pub addresses: Addresses,
    /// The `xtask` program, which plays the lab's processes. If `None`: what the environment
    /// variable `TCPMON_LAB` names, else this program itself, else the one beside the test.
    pub program: Option<PathBuf>,
    /// Called with one line for each step.
    pub narrate: Option<fn(&str)>,
}

/// Network namespaces of its own, in which recipes are carried out; gone when dropped, and also
/// when the process that holds it dies.
pub struct Lab {
    pub(super) options: Options,
    pub(super) program: PathBuf,
    pub(super) plan: AddressPlan,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) wire: Option<Wire>,
    next_port: u16,
    // Last, so that it ends last: it removes the namespaces.
    keeper: Puppet,
}

/// Numbers the labs and the namespaces of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Makes a namespace. Needs root.
    ///
    /// In it `tcp_tw_reuse` is 0: the default would let connections on loopback take over
    /// time-wait ports after a second, and no recipe would be certain.
    pub fn open(options: Options) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let program = find_program(options.program.as_deref())?;
        let keeper = Puppet::spawn(&program, "lab-keeper", None)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let plan = AddressPlan::new(std::process::id(), number);
        let mut lab = Self {
            options,
            program,
            plan,
            namespaces: Vec::new(),
            wire: None,
            next_port: plan.first_port(),
            keeper,
        };
        lab.add_namespace(number)?;
        if lab.options.addresses == Addresses::Ipv6 {
            lab.add_loopback_address(plan.server(Addresses::Ipv6))?;
        }
        Ok(lab)
    }

    /// The namespaces made so far; the client of every recipe is in the first.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// Makes what the recipe needs beyond the first namespace, and returns the namespaces it will
    /// use. To call it is useful only where their names must be known before the recipe begins.
    pub fn prepare(&mut self, recipe: Recipe) -> Result<&[Namespace]> {
        if !recipe.needs_wire() {
            return Ok(&self.namespaces[..1]);
        }
        if self.namespaces.len() < 2 {
            self.add_namespace(NEXT.fetch_add(1, Ordering::Relaxed))?;
        }
        if self.wire.is_none() {
            let names = [&*self.namespaces[0].name, &*self.namespaces[1].name];
            self.wire = Some(Wire::lay(names, self.plan, self.options.addresses)?);
        }
        Ok(&self.namespaces)
    }

    /// Carries out a recipe, `connections` times or as often as is usual for it, and tells what
    /// must have been seen. When it returns, every transition has happened.
    pub fn perform(&mut self, recipe: Recipe, connections: Option<u64>) -> Result<Expectation> {
        self.prepare(recipe)?;
        play::play(self, recipe, connections.unwrap_or_else(|| recipe.default_connections()))
    }

    /// Leaves the namespaces in place when the lab ends.
    pub fn keep(&mut self) -> Result<()> {
        self.keeper.tell_done(&Command::KeepNetns)
    }

    /// The two ports that the next recipe will use for its servers.
    pub(super) fn next_ports(&self) -> [u16; 2] {
        [self.next_port, self.next_port + 1]
    }

    /// Two ports below every range of local ports, that no earlier recipe of this lab used: its
    /// time-wait sockets may still hold those.
    pub(super) fn take_ports(&mut self) -> [u16; 2] {
        let ports = self.next_ports();
        self.next_port = AddressPlan::port_after(ports[1]);
        ports
    }

    /// Where the server of the recipe listens.
    pub(super) fn server_address(&self, recipe: Recipe, port: u16) -> SocketAddr {
        let ip = if recipe.needs_wire() {
            self.wire_address(1)
        } else {
            self.plan.server(self.options.addresses)
        };
        SocketAddr::new(ip, port)
    }

    /// The address at one end of the wire, as sockets see it.
    pub(super) fn wire_address(&self, end: u16) -> IpAddr {
        match (self.plan.wire(end, self.options.addresses), self.options.addresses) {
            (IpAddr::V4(ip), Addresses::Ipv4Mapped) => ip.to_ipv6_mapped().into(),
            (ip, _) => ip,
        }
    }

    /// Sets a sysctl of the first namespace, and returns what it was; `key` as under
    /// /proc/sys/net, with slashes.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<String> {
        netns::set_sysctl(&self.namespaces[0].name, key, value)
    }

    /// Runs `work` in the first namespace, on a thread of its own.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> std::io::Result<T> {
        netns::inside(&self.namespaces[0].name, work)
    }

    /// How many sockets the first namespace has in its time-wait table now.
    pub fn time_wait(&self) -> Result<u64> {
        let path = "/proc/thread-self/net/sockstat";
        let sockstat = self
            .inside(|| std::fs::read_to_string(path))
            .map_err(LabError::io(format!("read {path}")))?;
        Ok(table::field(&sockstat, "TCP:", "tw").unwrap_or_default())
    }

    /// Gives the first namespace's loopback interface the IPv6 address `ip`, if it has not got it.
    pub(super) fn add_loopback_address(&self, ip: IpAddr) -> Result<()> {
        let name = &self.namespaces[0].name;
        let added = netns::inside(name, || interface::add_address("lo", ip, 128));
        added
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })
            .map_err(LabError::io(format!(
                "give lo the address {ip} in {name} (is IPv6 off here?)"
            )))
    }

    /// One line to whoever listens.
    pub(super) fn tell(&self, line: &str) {
        if let Some(narrate) = self.options.narrate {
            narrate(line);
        }
    }

    fn add_namespace(&mut self, number: u32) -> Result<()> {
        let name = format!("{}{}-{number}", netns::PREFIX, std::process::id());
        let inode = self.keeper.make_netns(&name)?;
        let _default = netns::set_sysctl(&name, "ipv4/tcp_tw_reuse", "0")?;
        self.namespaces.push(Namespace { name, inode });
        Ok(())
    }
}

/// Removes namespaces that labs before left behind, `--keep` or not, and returns their names.
pub fn remove_orphans() -> Vec<String> {
    let orphans = netns::orphans();
    for name in &orphans {
        netns::remove(name);
    }
    orphans
}
