//! A wire between two namespaces that can hold packets back.
//!
//! On loopback a FIN is delivered before `close()` returns, so two FINs never cross. Here each end
//! is a TUN device, and a thread of ours carries the packets: while it holds them, both ends act,
//! and neither knows what the other did. No traffic-control module is needed, which kernels often
//! lack.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::error::{LabError, Result};
use super::interface;
use super::netns;
use super::plan::AddressPlan;
use super::recipe::Addresses;

/// Flags in a TCP header (RFC 9293, 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;

/// Name of the device in both namespaces.
const DEVICE: &str = "wire";
/// The largest packet: the default MTU of a TUN device is 1500 bytes, segmentation is not
/// offloaded.
const PACKET: usize = 2048;

/// The wire; it is cut when dropped.
pub(super) struct Wire {
    shared: Arc<Shared>,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    carrier: Option<JoinHandle<()>>,
}

struct Shared {
    ends: [File; 2],
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    holding: bool,
    /// The end that sent it, and the packet, in the order of arrival.
    held: Vec<(usize, Vec<u8>)>,
    /// The last packet with a FIN that each end has sent.
    last_fin: [Option<Vec<u8>>; 2],
}

impl Wire {
    /// Lays a wire between two namespaces, with the plan's addresses at its ends.
    pub(super) fn lay(names: [&str; 2], plan: AddressPlan, addresses: Addresses) -> Result<Self> {
        let end = |end: u16, name: &str| {
            let address = plan.wire(end, addresses);
            // Two addresses: the ends differ in the last bit, IPv4 /31 (RFC 3021); the IPv6
            // hosts are 1 and 2.
            let prefix = if address.is_ipv4() { 31 } else { 126 };
            netns::inside(name, || {
                let tun = interface::open_tun(DEVICE)?;
                interface::up(DEVICE)?;
                interface::add_address(DEVICE, address, prefix)?;
                Ok(tun)
            })
            .map_err(LabError::io(format!(
                "make a TUN device in {name} (is /dev/net/tun there, is the module tun loaded?)"
            )))
        };
        let ends = [end(0, names[0])?, end(1, names[1])?];
        let shared = Arc::new(Shared { ends, state: Mutex::default(), arrived: Condvar::new() });
        let (stop, stopped) = UnixStream::pair().map_err(LabError::io("make a socket pair"))?;
        let ends_of_thread = Arc::clone(&shared);
        let carrier = thread::Builder::new()
            .name("lab-wire".into())
            .spawn(move || ends_of_thread.carry(&stopped))
            .map_err(LabError::io("start the thread that carries packets"))?;
        Ok(Self { shared, stop: Some(stop), carrier: Some(carrier) })
    }

    /// From now on packets are held back.
    pub(super) fn hold(&self) {
        self.shared.lock().holding = true;
    }

    /// Waits until both ends have sent a packet with `flag`, which is held.
    pub(super) fn await_held(&self, flag: u8, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut state = self.shared.lock();
        loop {
            let sent = |end| {
                state.held.iter().any(|(from, packet)| {
                    *from == end && tcp_flags(packet).is_some_and(|flags| flags & flag != 0)
                })
            };
            if sent(0) && sent(1) {
                return Ok(());
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(LabError::Timeout {
                    what: "both ends' packets on the wire".into(),
                    waited: limit,
                    seen: format!("{} packets are held", state.held.len()),
                });
            }
            (state, _) = self
                .shared
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Delivers what was held, all of it before any answer to it, and holds no more.
    pub(super) fn release(&self) -> Result<()> {
        let mut state = self.shared.lock();
        state.holding = false;
        for (from, packet) in std::mem::take(&mut state.held) {
            self.shared.deliver(from, &packet).map_err(LabError::io("deliver a held packet"))?;
        }
        Ok(())
    }
}

impl Wire {
    /// Throws away what was held, and holds no more.
    pub(super) fn discard(&self) {
        let mut state = self.shared.lock();
        state.holding = false;
        state.held.clear();
    }

    /// Delivers once more the last FIN that the end `from` has sent: a duplicate, as networks make
    /// them.
    pub(super) fn repeat_fin(&self, from: usize) -> Result<()> {
        let state = self.shared.lock();
        let packet = state.last_fin.get(from).and_then(Option::as_ref);
        let packet =
            packet.ok_or_else(|| LabError::Unsuitable(format!("end {from} has sent no FIN")))?;
        self.shared.deliver(from, packet).map_err(LabError::io("deliver a packet again"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(carrier) = self.carrier.take() {
            let _panicked = carrier.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The carrier's work, until `stopped` ends.
    fn carry(&self, stopped: &UnixStream) {
        loop {
            let mut ready = [
                PollFd::new(stopped, PollFlags::IN),
                PollFd::new(&self.ends[0], PollFlags::IN),
                PollFd::new(&self.ends[1], PollFlags::IN),
            ];
            match rustix::event::poll(&mut ready, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            if !ready[0].revents().is_empty() {
                return;
            }
            for (end, device) in ready[1..].iter().enumerate() {
                if !device.revents().is_empty() && self.take_from(end).is_err() {
                    return;
                }
            }
        }
    }

    /// Takes one packet from `from`; the lock is kept until it is delivered or held, so that a
    /// release is never overtaken.
    fn take_from(&self, from: usize) -> io::Result<()> {
        let mut state = self.lock();
        let mut packet = [0; PACKET];
        let length = match (&self.ends[from]).read(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let packet = &packet[..length];
        // Router solicitations and the like concern nobody here.
        let Some(flags) = tcp_flags(packet) else { return Ok(()) };
        if flags & FIN != 0 {
            state.last_fin[from] = Some(packet.to_vec());
        }
        if state.holding {
            state.held.push((from, packet.to_vec()));
            self.arrived.notify_all();
            return Ok(());
        }
        self.deliver(from, packet)
    }

    fn deliver(&self, from: usize, packet: &[u8]) -> io::Result<()> {
        (&self.ends[1 - from]).write_all(packet)
    }
}

/// The flags of a TCP packet with an IPv4 or IPv6 header (no extension headers); `None` for
/// anything else.
fn tcp_flags(packet: &[u8]) -> Option<u8> {
    const TCP: u8 = 6;
    let first = *packet.first()?;
    let (protocol, header) = match first >> 4 {
        4 => (*packet.get(9)?, usize::from(first & 0x0f) * 4),
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    if protocol == TCP { packet.get(header + 13).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IP header of `header` bytes, then a TCP header with `flags`.
    fn packet(version: u8, header: usize, protocol: u8, flags: u8) -> Vec<u8> {
        let mut packet = vec![0; header + 20];
        let words = u8::try_from(header / 4).expect("short header") & 0x0f;
        packet[0] = version << 4 | if version == 4 { words } else { 0 };
        packet[if version == 4 { 9 } else { 6 }] = protocol;
        packet[header + 13] = flags;
        packet
    }

    #[test]
    fn flags_are_found_behind_headers_of_either_version() {
        assert_eq!(tcp_flags(&packet(4, 20, 6, FIN | 0x10)), Some(0x11));
        assert_eq!(tcp_flags(&packet(4, 32, 6, SYN)), Some(SYN));
        assert_eq!(tcp_flags(&packet(6, 40, 6, SYN)), Some(SYN));
        for other in [packet(6, 40, 58, 0), packet(4, 20, 17, 0), packet(5, 20, 6, 0), vec![]] {
            assert_eq!(tcp_flags(&other), None);
        }
        assert_eq!(tcp_flags(&packet(4, 20, 6, SYN)[..30]), None);
    }
}
