//! The BTF parser: no panics, no arithmetic that overflows, no look-ups that do not end, and no
//! answers that lie outside the structure.

use super::btf::Btf;

/// The names that the look-ups know, at offsets 1, 3, 5 and 7 of the strings.
const NAMES: &[u8] = b"\0s\0m\0n\0e\0";

/// Feeds it anything, whole and behind a sound header, and asks it everything.
pub(super) fn look(data: &[u8]) {
    ask(data);
    // Random bytes seldom make a header, so the rest is given one of its own.
    let mut blob = Vec::with_capacity(24 + data.len() + NAMES.len());
    blob.extend(0xeb9f_u16.to_ne_bytes());
    blob.extend([1, 0]);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (types, strings) = (length(data), length(NAMES));
    for word in [24, 0, types, types, strings] {
        blob.extend(word.to_ne_bytes());
    }
    blob.extend(data);
    blob.extend(NAMES);
    ask(&blob);
}

fn ask(blob: &[u8]) {
    let Ok(btf) = Btf::parse(blob) else { return };
    assert!(btf.type_count() <= blob.len() / 12);
    for path in ["m", "n", "m.n", "n.m.m", ""] {
        if let Ok(member) = btf.member_offset("s", path) {
            // A whole member, unlike a bit-field's storage unit, ends inside the structure, whose
            // size is a u32.
            if member.bit_field.is_none() {
                assert!(member.offset.checked_add(member.size).is_some());
            }
        }
    }
    for enumerator in ["m", "n"] {
        if let Ok(value) = btf.enum_value("e", enumerator) {
            assert!((i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value));
        }
    }
}
