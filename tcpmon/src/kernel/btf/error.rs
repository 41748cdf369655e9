//! What can be wrong with a BTF blob, or missing from it.

use thiserror::Error;

/// Why BTF could not be read, or does not answer a question.
///
/// [`BtfError::NoStruct`], [`BtfError::NoMember`], [`BtfError::NoEnum`] and
/// [`BtfError::NoEnumerator`] speak of a sound file that lacks something, see
/// [`BtfError::is_absence`]; the others of a file that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The first two bytes are not BTF's magic number.
    #[error("this is not BTF: it begins with {magic:#06x} instead of 0xeb9f")]
    NotBtf {
        /// The first two bytes, in this machine's byte order.
        magic: u16,
    },
    /// The magic number reads backwards: the blob is from a machine of the other byte order.
    #[error(
        "this BTF is of the other byte order ({theirs} endian): it describes another machine's kernel"
    )]
    ForeignByteOrder {
        /// "big" or "little".
        theirs: &'static str,
    },
    /// A version of the format that this program does not read.
    #[error(
        "this BTF is of version {version} with flags {flags:#x}; only version 1 without flags is known"
    )]
    UnknownVersion {
        /// `btf_header.version`.
        version: u8,
        /// `btf_header.flags`.
        flags: u8,
    },
    /// A part of the file reaches beyond its end.
    #[error("this BTF is cut short: its {what} reach beyond its end")]
    Truncated {
        /// The part, in the plural.
        what: &'static str,
    },
    /// A type of a kind that is newer than this program.
    #[error("type {id} of this BTF is of kind {kind}, which this version of tcpmon does not know")]
    UnknownKind {
        /// The type's id.
        id: usize,
        /// `BTF_INFO_KIND()` of its `info`.
        kind: u32,
    },
    /// A type that contradicts itself or others.
    #[error("type {id} of this BTF is malformed: {what}")]
    Malformed {
        /// The type's id.
        id: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Neither a structure nor a union of this name is defined.
    #[error("there is no struct {name} in this kernel's BTF")]
    NoStruct {
        /// The name asked for.
        name: String,
    },
    /// A structure has no such member.
    #[error("struct {name} has no member {path} in this kernel's BTF")]
    NoMember {
        /// The structure asked for.
        name: String,
        /// The path as far as, and including, the step that was not found.
        path: String,
    },
    /// A path goes on behind a member that has no members itself.
    #[error("member {path} of struct {name} is neither struct nor union in this kernel's BTF")]
    NotAggregate {
        /// The structure asked for.
        name: String,
        /// The path as far as, and including, that member.
        path: String,
    },
    /// Several definitions bear one name and put the member at different places.
    #[error(
        "this kernel's BTF defines struct {name} several times, with {path} at different places"
    )]
    Ambiguous {
        /// The structure asked for.
        name: String,
        /// The whole path.
        path: String,
    },
    /// No enumeration of this name is defined.
    #[error("there is no enum {name} in this kernel's BTF")]
    NoEnum {
        /// The name asked for.
        name: String,
    },
    /// An enumeration has no such enumerator.
    #[error("enum {name} has no enumerator {enumerator} in this kernel's BTF")]
    NoEnumerator {
        /// The enumeration asked for.
        name: String,
        /// The enumerator asked for.
        enumerator: String,
    },
}

impl BtfError {
    /// Whether the file is sound and merely lacks what was asked for, as kernels of another
    /// configuration do.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NoStruct { .. }
                | Self::NoMember { .. }
                | Self::NoEnum { .. }
                | Self::NoEnumerator { .. }
        )
    }
}
