//! Puts into the probes' code what the daemon knows: see `tcpmon_common::Placeholder`.

use super::error::{ProbeError, one_line};
use object::{Object, ObjectSection, SectionKind};
use std::{mem::offset_of, ops::Range, os::fd::RawFd};
use tcpmon_common::{ABSENT, Constants, Placeholder, Table, displaced};

/// Loads a number of 64 bits, whose upper half stands in a second instruction, which is no other
/// (`BPF_LD | BPF_IMM | BPF_DW`).
const LOAD_NUMBER: u8 = 0x18;

/// Of an instruction's first byte, what tells its class (`BPF_CLASS`).
const CLASS: u8 = 0x07;

/// The class of those that read memory (`BPF_LDX`).
const READ_MEMORY: u8 = 0x01;

/// Where no member stands. What reads there is refused, unless the code asks first whether the member
/// is there: then the verifier sees that nothing comes to it.
const NOWHERE: i16 = i16::MIN;

/// Of an instruction's second byte, the source, set to what makes the number of one that loads one
/// the descriptor of a map, and the number loaded the address of the map's value
/// (`BPF_PSEUDO_MAP_VALUE`).
const VALUE_OF_MAP: u8 = if cfg!(target_endian = "little") { 2 << 4 } else { 2 };

/// The object with all that in place of the placeholders.
pub(super) fn put(
    object: &[u8],
    constants: &Constants,
    descriptor: impl Fn(Table) -> RawFd + Copy,
) -> Result<Vec<u8>, ProbeError> {
    let mut filled = object.to_vec();
    for section in code(object)? {
        let code = filled.get_mut(section).ok_or(ProbeError::Object("section of code"))?;
        put_into_code(code, constants, descriptor)?;
    }
    Ok(filled)
}

/// Where its sections of code are.
fn code(object: &[u8]) -> Result<Vec<Range<usize>>, ProbeError> {
    let parsed = object::File::parse(object).map_err(|error| ProbeError::Maps(one_line(&error)))?;
    let sections = parsed.sections().filter(|section| section.kind() == SectionKind::Text);
    let ranges = sections.map(|section| {
        let (start, size) = section.file_range()?;
        Some(usize::try_from(start).ok()?..usize::try_from(start.checked_add(size)?).ok()?)
    });
    ranges.collect::<Option<_>>().ok_or(ProbeError::Object("section of code"))
}

fn put_into_code(
    mut code: &mut [u8],
    constants: &Constants,
    descriptor: impl Fn(Table) -> RawFd + Copy,
) -> Result<(), ProbeError> {
    while let Some((instruction, rest)) = code.split_first_chunk_mut() {
        code = rest;
        if instruction[0] & CLASS == READ_MEMORY {
            put_displacement(instruction, constants)?;
        }
        if instruction[0] != LOAD_NUMBER {
            continue;
        }
        let Some((second, rest)) = code.split_first_chunk_mut() else { break };
        code = rest;
        put_number(instruction, second, constants, descriptor)?;
    }
    Ok(())
}

/// Puts in place where a member of a kernel structure stands.
fn put_displacement(instruction: &mut [u8; 8], constants: &Constants) -> Result<(), ProbeError> {
    let [_, _, displacement @ .., _, _, _, _] = instruction;
    let Some(member) = displaced(i16::from_ne_bytes(*displacement)) else { return Ok(()) };
    let offset = value(constants, offset_of!(Constants, offsets) + member, size_of::<u32>())?;
    let offset = if offset == u64::from(ABSENT) {
        NOWHERE
    } else {
        i16::try_from(offset).map_err(|_| ProbeError::Object("way to read so far"))?
    };
    *displacement = offset.to_ne_bytes();
    Ok(())
}

/// Puts in place what the number of two instructions stands for.
fn put_number(
    first: &mut [u8; 8],
    second: &mut [u8; 8],
    constants: &Constants,
    descriptor: impl Fn(Table) -> RawFd + Copy,
) -> Result<(), ProbeError> {
    let [first_half, second_half] = [operand(first), operand(second)];
    let [low, high] = [&first_half, &second_half].map(|half| u32::from_ne_bytes(**half));
    let Some(placeholder) = Placeholder::of(u64::from(low) | u64::from(high) << 32) else {
        return Ok(());
    };
    let number = match placeholder {
        Placeholder::Constant { offset, size } => value(constants, offset, size)?,
        // The upper half is how far into the value.
        Placeholder::Table(table) => u64::from(descriptor(table).cast_unsigned()),
    };
    set(first_half, number);
    set(second_half, number >> 32);
    if matches!(placeholder, Placeholder::Table(_)) {
        first[1] |= VALUE_OF_MAP;
    }
    Ok(())
}

/// Where the number stands in an instruction (`struct bpf_insn`).
fn operand([_, _, _, _, number @ ..]: &mut [u8; 8]) -> &mut [u8; 4] {
    number
}

/// Sets it to the lower half of a number.
fn set(operand: &mut [u8; 4], number: u64) {
    let [a, b, c, d, ..] = number.to_le_bytes();
    *operand = u32::from_le_bytes([a, b, c, d]).to_ne_bytes();
}

/// The member that has this offset and this size.
fn value(constants: &Constants, offset: usize, size: usize) -> Result<u64, ProbeError> {
    let start = std::ptr::from_ref(constants).cast::<u8>();
    // SAFETY: the bytes of a record without padding, as `aya::Pod` says of it.
    let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<Constants>()) };
    let member = offset.checked_add(size).and_then(|end| bytes.get(offset..end));
    let number = member.and_then(|member| match size {
        4 => Some(u32::from_ne_bytes(member.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(member.try_into().ok()?)),
        _ => None,
    });
    number.ok_or(ProbeError::Object("such constant"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpmon_common::{Offsets, displacement, size_of_member};

    fn constants() -> Constants {
        Constants {
            tw_handler: 0xffff_ffff_8123_4567,
            offsets: Offsets {
                net_inum: 0x98,
                tcp_clock: ABSENT,
                task_comm: 40_000,
                ..Offsets::default()
            },
            set_mask: u32::MAX,
            ..Constants::default()
        }
    }

    /// The two instructions that load a number.
    fn load(number: u64) -> [u8; 16] {
        let mut code = [LOAD_NUMBER, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (first, second) = code.split_at_mut(8);
        for (half, number) in [(first, number), (second, number >> 32)] {
            set(operand(half.try_into().expect("an instruction")), number);
        }
        code
    }

    /// The number that stands for a member.
    macro_rules! stands_for {
        ($($member:ident).+) => {
            Placeholder::Constant {
                offset: offset_of!(Constants, $($member).+),
                size: size_of_member(|constants| &constants.$($member).+),
            }
            .number()
        };
    }

    fn filled(code: &[u8]) -> Result<Vec<u8>, ProbeError> {
        let mut code = code.to_vec();
        put_into_code(&mut code, &constants(), |table| 40 + table as i32)?;
        Ok(code)
    }

    /// An instruction of 8 bytes, of which no half is taken for the beginning of another.
    const CALL: [u8; 8] = [0x85, 0x10, 0, 0, 0x18, 0x18, 0x18, 0x18];

    #[test]
    fn every_placeholder_gives_way_to_its_member_and_nothing_else_changes() {
        let code = |numbers: [u64; 3]| {
            let [a, b, c] = numbers.map(load);
            [&CALL, &a[..], &load(60_000_000_000), &CALL, &b, &c, &CALL].concat()
        };
        let probe =
            code([stands_for!(tw_handler), stands_for!(offsets.net_inum), stands_for!(set_mask)]);
        let expected = code([0xffff_ffff_8123_4567, 0x98, u32::MAX.into()]);
        assert_eq!(filled(&probe).expect("known members"), expected);
    }

    #[test]
    fn a_table_gives_way_to_the_first_value_of_its_map() {
        let probe = load(Placeholder::Table(Table::SocketSets).number());
        let [mut first, second] = [load(42), load(0)];
        first[1] = 0x21;
        let expected = [&first[..8], &second[8..]].concat();
        assert_eq!(
            filled(&[&CALL[..], &probe, &CALL].concat()).expect("a table"),
            [&CALL[..], &expected, &CALL].concat()
        );
    }

    #[test]
    fn what_reads_a_member_of_the_kernel_s_reads_where_it_stands() {
        let read = |displacement: i16| {
            let [low, high] = displacement.to_ne_bytes();
            [0x79, 0x21, low, high, 0, 0, 0, 0]
        };
        let of = |member| read(displacement(member));
        let [there, absent, far] = [
            offset_of!(Offsets, net_inum),
            offset_of!(Offsets, tcp_clock),
            offset_of!(Offsets, task_comm),
        ];
        let probe = [of(there), read(-512), of(absent), read(0x98)].concat();
        let expected = [read(0x98), read(-512), read(NOWHERE), read(0x98)].concat();
        assert_eq!(filled(&probe).expect("near members"), expected);
        // What writes, and so many bytes of a number, are none.
        let writes = [0x7b, 0x21, of(there)[2], of(there)[3], 0, 0, 0, 0];
        assert_eq!(filled(&writes).expect("no member"), writes);
        let refused = filled(&of(far)).expect_err("further than an instruction says");
        assert!(refused.to_string().contains("so far"), "{refused}");
    }

    #[test]
    fn a_placeholder_of_other_sources_is_refused() {
        let beyond =
            stands_for!(tw_handler) | u64::try_from(size_of::<Constants>()).expect("small");
        let refused = filled(&load(beyond)).expect_err("no such member");
        assert!(refused.to_string().contains("other sources"), "{refused}");
        // Half an instruction is left to whoever loads it.
        filled(&load(beyond)[..8]).expect("nothing to put");
    }

    #[test]
    fn none_is_left_in_the_probes() {
        let object = super::super::object::OBJECT;
        let filled = put(object, &Constants::default(), |_| 40).expect("the object");
        let mark = (stands_for!(tw_handler) >> 32) as u32;
        let marks =
            |object: &[u8]| object.windows(4).filter(|bytes| **bytes == mark.to_ne_bytes()).count();
        let displacements = |object: &[u8]| {
            let sections = code(object).expect("sections").into_iter();
            let instructions = sections.flat_map(|section| object[section].chunks_exact(8));
            let reads = instructions.filter(|code| code[0] & CLASS == READ_MEMORY);
            reads.filter(|code| displaced(i16::from_ne_bytes([code[2], code[3]])).is_some()).count()
        };
        assert!(marks(object) > 0 && displacements(object) > 0);
        assert_eq!((marks(&filled), displacements(&filled)), (0, 0));
        assert_eq!(filled.len(), object.len());
    }
}
