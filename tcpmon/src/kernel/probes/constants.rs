//! Puts into the probes' code what the daemon knows: see `tcpmon_common::Constants`.

use super::error::{ProbeError, one_line};
use object::{Object, ObjectSection, SectionKind};
use tcpmon_common::{Constants, stands_for};

/// Loads a number of 64 bits, whose upper half stands in a second instruction, which is no other
/// (`BPF_LD | BPF_IMM | BPF_DW`).
const LOAD_NUMBER: u8 = 0x18;

/// The object with the constants in place of their placeholders.
pub(super) fn put(object: &[u8], constants: &Constants) -> Result<Vec<u8>, ProbeError> {
    let mut filled = object.to_vec();
    let parsed = object::File::parse(object).map_err(|error| ProbeError::Maps(one_line(&error)))?;
    for section in parsed.sections().filter(|section| section.kind() == SectionKind::Text) {
        let range = section.file_range().and_then(|(start, size)| {
            Some(usize::try_from(start).ok()?..usize::try_from(start + size).ok()?)
        });
        let code = range.and_then(|range| filled.get_mut(range));
        put_into_code(code.ok_or(ProbeError::Object("section of code"))?, constants)?;
    }
    Ok(filled)
}

fn put_into_code(mut code: &mut [u8], constants: &Constants) -> Result<(), ProbeError> {
    while let Some((instruction, rest)) = code.split_first_chunk_mut() {
        code = rest;
        if instruction[0] != LOAD_NUMBER {
            continue;
        }
        let Some((second, rest)) = code.split_first_chunk_mut() else { break };
        code = rest;
        let [low, high] = [instruction, second].map(operand);
        let [lower, upper] = [*low, *high].map(|half| u64::from(u32::from_ne_bytes(half)));
        let number = lower | upper << 32;
        if let Some(place) = stands_for(number) {
            let value = value(constants, place).ok_or(ProbeError::Object("such constant"))?;
            set(low, value);
            set(high, value >> 32);
        }
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

/// The member that has this offset and this size; `None` where there is none.
fn value(constants: &Constants, (offset, size): (usize, usize)) -> Option<u64> {
    let start = std::ptr::from_ref(constants).cast::<u8>();
    // SAFETY: the bytes of a record without padding, as `aya::Pod` says of it.
    let bytes = unsafe { std::slice::from_raw_parts(start, size_of::<Constants>()) };
    let member = bytes.get(offset..offset.checked_add(size)?)?;
    match size {
        4 => Some(u32::from_ne_bytes(member.try_into().ok()?).into()),
        8 => Some(u64::from_ne_bytes(member.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use tcpmon_common::{Offsets, placeholder, size_of_member};

    fn constants() -> Constants {
        Constants {
            tw_handler: 0xffff_ffff_8123_4567,
            offsets: Offsets { net_inum: 0x98, ..Offsets::default() },
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

    #[test]
    fn every_placeholder_gives_way_to_its_member_and_nothing_else_changes() {
        let [handler, inode, mask] = [
            placeholder(
                offset_of!(Constants, tw_handler),
                size_of_member(|constants| &constants.tw_handler),
            ),
            placeholder(
                offset_of!(Constants, offsets.net_inum),
                size_of_member(|constants| &constants.offsets.net_inum),
            ),
            placeholder(
                offset_of!(Constants, set_mask),
                size_of_member(|constants| &constants.set_mask),
            ),
        ];
        // An instruction of 8 bytes, of which no half is taken for the beginning of another.
        let call: [u8; 8] = [0x85, 0x10, 0, 0, 0x18, 0x18, 0x18, 0x18];
        let code = |numbers: [u64; 3]| {
            let [a, b, c] = numbers.map(load);
            [&call, &a[..], &load(60_000_000_000), &call, &b, &c, &call].concat()
        };
        let mut probe = code([handler, inode, mask]);
        put_into_code(&mut probe, &constants()).expect("known members");
        assert_eq!(probe, code([0xffff_ffff_8123_4567, 0x98, u32::MAX.into()]));
    }

    #[test]
    fn a_placeholder_of_other_sources_is_refused() {
        let beyond = placeholder(0, 4) | u64::try_from(size_of::<Constants>()).expect("small");
        let refused = put_into_code(&mut load(beyond), &constants()).expect_err("no such member");
        assert!(refused.to_string().contains("other sources"), "{refused}");
        // Half an instruction is left to whoever loads it.
        put_into_code(&mut load(beyond)[..8], &constants()).expect("nothing to put");
    }

    #[test]
    fn none_is_left_in_the_probes() {
        let filled = put(super::super::object::OBJECT, &constants()).expect("the object");
        let mark = (placeholder(0, 8) >> 32) as u32;
        let marks =
            |object: &[u8]| object.windows(4).filter(|bytes| **bytes == mark.to_ne_bytes()).count();
        assert!(marks(super::super::object::OBJECT) > 0);
        assert_eq!(marks(&filled), 0);
        assert_eq!(filled.len(), super::super::object::OBJECT.len());
    }
}
