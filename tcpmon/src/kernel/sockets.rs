//! What the probes keep of each socket, by its cookie.

use super::mapped::Mapped;
use aya::maps::{HashMap, MapData};
use tcpmon_common::{Socket, SocketRest, SocketSet};

/// The probes' table of sockets.
pub(super) struct SocketTable {
    sets: Mapped<SocketSet>,
    rests: Mapped<SocketRest>,
    mask: u32,
    overflow: HashMap<MapData, u64, Socket>,
    /// Whether a socket may be in `overflow`: to look there takes a system call.
    overflowed: bool,
}

impl SocketTable {
    /// Of the loaded maps.
    pub(super) fn new(
        sets: Mapped<SocketSet>,
        rests: Mapped<SocketRest>,
        overflow: HashMap<MapData, u64, Socket>,
    ) -> Self {
        // Their number is a power of two.
        let mask = sets.len().saturating_sub(1);
        Self { sets, rests, mask, overflow, overflowed: false }
    }

    /// Looks whether there is anything in the overflow, for the calls of [`Self::find`] that follow.
    pub(super) fn look(&mut self) {
        self.overflowed = self.overflow.keys().next().is_some();
    }

    /// What is kept of the socket with that cookie.
    pub(super) fn find(&self, cookie: u64) -> Option<Socket> {
        if cookie == 0 {
            return None;
        }
        // The low bits of the cookie, as in the probes' `sockets.rs`.
        let index = u32::try_from(cookie & u64::from(self.mask)).ok()?;
        // A copy of what a probe may be writing: the cookie is written last and cleared first, so
        // a copy between two equal cookies is a whole one.
        let set = self.sets.get(index)?;
        if let Some(way) = set.cookies.iter().position(|&it| it == cookie) {
            let rest = self.rests.get(index)?;
            if self.sets.get(index)?.cookies[way] == cookie {
                return Some(set.socket(&rest, way));
            }
        }
        if !self.overflowed {
            return None;
        }
        self.overflow.get(&cookie, 0).ok()
    }
}
