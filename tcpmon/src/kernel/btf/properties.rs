//! The parser against generated BTF: what was written is found where it was put, and what was
//! spoilt does no harm.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::builder::{Builder, NewMember, kind};
use super::{BitField, Btf, BtfError, Member};

/// A type to be generated.
#[derive(Clone, Debug)]
enum Shape {
    Int(u32),
    Ptr,
    Enum,
    Array(Box<Shape>, u32),
    Alias(u32, Box<Shape>),
    Aggregate(Aggregate),
}

#[derive(Clone, Debug)]
struct Aggregate {
    union: bool,
    kind_flag: bool,
    members: Vec<Part>,
}

/// A member to be generated, after some padding.
#[derive(Clone, Debug)]
enum Part {
    Named(u32, Shape),
    Anonymous(u32, Shape),
    /// A bit-field: padding in bits, width.
    Bits(u32, u32),
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        select(vec![1, 2, 4, 8, 16]).prop_map(Shape::Int),
        Just(Shape::Ptr),
        Just(Shape::Enum),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let aliases =
            vec![kind::TYPEDEF, kind::VOLATILE, kind::CONST, kind::RESTRICT, kind::TYPE_TAG];
        prop_oneof![
            1 => (inner.clone(), 0u32..4).prop_map(|(of, times)| Shape::Array(Box::new(of), times)),
            1 => (select(aliases), inner.clone()).prop_map(|(kind, of)| Shape::Alias(kind, Box::new(of))),
            3 => aggregate(inner.boxed()).prop_map(Shape::Aggregate),
        ]
    })
}

fn aggregate(inner: BoxedStrategy<Shape>) -> impl Strategy<Value = Aggregate> {
    let part = prop_oneof![
        3 => (0u32..3, inner.clone()).prop_map(|(pad, shape)| Part::Named(pad, shape)),
        1 => (0u32..3, inner).prop_map(|(pad, shape)| Part::Anonymous(pad, shape)),
        2 => (0u32..9, 1u32..32).prop_map(|(pad, width)| Part::Bits(pad, width)),
    ];
    (any::<bool>(), any::<bool>(), vec(part, 0..6))
        .prop_map(|(union, kind_flag, members)| Aggregate { union, kind_flag, members })
}

/// A member that must be found: its path, its bits from the start, its size, its bit-field width.
#[derive(Debug)]
struct Expected {
    path: String,
    bits: u32,
    size: u32,
    width: u32,
}

impl Expected {
    fn member(&self) -> Member {
        let narrow = |bits: u32| u8::try_from(bits).expect("bits are few");
        let (first, width) = (narrow(self.bits % 8), narrow(self.width));
        Member {
            offset: self.bits / 8,
            size: self.size,
            bit_field: (width != 0).then_some(BitField { first, width }),
        }
    }
}

/// Writes shapes, and keeps what must be found.
struct Writer {
    builder: Builder,
    names: u32,
}

impl Writer {
    /// A name that nothing else has, so that it may stand anywhere.
    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("m{}", self.names)
    }

    /// Gives the type's id, its bytes, and the members in it.
    fn shape(&mut self, shape: &Shape) -> (u32, u32, Vec<Expected>) {
        match shape {
            Shape::Int(bytes) => (self.builder.int("int", *bytes), *bytes, Vec::new()),
            Shape::Ptr => (self.builder.plain(kind::PTR, "", 0), 8, Vec::new()),
            Shape::Enum => (self.builder.enumeration("e", false, &[("m1", 1)]), 4, Vec::new()),
            Shape::Array(of, times) => {
                let (id, bytes, _) = self.shape(of);
                (self.builder.array(id, *times), bytes * times, Vec::new())
            }
            Shape::Alias(kind, of) => {
                let (id, bytes, members) = self.shape(of);
                (self.builder.plain(*kind, "alias", id), bytes, members)
            }
            Shape::Aggregate(aggregate) => self.aggregate("", aggregate),
        }
    }

    fn aggregate(&mut self, tag: &str, aggregate: &Aggregate) -> (u32, u32, Vec<Expected>) {
        let mut members: Vec<(String, u32, u32, u32)> = Vec::new();
        let mut expected: Vec<Expected> = Vec::new();
        let (mut next, mut end) = (0, 0);
        for part in &aggregate.members {
            let start = if aggregate.union { 0 } else { next };
            let (at, taken) = match part {
                Part::Bits(pad, width) => {
                    let (at, name) = (start + pad, self.fresh());
                    let path = name.clone();
                    if aggregate.kind_flag {
                        let id = self.builder.int("int", 4);
                        members.push((name, id, at, *width));
                        expected.push(Expected { path, bits: at, size: 4, width: *width });
                    } else {
                        let id = self.builder.int_bits("old", 4, at % 8, *width);
                        members.push((name, id, at - at % 8, 0));
                        // All bits of an integer that begins with its first bit: no bit-field.
                        expected.push(Expected { path, bits: at, size: 4, width: *width });
                    }
                    (at, *width)
                }
                Part::Named(pad, shape) | Part::Anonymous(pad, shape) => {
                    let at = start.next_multiple_of(8) + pad * 8;
                    let (id, bytes, inner) = self.shape(shape);
                    let name = match part {
                        Part::Named(..) => self.fresh(),
                        _ => String::new(),
                    };
                    let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
                    expected.extend(inner.into_iter().map(|inner| Expected {
                        path: format!("{prefix}{}", inner.path),
                        bits: at + inner.bits,
                        ..inner
                    }));
                    if !name.is_empty() {
                        let path = name.clone();
                        expected.push(Expected { path, bits: at, size: bytes, width: 0 });
                    }
                    members.push((name, id, at, 0));
                    (at, bytes * 8)
                }
            };
            next = at + taken;
            end = end.max(next);
        }
        let bytes = end.div_ceil(8);
        let members: Vec<_> = members
            .iter()
            .map(|(name, id, bits, width)| NewMember(name, *id, *bits, *width))
            .collect();
        let kind = if aggregate.union { kind::UNION } else { kind::STRUCT };
        let id = self.builder.aggregate(kind, tag, bytes, aggregate.kind_flag, &members);
        (id, bytes, expected)
    }
}

/// A blob with one structure called `root`, and what is in it.
fn blob() -> impl Strategy<Value = (Vec<u8>, Vec<Expected>)> {
    (vec(shape(), 0..3), aggregate(shape().boxed())).prop_map(|(noise, root)| {
        let mut writer = Writer { builder: Builder::new(), names: 0 };
        for shape in &noise {
            writer.shape(shape);
        }
        writer.builder.plain(kind::FWD, "root", 0);
        let (_, _, expected) = writer.aggregate("root", &root);
        (writer.builder.finish(), expected)
    })
}

/// Asks whatever may be asked, for the sake of the asking.
fn question(blob: &[u8], paths: &[String]) {
    if let Ok(btf) = Btf::parse(blob) {
        for name in ["root", "e", "int"] {
            for path in paths.iter().map(String::as_str).chain(["m1", "m2.m1", ".", ""]) {
                let _ = btf.member_offset(name, path);
                let _ = btf.enum_value(name, path);
            }
        }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_found((blob, expected) in blob()) {
        let btf = Btf::parse(&blob).expect("sound BTF");
        for wanted in &expected {
            prop_assert_eq!(
                btf.member_offset("root", &wanted.path),
                Ok(wanted.member()),
                "{}", &wanted.path
            );
        }
        let error = btf.member_offset("root", "absent").expect_err("a fault");
        prop_assert!(matches!(error, BtfError::NoMember { .. }), "{}", error);
    }

    #[test]
    fn what_was_spoilt_does_no_harm(
        (mut blob, expected) in blob(),
        spoils in vec((any::<Index>(), any::<u8>()), 1..8),
        cut in any::<Option<Index>>(),
    ) {
        for (at, byte) in spoils {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Some(cut) = cut {
            blob.truncate(cut.index(blob.len()));
        }
        let paths: Vec<_> = expected.into_iter().map(|member| member.path).collect();
        question(&blob, &paths);
    }

    #[test]
    fn any_types_and_strings_do_no_harm(words in vec(prop_oneof![0u32..40, any::<u32>()], 0..60)) {
        let mut builder = Builder::new();
        builder.structure("root", 64, &[NewMember("m1", 2, 0, 0), NewMember("", 3, 8, 0)]);
        for chunk in words.chunks(4) {
            if let [kind, vlen, refers, rest @ ..] = chunk {
                builder.raw("e", ((kind % 20) << 24) | (vlen % 4), *refers, rest);
            }
        }
        question(&builder.finish(), &[]);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..400)) {
        question(&bytes, &[]);
    }
}
