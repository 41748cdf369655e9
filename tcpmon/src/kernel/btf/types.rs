//! One type as it lies in the types section: `struct btf_type` and what follows it.

use super::error::BtfError;
use super::header::u32_at;

/// `sizeof(struct btf_type)`.
const TYPE_LEN: usize = 12;

/// `BTF_KIND_*` of `include/uapi/linux/btf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Void,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    /// The kind with this number; `None` for `void`, which is never written down, and for kinds
    /// that are newer than Linux 6.18.
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// How many bytes follow the `struct btf_type` of a type of this kind with `vlen` elements.
    fn trailer_len(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => vlen * 12,
            Self::Enum | Self::FuncProto => vlen * 8,
            Self::Void
            | Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }

    /// Whether a type of this kind has members.
    pub(super) fn is_aggregate(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    /// Whether a type of this kind has enumerators.
    pub(super) fn is_enumeration(self) -> bool {
        matches!(self, Self::Enum | Self::Enum64)
    }

    /// Whether a type of this kind is laid out exactly as the type that it refers to.
    pub(super) fn is_alias(self) -> bool {
        matches!(
            self,
            Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag
        )
    }
}

/// Why a type cannot be read.
pub(super) enum Fault {
    Truncated,
    UnknownKind(u32),
    UnknownInfo,
}

impl Fault {
    /// The error that says so of the type with this id.
    pub(super) fn of_type(self, id: usize) -> BtfError {
        match self {
            Self::Truncated => BtfError::Truncated { what: "types" },
            Self::UnknownKind(kind) => BtfError::UnknownKind { id, kind },
            Self::UnknownInfo => {
                BtfError::Malformed { id, what: "bits of its info are set that have no meaning" }
            }
        }
    }
}

/// A type, borrowed from the types section. Its name, the first word, is not kept: it is looked
/// at only to choose which types to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    pub(super) kind: Kind,
    /// Bit-field sizes are in the members (structures), or enumerators are signed (enumerations).
    kind_flag: bool,
    /// `size` or `type`, as the kind has it.
    pub(super) size_or_target: u32,
    /// What follows the `struct btf_type`.
    trailer: &'a [u8],
}

/// A member as its structure describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawMember {
    /// Offset of its name in the strings section.
    pub(super) name: u32,
    pub(super) type_id: u32,
    /// Bits from the start of the structure.
    pub(super) bit_offset: u32,
    /// Bits of a bit-field; 0 for other members, and where only the type tells.
    pub(super) bit_width: u32,
}

impl<'a> Type<'a> {
    /// Type 0.
    pub(super) const VOID: Self =
        Self { kind: Kind::Void, kind_flag: false, size_or_target: 0, trailer: &[] };

    /// Reads the type at the start of `bytes`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (Some(info), Some(size_or_target)) = (u32_at(bytes, 4), u32_at(bytes, 8)) else {
            return Err(Fault::Truncated);
        };
        let code = info >> 24 & 0x7f;
        let kind = Kind::from_code(code).ok_or(Fault::UnknownKind(code))?;
        // A later format may give these bits a meaning, such as more members: then all lengths
        // read here would be wrong.
        if info & 0x00ff_0000 != 0 {
            return Err(Fault::UnknownInfo);
        }
        let trailer_len = kind.trailer_len((info & 0xffff) as usize);
        let trailer = bytes.get(TYPE_LEN..TYPE_LEN + trailer_len).ok_or(Fault::Truncated)?;
        Ok(Self { kind, kind_flag: info >> 31 == 1, size_or_target, trailer })
    }

    /// Bytes that the type takes up in the types section.
    pub(super) fn encoded_len(&self) -> usize {
        TYPE_LEN + self.trailer.len()
    }

    /// The members of a structure or union; nothing for other kinds.
    pub(super) fn members(&self) -> impl Iterator<Item = RawMember> {
        let kind_flag = self.kind_flag;
        let trailer = if self.kind.is_aggregate() { self.trailer } else { &[] };
        trailer.chunks_exact(12).filter_map(move |member| {
            let offset = u32_at(member, 8)?;
            let (bit_offset, bit_width) =
                if kind_flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Some(RawMember {
                name: u32_at(member, 0)?,
                type_id: u32_at(member, 4)?,
                bit_offset,
                bit_width,
            })
        })
    }

    /// The enumerators, as offset of the name and value; nothing for other kinds.
    pub(super) fn enumerators(&self) -> impl Iterator<Item = (u32, i128)> {
        let (kind, signed) = (self.kind, self.kind_flag);
        let (trailer, len) = match kind {
            Kind::Enum => (self.trailer, 8),
            Kind::Enum64 => (self.trailer, 12),
            _ => (&[][..], 8),
        };
        trailer.chunks_exact(len).filter_map(move |entry| {
            let low = u32_at(entry, 4)?;
            let value = match (kind, signed) {
                (Kind::Enum, false) => i128::from(low),
                (Kind::Enum, true) => i128::from(low.cast_signed()),
                (_, signed) => {
                    let value = u64::from(u32_at(entry, 8)?) << 32 | u64::from(low);
                    if signed { i128::from(value.cast_signed()) } else { i128::from(value) }
                }
            };
            Some((u32_at(entry, 0)?, value))
        })
    }

    /// Element type and number of elements of an array; `None` for other kinds.
    pub(super) fn array(&self) -> Option<(u32, u32)> {
        match self.kind {
            Kind::Array => Some((u32_at(self.trailer, 0)?, u32_at(self.trailer, 8)?)),
            _ => None,
        }
    }

    /// Where in its bytes an integer has its value, as first bit and number of bits: how
    /// bit-fields are written where the structure has no `kind_flag`. `None` for other kinds.
    pub(super) fn int_bits(&self) -> Option<(u32, u32)> {
        match self.kind {
            Kind::Int => {
                let encoding = u32_at(self.trailer, 0)?;
                Some((encoding >> 16 & 0xff, encoding & 0xff))
            }
            _ => None,
        }
    }
}
