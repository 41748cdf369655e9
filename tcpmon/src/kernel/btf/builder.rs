//! Writes BTF for tests: the parser's counterpart, kept as plain as the format itself so that the
//! two do not share a mistake.

/// Kind numbers of `include/uapi/linux/btf.h`, as far as tests name them.
pub(crate) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// A member to be written: name, type, bit offset, and the width of a bit-field or 0.
#[derive(Clone, Debug)]
pub(crate) struct NewMember<'a>(pub(crate) &'a str, pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// Collects types in the order they are added; ids count from 1.
#[derive(Debug)]
pub(crate) struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], count: 0 }
    }

    /// The offset of a name; the empty one is at 0.
    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).expect("names fit");
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// Adds any type, word by word, and gives its id.
    pub(crate) fn raw(&mut self, name: &str, info: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, info, size_or_type]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    /// An integer whose value fills it.
    pub(crate) fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.int_bits(name, bytes, 0, bytes * 8)
    }

    /// An integer whose value takes only some of its bits.
    pub(crate) fn int_bits(&mut self, name: &str, bytes: u32, first: u32, width: u32) -> u32 {
        self.raw(name, kind::INT << 24, bytes, &[first << 16 | width])
    }

    /// A pointer, typedef, qualifier, tag or float: whatever nothing follows.
    pub(crate) fn plain(&mut self, kind: u32, name: &str, size_or_type: u32) -> u32 {
        self.raw(name, kind << 24, size_or_type, &[])
    }

    pub(crate) fn array(&mut self, of: u32, times: u32) -> u32 {
        self.raw("", kind::ARRAY << 24, 0, &[of, of, times])
    }

    /// A structure or union; with `kind_flag` if asked for, or if there are bit-fields.
    pub(crate) fn aggregate(
        &mut self,
        kind: u32,
        name: &str,
        bytes: u32,
        kind_flag: bool,
        members: &[NewMember<'_>],
    ) -> u32 {
        let kind_flag = kind_flag || members.iter().any(|member| member.3 != 0);
        let vlen = u32::try_from(members.len()).expect("members fit");
        let mut rest = Vec::new();
        for &NewMember(name, type_id, bit_offset, width) in members {
            rest.extend([self.name(name), type_id, width << 24 | bit_offset]);
        }
        self.raw(name, u32::from(kind_flag) << 31 | kind << 24 | vlen, bytes, &rest)
    }

    /// A structure without bit-fields.
    pub(crate) fn structure(&mut self, name: &str, bytes: u32, members: &[NewMember<'_>]) -> u32 {
        self.aggregate(kind::STRUCT, name, bytes, false, members)
    }

    pub(crate) fn enumeration(&mut self, name: &str, signed: bool, values: &[(&str, u32)]) -> u32 {
        let mut rest = Vec::new();
        for &(name, value) in values {
            rest.extend([self.name(name), value]);
        }
        let vlen = u32::try_from(values.len()).expect("values fit");
        self.raw(name, u32::from(signed) << 31 | kind::ENUM << 24 | vlen, 4, &rest)
    }

    pub(crate) fn enum64(&mut self, name: &str, signed: bool, values: &[(&str, [u32; 2])]) -> u32 {
        let mut rest = Vec::new();
        for &(name, [low, high]) in values {
            rest.extend([self.name(name), low, high]);
        }
        let vlen = u32::try_from(values.len()).expect("values fit");
        self.raw(name, u32::from(signed) << 31 | kind::ENUM64 << 24 | vlen, 8, &rest)
    }

    /// The blob, in this machine's byte order.
    pub(crate) fn finish(&self) -> Vec<u8> {
        self.write(u16::to_ne_bytes, u32::to_ne_bytes)
    }

    /// The blob as a machine of the other byte order would have it.
    pub(crate) fn finish_foreign(&self) -> Vec<u8> {
        self.write(|half| half.swap_bytes().to_ne_bytes(), |word| word.swap_bytes().to_ne_bytes())
    }

    fn write(&self, half: fn(u16) -> [u8; 2], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let types = u32::try_from(self.types.len() * 4).expect("types fit");
        let strings = u32::try_from(self.strings.len()).expect("strings fit");
        let mut blob = half(0xeb9f).to_vec();
        blob.extend([1, 0]);
        blob.extend([24, 0, types, types, strings].into_iter().flat_map(word));
        blob.extend(self.types.iter().copied().flat_map(word));
        blob.extend(&self.strings);
        blob
    }
}
