//! The header of a BTF blob, and the two sections that it points to.

use super::error::BtfError;

/// `BTF_MAGIC` of `include/uapi/linux/btf.h`.
const MAGIC: u16 = 0xeb9f;
/// `sizeof(struct btf_header)` of version 1; `hdr_len` may be larger, never smaller.
const HEADER_LEN: usize = 24;

/// The sections of a BTF blob.
pub(super) struct Sections<'a> {
    pub(super) types: &'a [u8],
    pub(super) strings: &'a [u8],
}

/// Checks the header and finds the sections, whose places it gives relative to its own end.
pub(super) fn sections(data: &[u8]) -> Result<Sections<'_>, BtfError> {
    let truncated = |what| BtfError::Truncated { what };
    let header = data.get(..HEADER_LEN).ok_or_else(|| match data.get(..2) {
        Some(&[a, b]) if is_magic(u16::from_ne_bytes([a, b])) => truncated("header bytes"),
        Some(&[a, b]) => BtfError::NotBtf { magic: u16::from_ne_bytes([a, b]) },
        _ => truncated("header bytes"),
    })?;
    let magic = u16::from_ne_bytes([header[0], header[1]]);
    if magic == MAGIC.swap_bytes() {
        let theirs = if cfg!(target_endian = "little") { "big" } else { "little" };
        return Err(BtfError::ForeignByteOrder { theirs });
    }
    if magic != MAGIC {
        return Err(BtfError::NotBtf { magic });
    }
    let (version, flags) = (header[2], header[3]);
    if version != 1 || flags != 0 {
        return Err(BtfError::UnknownVersion { version, flags });
    }
    let field = |at: usize| u32_at(header, at).unwrap_or(0) as usize;
    let header_len = field(4);
    if header_len < HEADER_LEN {
        return Err(truncated("header bytes"));
    }
    let body = data.get(header_len..).ok_or_else(|| truncated("header bytes"))?;
    let section = |offset: usize, len: usize| body.get(offset..)?.get(..len);
    let types = section(field(8), field(12)).ok_or_else(|| truncated("types"))?;
    let strings = section(field(16), field(20)).ok_or_else(|| truncated("strings"))?;
    // Offset 0 is the name of what has none, and the last name must end.
    if strings.first() != Some(&0) || strings.last() != Some(&0) {
        return Err(truncated("strings"));
    }
    Ok(Sections { types, strings })
}

/// Whether this is BTF's magic number in either byte order.
fn is_magic(magic: u16) -> bool {
    magic == MAGIC || magic == MAGIC.swap_bytes()
}

/// The `u32` at this offset, in this machine's byte order; `None` beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_ne_bytes(*four))
}
