//! What stands in the code of the probes' object for what only the daemon knows, who puts it there
//! before it loads the object.
//!
//! Two kinds of instructions have one: those that load a number of 64 bits
//! (`BPF_LD | BPF_IMM | BPF_DW`), and those that read a member of a kernel structure (`BPF_LDX`).

use crate::{constants::Constants, offsets::Offsets};

/// What a number of 64 bits stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The member of [`Constants`] at this offset, of this size, both in bytes.
    Constant {
        /// Where it begins.
        offset: usize,
        /// How long it is.
        size: usize,
    },
    /// The address of an array.
    Table(Table),
}

/// The upper half of every such number, and of no other in the probes' code.
const MARK: u64 = 0xe7c5_91b3;

impl Placeholder {
    /// The number that stands for it.
    #[must_use]
    pub const fn number(self) -> u64 {
        let (size, which) = match self {
            Self::Constant { offset, size } => {
                assert!(size == 4 || size == 8, "a member of Constants");
                assert!(offset + size <= size_of::<Constants>(), "a member of Constants");
                (size, offset)
            }
            Self::Table(table) => (0, table as usize),
        };
        MARK << 32 | (size as u64) << 16 | which as u64
    }

    /// What a number stands for; `None` for any other number.
    #[must_use]
    pub const fn of(number: u64) -> Option<Self> {
        if number >> 32 != MARK {
            return None;
        }
        let (size, which) = ((number >> 16 & 0xffff) as usize, (number & 0xffff) as usize);
        if size != 0 {
            Some(Self::Constant { offset: which, size })
        } else if which < Table::ALL.len() {
            Some(Self::Table(Table::ALL[which]))
        } else {
            None
        }
    }
}

/// An array that the probes reach by its address, which the daemon makes.
///
/// A look-up would write the index to the stack, read it again, compare it and multiply, and the read
/// that the look-up is for waits for all that. The kernel gives the address of maps of one value only
/// (`array_map_direct_value_addr()` in kernel/bpf/arraymap.c), so for it all of a table is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// What the daemon wants now: one [`crate::Control`].
    Control,
    /// Every exact counter: [`crate::Counters`] by the number of the CPU.
    Counters,
    /// Sockets by cookie: [`crate::SocketSet`].
    SocketSets,
    /// What is seldom asked of them, set by set: [`crate::SocketRest`].
    SocketRests,
    /// Listeners: [`crate::LISTENER_PLACES`] times [`crate::ListenerPlace`].
    Listeners,
}

impl Table {
    /// All of them, in order.
    pub const ALL: [Self; 5] =
        [Self::Control, Self::Counters, Self::SocketSets, Self::SocketRests, Self::Listeners];

    /// How far into a map's value the verifier lets a probe reckon, in bytes (`BPF_MAX_VAR_OFF` in
    /// include/linux/bpf_verifier.h): no table may be longer.
    pub const MOST_BYTES: usize = 1 << 29;
}

/// What stands in an instruction that reads a member of a kernel structure for where that member is:
/// for the member of [`Offsets`] that begins at `member`. A compiler writes no displacement like it,
/// since nothing of the probes' own is as large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "fewer than the bytes of the record, which are few"
)]
#[must_use]
pub const fn displacement(member: usize) -> i16 {
    assert!(member.is_multiple_of(4) && member < size_of::<Offsets>(), "a member of Offsets");
    (member / 4) as i16 - i16::MAX
}

/// Where the member of [`Offsets`] begins that a displacement stands for; `None` for any other.
#[must_use]
pub const fn displaced(displacement: i16) -> Option<usize> {
    let member = displacement.wrapping_add(i16::MAX).cast_unsigned() as usize * 4;
    if member < size_of::<Offsets>() { Some(member) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_of_member;
    use core::mem::offset_of;

    #[test]
    fn a_number_tells_what_it_stands_for() {
        let handler = Placeholder::Constant {
            offset: offset_of!(Constants, tw_handler),
            size: size_of_member(|constants| &constants.tw_handler),
        };
        let inode = Placeholder::Constant {
            offset: offset_of!(Constants, offsets.net_inum),
            size: size_of_member(|constants| &constants.offsets.net_inum),
        };
        let tables = Table::ALL.map(Placeholder::Table);
        for placeholder in [handler, inode].into_iter().chain(tables) {
            assert_eq!(Placeholder::of(placeholder.number()), Some(placeholder));
        }
        let no_table = Placeholder::Table(Table::Control).number() + Table::ALL.len() as u64;
        for number in [0, u64::MAX, u64::from(u32::MAX), MARK, 60_000_000_000, no_table] {
            assert_eq!(Placeholder::of(number), None);
        }
    }

    #[test]
    fn a_displacement_tells_where_the_offset_is() {
        for member in (0..size_of::<Offsets>()).step_by(4) {
            assert_eq!(displaced(displacement(member)), Some(member));
        }
        let behind = displacement(size_of::<Offsets>() - 4) + 1;
        for other in [0, 8, i16::MAX, i16::MIN, -8, -512, behind] {
            assert_eq!(displaced(other), None, "{other}");
        }
    }
}
