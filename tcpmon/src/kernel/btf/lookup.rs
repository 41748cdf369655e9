//! The questions that tcpmon asks of BTF: where a member stands, and what an enumerator is worth.

use std::collections::BTreeSet;

use super::types::{Kind, RawMember, Type};
use super::{Btf, BtfError};

/// How many typedefs, qualifiers and arrays of arrays may stand before a type proper. The kernel
/// allows 32 (`MAX_RESOLVE_DEPTH` in `kernel/bpf/btf.c`); beyond that they run in a circle.
const MAX_CHAIN: usize = 32;

/// Bytes of a pointer: the probes run on 64-bit kernels only.
const POINTER_LEN: u64 = 8;

/// Where a member stands in the structure that was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the outermost structure; of a bit-field, to the byte that has its
    /// first bit.
    pub offset: u32,
    /// Bytes that its type takes; of a bit-field, those of its declared type.
    pub size: u32,
    /// Set if it is a bit-field.
    pub bit_field: Option<BitField>,
}

/// The bits of a bit-field, numbered as the compiler numbers them: from the least significant one
/// on little-endian machines, from the most significant one on big-endian ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitField {
    /// Its first bit in the byte at [`Member::offset`], 0 to 7.
    pub first: u8,
    /// How many bits it has.
    pub width: u8,
}

impl Btf<'_> {
    /// Finds a member of a structure or union by a path of names with dots between them, such as
    /// `__sk_common.skc_family`. Each step may stand inside anonymous structures and unions.
    ///
    /// # Errors
    ///
    /// If the structure is not defined (a forward declaration is no definition), a step of the
    /// path is not there, several definitions disagree, or the types on the way are malformed.
    pub fn member_offset(&self, name: &str, path: &str) -> Result<Member, BtfError> {
        let mut found: Option<Member> = None;
        let mut failure = None;
        for (id, outer) in self.named(name, Kind::is_aggregate) {
            match self.member_of(id, &outer, name, path) {
                Ok(member) if found.is_some_and(|other| other != member) => {
                    return Err(BtfError::Ambiguous { name: name.into(), path: path.into() });
                }
                Ok(member) => found = Some(member),
                // One that is malformed tells more than one that is merely without the member.
                Err(error) if failure.is_none() || !error.is_absence() => failure = Some(error),
                Err(_) => {}
            }
        }
        found.ok_or_else(|| failure.unwrap_or(BtfError::NoStruct { name: name.into() }))
    }

    /// The value of an enumerator of the enumeration called `name`, of either width and sign.
    ///
    /// # Errors
    ///
    /// If there is no such enumeration or enumerator.
    pub fn enum_value(&self, name: &str, enumerator: &str) -> Result<i128, BtfError> {
        let mut defined = false;
        for (_, ty) in self.named(name, Kind::is_enumeration) {
            defined = true;
            let value = ty.enumerators().find(|&(entry, _)| self.name_is(entry, enumerator));
            if let Some((_, value)) = value {
                return Ok(value);
            }
        }
        Err(if defined {
            BtfError::NoEnumerator { name: name.into(), enumerator: enumerator.into() }
        } else {
            BtfError::NoEnum { name: name.into() }
        })
    }

    /// [`Btf::member_offset`] in one of the definitions.
    fn member_of(
        &self,
        outer_id: u32,
        outer: &Type<'_>,
        name: &str,
        path: &str,
    ) -> Result<Member, BtfError> {
        let mut holder = outer_id;
        let mut bit_offset = 0;
        let mut bit_width = 0;
        let mut walked = 0;
        for step in path.split('.') {
            let (id, ty) = self.peel(holder)?;
            if !ty.kind.is_aggregate() {
                let path = path[..walked].trim_end_matches('.').to_owned();
                return Err(BtfError::NotAggregate { name: name.into(), path });
            }
            let end = walked + step.len();
            let member = self.find_in(id, step)?.ok_or_else(|| BtfError::NoMember {
                name: name.into(),
                path: path[..end].to_owned(),
            })?;
            bit_offset += member.bit_offset;
            bit_width = member.bit_width;
            holder = member.type_id;
            walked = end + 1;
        }
        self.place(holder, bit_offset, bit_width).and_then(|member| {
            let bits = match member.bit_field {
                Some(field) => u64::from(field.first) + u64::from(field.width),
                None => u64::from(member.size) * 8,
            };
            let end = u64::from(member.offset) * 8 + bits;
            if end > u64::from(outer.size_or_target) * 8 {
                let what = "a member reaches beyond its end";
                return Err(BtfError::Malformed { id: outer_id as usize, what });
            }
            Ok(member)
        })
    }

    /// Finds a member by name in one aggregate and in the anonymous ones inside it.
    ///
    /// No aggregate is searched twice: a name is unique among all of them (C11, 6.7.2.1), and
    /// otherwise a malformed file could make this take for ever.
    fn find_in(&self, id: u32, name: &str) -> Result<Option<Found>, BtfError> {
        let mut searched = BTreeSet::new();
        let mut pending = vec![(id, 0u64)];
        while let Some((id, base)) = pending.pop() {
            if !searched.insert(id) {
                continue;
            }
            for RawMember { name: member, type_id, bit_offset, bit_width } in self.ty(id)?.members()
            {
                let bit_offset = base + u64::from(bit_offset);
                if self.is_anonymous(member) {
                    let (id, ty) = self.peel(type_id)?;
                    if ty.kind.is_aggregate() {
                        pending.push((id, bit_offset));
                    }
                } else if self.name_is(member, name) {
                    return Ok(Some(Found { type_id, bit_offset, bit_width }));
                }
            }
        }
        Ok(None)
    }

    /// Turns bits into bytes, or into a bit-field.
    fn place(&self, type_id: u32, bit_offset: u64, bit_width: u32) -> Result<Member, BtfError> {
        let malformed = |what| BtfError::Malformed { id: type_id as usize, what };
        let size = self.size_of(type_id)?;
        let (_, ty) = self.peel(type_id)?;
        let (first, width) = match (bit_width, ty.int_bits()) {
            (0, Some((first, width))) if u64::from(width) != size * 8 || first != 0 => {
                (first, width)
            }
            _ => (0, bit_width),
        };
        let bit_offset = bit_offset + u64::from(first);
        let bit_field = match (u8::try_from(width), u8::try_from(bit_offset % 8)) {
            (Ok(0), Ok(0)) => None,
            (Ok(width @ 1..), Ok(first)) => Some(BitField { first, width }),
            _ => return Err(malformed("a member of it begins in the middle of a byte")),
        };
        let too_far = "a member of it lies beyond 4 GiB";
        Ok(Member {
            offset: u32::try_from(bit_offset / 8).map_err(|_| malformed(too_far))?,
            size: u32::try_from(size).map_err(|_| malformed(too_far))?,
            bit_field,
        })
    }

    /// Bytes that a value of this type takes.
    fn size_of(&self, id: u32) -> Result<u64, BtfError> {
        let malformed = |what| BtfError::Malformed { id: id as usize, what };
        let mut count = 1u64;
        let mut element = id;
        for _ in 0..MAX_CHAIN {
            let (_, ty) = self.peel(element)?;
            let size = match ty.kind {
                Kind::Array => {
                    let (of, times) = ty.array().ok_or_else(|| malformed("it is cut short"))?;
                    count = count.checked_mul(u64::from(times)).ok_or_else(|| {
                        malformed("it is an array that is larger than any memory")
                    })?;
                    element = of;
                    continue;
                }
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float => u64::from(ty.size_or_target),
                Kind::Ptr => POINTER_LEN,
                _ => return Err(malformed("it is used as a member but has no size")),
            };
            return count
                .checked_mul(size)
                .ok_or_else(|| malformed("it is an array that is larger than any memory"));
        }
        Err(malformed("its arrays of arrays run in a circle"))
    }

    /// Follows typedefs, qualifiers and type tags to the type that they stand for.
    fn peel(&self, id: u32) -> Result<(u32, Type<'_>), BtfError> {
        let mut at = id;
        for _ in 0..MAX_CHAIN {
            let ty = self.ty(at)?;
            if !ty.kind.is_alias() {
                return Ok((at, ty));
            }
            at = ty.size_or_target;
        }
        Err(BtfError::Malformed {
            id: id as usize,
            what: "its typedefs and qualifiers run in a circle",
        })
    }
}

/// A member found by name, with its place in the aggregate that was searched.
struct Found {
    type_id: u32,
    bit_offset: u64,
    bit_width: u32,
}
