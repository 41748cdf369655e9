//! The parser's rules, one by one.

use super::builder::{Builder, NewMember, kind};
use super::{BitField, Btf, BtfError, Member};

fn plain(offset: u32, size: u32) -> Member {
    Member { offset, size, bit_field: None }
}

/// Builds one blob, and looks one member up in it.
fn look(build: impl FnOnce(&mut Builder), name: &str, path: &str) -> Result<Member, BtfError> {
    let mut builder = Builder::new();
    build(&mut builder);
    Btf::parse(&builder.finish())?.member_offset(name, path)
}

#[test]
fn every_kind_has_its_length() {
    let mut builder = Builder::new();
    let int = builder.int("int", 4);
    for kind in [kind::PTR, kind::TYPEDEF, kind::VOLATILE, kind::CONST, kind::RESTRICT] {
        builder.plain(kind, "alias", int);
    }
    builder.array(int, 3);
    builder.structure("earlier", 8, &[NewMember("a", int, 0, 0), NewMember("b", int, 32, 0)]);
    builder.aggregate(kind::UNION, "either", 4, false, &[NewMember("a", int, 0, 0)]);
    builder.enumeration("few", false, &[("one", 1), ("two", 2)]);
    builder.plain(kind::FWD, "later", 0);
    let proto = builder.raw("", kind::FUNC_PROTO << 24 | 2, int, &[0, int, 0, int]);
    builder.plain(kind::FUNC, "function", proto);
    let var = builder.raw("variable", kind::VAR << 24, int, &[1]);
    builder.raw(".data", kind::DATASEC << 24 | 1, 4, &[var, 0, 4]);
    builder.plain(kind::FLOAT, "double", 8);
    builder.raw("tag", kind::DECL_TAG << 24, int, &[u32::MAX]);
    builder.plain(kind::TYPE_TAG, "rcu", int);
    builder.enum64("many", false, &[("large", [0, 1])]);
    let last = builder.structure("last", 12, &[NewMember("x", int, 64, 0)]);
    let blob = builder.finish();
    let btf = Btf::parse(&blob).expect("sound BTF");
    assert_eq!(btf.type_count(), last as usize);
    assert_eq!(btf.member_offset("last", "x"), Ok(plain(8, 4)));
    assert_eq!(btf.member_offset("either", "a"), Ok(plain(0, 4)));
}

#[test]
fn members_of_every_type_have_their_size() {
    let mut builder = Builder::new();
    let short = builder.int("short", 2);
    let double = builder.plain(kind::FLOAT, "double", 8);
    let pointer = builder.plain(kind::PTR, "", 0);
    let tagged = builder.plain(kind::TYPE_TAG, "rcu", short);
    let fixed = builder.plain(kind::CONST, "", tagged);
    let moving = builder.plain(kind::VOLATILE, "", fixed);
    let sole = builder.plain(kind::RESTRICT, "", moving);
    let alias = builder.plain(kind::TYPEDEF, "alias", sole);
    let pointers = builder.array(pointer, 5);
    let row = builder.array(alias, 3);
    let table = builder.array(row, 7);
    let none = builder.array(short, 0);
    let small = builder.enumeration("small", false, &[]);
    let large = builder.enum64("large", false, &[]);
    let cases = [
        ("short", short, 2),
        ("double", double, 8),
        ("pointer", pointer, 8),
        ("alias", alias, 2),
        ("pointers", pointers, 40),
        ("table", table, 42),
        ("none", none, 0),
        ("small", small, 4),
        ("large", large, 8),
    ];
    let members: Vec<_> = cases.iter().map(|&(name, ty, _)| NewMember(name, ty, 64, 0)).collect();
    builder.structure("all", 64, &members);
    let blob = builder.finish();
    let btf = Btf::parse(&blob).expect("sound BTF");
    for (name, _, size) in cases {
        assert_eq!(btf.member_offset("all", name), Ok(plain(8, size)), "{name}");
    }
}

#[test]
fn bit_fields_of_both_styles() {
    let mut builder = Builder::new();
    let int = builder.int("int", 4);
    let old = builder.int_bits("old", 4, 3, 5);
    builder.aggregate(
        kind::STRUCT,
        "flagged",
        8,
        true,
        &[NewMember("whole", int, 0, 0), NewMember("bits", int, 35, 6)],
    );
    builder.structure("unflagged", 8, &[NewMember("bits", old, 40, 0)]);
    let blob = builder.finish();
    let btf = Btf::parse(&blob).expect("sound BTF");
    let bits = |offset, first, width| Member {
        offset,
        size: 4,
        bit_field: Some(BitField { first, width }),
    };
    assert_eq!(btf.member_offset("flagged", "whole"), Ok(plain(0, 4)));
    assert_eq!(btf.member_offset("flagged", "bits"), Ok(bits(4, 3, 6)));
    // The three bits at which the integer has its value come on top of the member's own offset.
    // The structure ends inside the storage unit, as packed ones may.
    assert_eq!(btf.member_offset("unflagged", "bits"), Ok(bits(5, 3, 5)));
}

#[test]
fn definitions_are_told_from_declarations_and_from_each_other() {
    let declared_first = |builder: &mut Builder| {
        builder.plain(kind::FWD, "twice", 0);
        let int = builder.int("int", 4);
        builder.plain(kind::TYPEDEF, "twice", int);
        builder.structure("twice", 8, &[NewMember("a", int, 32, 0)]);
    };
    assert_eq!(look(declared_first, "twice", "a"), Ok(plain(4, 4)));

    let second = |offset: u32, name: &'static str| {
        move |builder: &mut Builder| {
            let int = builder.int("int", 4);
            builder.structure("twice", 8, &[NewMember("b", int, 32, 0)]);
            builder.structure("twice", 8, &[NewMember(name, int, offset, 0)]);
        }
    };
    assert_eq!(look(second(32, "b"), "twice", "b"), Ok(plain(4, 4)));
    assert_eq!(look(second(0, "c"), "twice", "b"), Ok(plain(4, 4)));
    assert_eq!(look(second(0, "c"), "twice", "c"), Ok(plain(0, 4)));
    let error = look(second(0, "b"), "twice", "b").expect_err("a fault");
    assert_eq!(
        error.to_string(),
        "this kernel's BTF defines struct twice several times, with b at different places"
    );
}

#[test]
fn names_match_whole_and_only_where_there_is_one() {
    let build = |builder: &mut Builder| {
        let int = builder.int("int", 4);
        let inner = builder.structure("", 4, &[NewMember("shared", int, 0, 0)]);
        builder.structure("out", 8, &[NewMember("", inner, 32, 0), NewMember("ab", int, 0, 0)]);
    };
    assert_eq!(look(build, "out", "shared"), Ok(plain(4, 4)));
    for (name, path, message) in [
        ("out", "a", "struct out has no member a in this kernel's BTF"),
        ("out", "abc", "struct out has no member abc in this kernel's BTF"),
        ("out", "", "struct out has no member  in this kernel's BTF"),
        ("out", "gone.x", "struct out has no member gone in this kernel's BTF"),
        ("ou", "ab", "there is no struct ou in this kernel's BTF"),
        ("", "shared", "there is no struct  in this kernel's BTF"),
        ("int", "ab", "there is no struct int in this kernel's BTF"),
        ("out", "ab.x", "member ab of struct out is neither struct nor union in this kernel's BTF"),
    ] {
        let error = look(build, name, path).expect_err("a fault");
        assert_eq!(error.to_string(), message);
        assert_eq!(error.is_absence(), !path.contains("ab.x"), "{error}");
    }
}

#[test]
fn enumerators_of_either_width_and_sign() {
    let mut builder = Builder::new();
    builder.enumeration("plain", false, &[]);
    builder.enumeration("plain", false, &[("first", 0), ("high", u32::MAX)]);
    builder.enumeration("signed", true, &[("below", u32::MAX)]);
    builder.enum64("wide", false, &[("high", [1, u32::MAX])]);
    builder.enum64("wide_signed", true, &[("below", [u32::MAX - 1, u32::MAX])]);
    let blob = builder.finish();
    let btf = Btf::parse(&blob).expect("sound BTF");
    for (name, enumerator, value) in [
        ("plain", "first", 0),
        ("plain", "high", i128::from(u32::MAX)),
        ("signed", "below", -1),
        ("wide", "high", i128::from(u32::MAX) << 32 | 1),
        ("wide_signed", "below", -2),
    ] {
        assert_eq!(btf.enum_value(name, enumerator), Ok(value), "{name} {enumerator}");
    }
    let absent = btf.enum_value("plain", "below").expect_err("a fault");
    assert_eq!(absent.to_string(), "enum plain has no enumerator below in this kernel's BTF");
    let absent = btf.enum_value("none", "below").expect_err("a fault");
    assert_eq!(absent.to_string(), "there is no enum none in this kernel's BTF");
}

#[test]
fn circles_come_to_an_end() {
    let typedefs = |builder: &mut Builder| {
        builder.plain(kind::TYPEDEF, "a", 2);
        builder.plain(kind::CONST, "", 1);
        builder.structure("s", 8, &[NewMember("m", 1, 0, 0), NewMember("", 1, 0, 0)]);
    };
    for path in ["m", "m.x", "x"] {
        let error = look(typedefs, "s", path).expect_err("a fault");
        assert!(error.to_string().contains("run in a circle"), "{path}: {error}");
    }
    let arrays = |builder: &mut Builder| {
        builder.array(1, 1);
        builder.structure("s", 8, &[NewMember("m", 1, 0, 0)]);
    };
    let error = look(arrays, "s", "m").expect_err("a fault");
    assert!(error.to_string().contains("arrays run in a circle"), "{error}");
    // Sixty-five thousand anonymous members, each of the structure itself.
    let nested = |builder: &mut Builder| {
        let members = vec![NewMember("", 1, 8, 0); 65_535];
        builder.structure("s", 8, &members);
    };
    assert!(matches!(look(nested, "s", "m"), Err(BtfError::NoMember { .. })));
    let path = vec!["m"; 10_000].join(".");
    let chain = |builder: &mut Builder| {
        builder.structure("s", 1, &[NewMember("m", 1, 0, 0)]);
    };
    assert_eq!(look(chain, "s", &path), Ok(plain(0, 1)));
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    let build = |builder: &mut Builder| {
        let mut inner = builder.int("int", 4);
        inner = builder.structure("", 4, &[NewMember("m", inner, 0, 0)]);
        for _ in 0..50_000 {
            inner = builder.structure("", 4, &[NewMember("", inner, 0, 0)]);
        }
        builder.structure("s", 4, &[NewMember("", inner, 0, 0)]);
    };
    assert_eq!(look(build, "s", "m"), Ok(plain(0, 4)));
}

#[test]
fn malformed_types_are_named() {
    let case = |ty: u32, bits: u32| {
        move |builder: &mut Builder| {
            builder.int("int", 4);
            builder.plain(kind::FWD, "fwd", 0);
            let row = builder.array(1, u32::MAX);
            let rows = builder.array(row, u32::MAX);
            builder.array(rows, u32::MAX);
            builder.structure("s", 8, &[NewMember("m", ty, bits, 0)]);
        }
    };
    for (ty, bits, message) in [
        (99, 0, "type 99 of this BTF is malformed: it is referred to but absent"),
        (u32::MAX, 0, "type 4294967295 of this BTF is malformed: it is referred to but absent"),
        (0, 0, "type 0 of this BTF is malformed: it is used as a member but has no size"),
        (2, 0, "type 2 of this BTF is malformed: it is used as a member but has no size"),
        (5, 0, "type 5 of this BTF is malformed: it is an array that is larger than any memory"),
        (3, 0, "type 3 of this BTF is malformed: a member of it lies beyond 4 GiB"),
        (1, 3, "type 1 of this BTF is malformed: a member of it begins in the middle of a byte"),
        (1, 40, "type 6 of this BTF is malformed: a member reaches beyond its end"),
    ] {
        let error = look(case(ty, bits), "s", "m").expect_err("a fault");
        assert_eq!(error.to_string(), message);
        assert!(!error.is_absence());
    }
}

#[test]
fn what_is_not_this_machines_btf_is_refused() {
    let mut builder = Builder::new();
    builder.int("int", 4);
    let blob = builder.finish();
    assert_eq!(Btf::parse(&blob).map(|btf| btf.type_count()), Ok(1));

    let foreign = Btf::parse(&builder.finish_foreign()).expect_err("a fault").to_string();
    assert!(foreign.starts_with("this BTF is of the other byte order ("), "{foreign}");
    let elf = Btf::parse(b"\x7fELF and so on, long enough").expect_err("a fault").to_string();
    assert!(elf.starts_with("this is not BTF: it begins with 0x"), "{elf}");
    let spoilt = |at: usize, byte: u8| {
        let mut blob = blob.clone();
        blob[at] = byte;
        Btf::parse(&blob).expect_err("a fault")
    };
    assert_eq!(spoilt(2, 2), BtfError::UnknownVersion { version: 2, flags: 0 });
    assert_eq!(spoilt(3, 1), BtfError::UnknownVersion { version: 1, flags: 1 });
    let info = 24 + 4;
    let (top, middle) =
        if cfg!(target_endian = "little") { (info + 3, info + 2) } else { (info, info + 1) };
    assert_eq!(spoilt(top, 20), BtfError::UnknownKind { id: 1, kind: 20 });
    assert_eq!(spoilt(top, 0), BtfError::UnknownKind { id: 1, kind: 0 });
    assert!(matches!(spoilt(middle, 1), BtfError::Malformed { id: 1, .. }));
    assert_eq!(spoilt(blob.len() - 1, b'x'), BtfError::Truncated { what: "strings" });
    for len in 0..blob.len() {
        let error = Btf::parse(&blob[..len]).expect_err("a fault");
        assert!(matches!(error, BtfError::Truncated { .. }), "{len}: {error}");
    }
}
