//! The arrays that the probes reach by their addresses: see `tcpmon_common::Table`.

use super::error::{ProbeError, one_line, unmapped};
use crate::kernel::mapped::Mapped;
use aya::{
    Pod,
    maps::{MapData, MapError},
};
use aya_obj::{
    Map,
    generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY},
};
use std::{
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
};
use tcpmon_common::{
    Control, Counters, LISTENER_PLACES, ListenerPlace, SocketRest, SocketSet, Table,
};

/// All of them.
pub(super) struct Tables {
    pub(super) control: Values<Control>,
    pub(super) counters: Values<Counters>,
    pub(super) socket_sets: Values<SocketSet>,
    pub(super) socket_rests: Values<SocketRest>,
    listeners: Values<ListenerPlace>,
}

impl Tables {
    /// Makes them, for so many numbers of CPUs and so many sets of sockets: fewer where the kernel
    /// will not have so long a value (before Linux 6.0, four megabytes are the most). Other sockets
    /// are kept in the hash map then.
    ///
    /// # Errors
    ///
    /// Where the kernel will not have one.
    pub(super) fn new(cpus: u32, sets: u32) -> Result<Self, ProbeError> {
        let error = |error: MapError| ProbeError::Maps(one_line(&error));
        let (socket_sets, socket_rests) = longest(sets, |sets| {
            Ok((Values::new("SOCKET_SETS", sets)?, Values::new("SOCKET_RESTS", sets)?))
        })
        .map_err(error)?;
        Ok(Self {
            control: Values::new("CONTROL", 1).map_err(error)?,
            counters: Values::new("COUNTERS", cpus).map_err(|cause| {
                if is_too_long(&cause) { ProbeError::TooManyCpus(cpus) } else { error(cause) }
            })?,
            socket_sets,
            socket_rests,
            listeners: Values::new("LISTENER_PLACES", LISTENER_PLACES).map_err(error)?,
        })
    }

    /// The descriptor of one's map.
    pub(super) fn descriptor(&self, table: Table) -> RawFd {
        match table {
            Table::Control => self.control.descriptor(),
            Table::Counters => self.counters.descriptor(),
            Table::SocketSets => self.socket_sets.descriptor(),
            Table::SocketRests => self.socket_rests.descriptor(),
            Table::Listeners => self.listeners.descriptor(),
        }
    }
}

/// The values of one table, which for the kernel are one value of a map.
pub(super) struct Values<T> {
    map: MapData,
    len: u32,
    of: PhantomData<T>,
}

impl<T: Pod> Values<T> {
    fn new(name: &str, len: u32) -> Result<Self, MapError> {
        let map = create(name, len as usize * size_of::<T>())?;
        Ok(Self { map, len, of: PhantomData })
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Maps them into this process.
    ///
    /// # Errors
    ///
    /// Where that cannot be done.
    pub(super) fn map(&self) -> Result<Mapped<T>, ProbeError> {
        Mapped::of_values(self.map.fd().as_fd(), self.len).map_err(unmapped)
    }

    fn descriptor(&self) -> RawFd {
        self.map.fd().as_fd().as_raw_fd()
    }
}

/// Makes a map of one value. One of [`Table::MOST_BYTES`] or more the verifier would refuse.
fn create(name: &str, bytes: usize) -> Result<MapData, MapError> {
    /// Bytes of an array's index.
    const INDEX: u32 = 4;
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let map = Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, INDEX, bytes, 1, BPF_F_MMAPABLE);
    MapData::create(map, name, None)
}

/// Whether the kernel has no value as long as that (`array_map_alloc_check()` in
/// kernel/bpf/arraymap.c).
fn is_too_long(error: &MapError) -> bool {
    matches!(error, MapError::CreateError { io_error, .. }
        if io_error.raw_os_error() == Some(libc::E2BIG))
}

/// What `make` makes of `sets`, or where that is too long for the kernel, of half as many, and so on.
fn longest<T>(mut sets: u32, make: impl Fn(u32) -> Result<T, MapError>) -> Result<T, MapError> {
    loop {
        match make(sets) {
            Err(error) if is_too_long(&error) && sets > 1 => sets /= 2,
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_table_is_as_long_as_the_kernel_will_have_it() {
        let refused = |number| MapError::CreateError {
            name: "SOCKET_RESTS".to_owned(),
            io_error: io::Error::from_raw_os_error(number),
        };
        let before_6_0 = |sets: u32| {
            if sets as usize * size_of::<SocketRest>() > 4 << 20 {
                Err(refused(libc::E2BIG))
            } else {
                Ok(sets)
            }
        };
        for (wanted, had) in [(1 << 21, 16_384), (32_768, 16_384), (16_384, 16_384), (16, 16)] {
            assert_eq!(longest(wanted, before_6_0).expect("some"), had, "{wanted}");
        }
        longest(64, |_| Err::<(), _>(refused(libc::ENOMEM))).expect_err("another reason");
        longest(64, |_| Err::<(), _>(refused(libc::E2BIG))).expect_err("not even one");
    }

    #[test]
    fn the_running_kernel_says_when_a_value_is_too_long() {
        // More than it has numbers for (`INT_MAX`).
        let error = create("SOCKET_RESTS", 1 << 31).expect_err("too long");
        assert!(is_too_long(&error), "{error}");
    }
}
