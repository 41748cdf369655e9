//! Reads the kernel's own description of its types, BTF, to learn where the fields stand that the
//! probes read.
//!
//! Rust emits no CO-RE relocations, so no loader puts field offsets into the probes; tcpmon looks
//! them up here, and does it itself (`probes/constants.rs`). The file is small enough to read whole
//! (5 to 10 MB) and is needed once, at start: names are compared where they lie, the only thing
//! allocated is one `u32` for each type, and all of it is dropped before the first probe is loaded.
//!
//! The format is the kernel's `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`. Split
//! BTF (of modules) is not read: the probes look at nothing that lives in a module.
//!
//! Although the kernel wrote the file, nothing in it is believed before it is checked: a file that
//! is cut short, contradictory or circular gives an error, never a panic or an endless loop.

mod error;
mod header;
mod lookup;
mod types;

#[cfg(test)]
pub(in crate::kernel) mod builder;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::BtfError;
pub use lookup::{BitField, Member};
use types::{Kind, Type};

/// Where the kernel shows the BTF of everything built into it, when it was configured with
/// `CONFIG_DEBUG_INFO_BTF`.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// A checked BTF blob, ready for look-ups.
///
/// [`Btf::member_offset`] and [`Btf::enum_value`] go through all types each time: about a
/// millisecond each for a kernel's, which is cheaper than an index of names for the dozen look-ups
/// that a start takes.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where in `types` the type with id `n + 1` begins; id 0 is `void` and stands nowhere.
    starts: Vec<u32>,
}

impl<'a> Btf<'a> {
    /// Reads the header and walks over every type once.
    ///
    /// # Errors
    ///
    /// If the header is not that of BTF version 1 in this machine's byte order, or a section or a
    /// type is cut short, or a type is of a kind that `include/uapi/linux/btf.h` did not know as
    /// of Linux 6.18 (its length, and so the place of all that follow, would be a guess).
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let sections = header::sections(data)?;
        let mut starts = Vec::new();
        let mut at = 0;
        while at < sections.types.len() {
            let start = u32::try_from(at).map_err(|_| BtfError::Truncated { what: "types" })?;
            starts.push(start);
            at += Type::read(&sections.types[at..])
                .map_err(|fault| fault.of_type(starts.len()))?
                .encoded_len();
        }
        Ok(Self { types: sections.types, strings: sections.strings, starts })
    }

    /// How many types there are, `void` not counted.
    pub fn type_count(&self) -> usize {
        self.starts.len()
    }

    /// The type with this id.
    fn ty(&self, id: u32) -> Result<Type<'a>, BtfError> {
        let Some(place) = id.checked_sub(1) else {
            return Ok(Type::VOID);
        };
        let start = self
            .starts
            .get(place as usize)
            .ok_or(BtfError::Malformed { id: id as usize, what: "it is referred to but absent" })?;
        Type::read(&self.types[*start as usize..]).map_err(|fault| fault.of_type(id as usize))
    }

    /// Every type that `wanted` says yes to and that bears this name.
    fn named(
        &self,
        name: &str,
        wanted: impl Fn(Kind) -> bool,
    ) -> impl Iterator<Item = (u32, Type<'a>)> {
        self.starts.iter().zip(1u32..).filter_map(move |(start, id)| {
            let bytes = self.types.get(*start as usize..)?;
            // The name is looked at first because it settles nearly all of them.
            if !self.name_is(header::u32_at(bytes, 0)?, name) {
                return None;
            }
            Type::read(bytes).ok().filter(|ty| wanted(ty.kind)).map(|ty| (id, ty))
        })
    }

    /// Whether the string at `offset` of the string section is exactly `name`.
    ///
    /// The empty name is nobody's: it marks what is anonymous.
    fn name_is(&self, offset: u32, name: &str) -> bool {
        !name.is_empty()
            && self
                .strings
                .get(offset as usize..)
                .and_then(|rest| rest.strip_prefix(name.as_bytes()))
                .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Whether the string at `offset` is empty, as that of an anonymous member is.
    fn is_anonymous(&self, offset: u32) -> bool {
        self.strings.get(offset as usize) == Some(&0)
    }
}

impl fmt::Debug for Btf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btf").field("types", &self.starts.len()).finish_non_exhaustive()
    }
}
