//! The name of a process, without a heap allocation: one goes with each of up to hundreds of
//! thousands of events a second.

use std::borrow::Cow;
use std::fmt;

/// Bytes that the kernel keeps of a process name, its NUL included (`TASK_COMM_LEN`,
/// `include/linux/sched.h`).
const CAPACITY: usize = 16;

/// A process name as the kernel keeps it: at most 15 bytes, of any value but NUL, not
/// necessarily UTF-8 (`prctl(PR_SET_NAME)` takes what it is given).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm([u8; CAPACITY]);

impl Comm {
    /// The most bytes that a name can have.
    pub const MAX_LEN: usize = CAPACITY - 1;

    /// The name in a NUL-padded field; what follows the first NUL is dropped.
    #[must_use]
    pub fn from_padded(padded: &[u8; CAPACITY]) -> Self {
        // All bytes at once: this is done several times for each event.
        const ONES: u128 = u128::MAX / 0xff;
        const HIGH: u128 = ONES << 7;
        let text = u128::from_le_bytes(*padded);
        // The lowest bit that is set here stands at the first NUL; those above it mean nothing.
        let nuls = text.wrapping_sub(ONES) & !text & HIGH;
        let bits = (nuls.trailing_zeros() & !7).min(8 * (u128::BITS / 8 - 1));
        Self((text & ((1 << bits) - 1)).to_le_bytes())
    }

    /// The name made of `text`, cut where the kernel would cut it.
    #[must_use]
    pub fn truncated(text: &[u8]) -> Self {
        let mut name = [0; CAPACITY];
        for (place, &byte) in name[..Self::MAX_LEN].iter_mut().zip(text) {
            if byte == 0 {
                break;
            }
            *place = byte;
        }
        Self(name)
    }

    /// The name made of `text`, cut at the last whole character that fits.
    #[must_use]
    pub fn truncated_str(text: &str) -> Self {
        let mut end = text.len().min(Self::MAX_LEN);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::truncated(&text.as_bytes()[..end])
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(CAPACITY);
        &self.0[..end]
    }

    /// Whether the name has no bytes: a process can give itself such a name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0[0] == 0
    }

    /// The name as text, with U+FFFD for bytes that are not UTF-8.
    #[must_use]
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.to_string_lossy())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Comm({:?})", self.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_first_nul_and_after_fifteen_bytes() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"", b""),
            (b"worker", b"worker"),
            (b"a\0b", b"a"),
            (b"fifteen-bytes-x", b"fifteen-bytes-x"),
            (b"chromium-browser", b"chromium-browse"),
        ];
        for (text, expected) in cases {
            assert_eq!(Comm::truncated(text).as_bytes(), expected);
            assert_eq!(Comm::truncated(text).is_empty(), expected.is_empty());
        }
        assert_eq!(Comm::from_padded(b"nginx\0\0\0\0\0\0\0\0\0\0\0").as_bytes(), b"nginx");
        assert_eq!(Comm::from_padded(&[b'x'; 16]).as_bytes(), [b'x'; 15]);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(Comm::truncated_str("äääääääää").to_string_lossy(), "äääääää");
        assert_eq!(Comm::truncated(b"\xff\xfe").to_string(), "\u{fffd}\u{fffd}");
    }

    proptest::proptest! {
        #[test]
        fn a_padded_name_ends_at_its_first_nul(
            padded in proptest::array::uniform16(proptest::prop_oneof![
                proptest::strategy::Just(0u8), 1..=1u8, 0x80..=0x80u8, proptest::num::u8::ANY,
            ]),
        ) {
            proptest::prop_assert_eq!(Comm::from_padded(&padded), Comm::truncated(&padded));
        }
    }
}
