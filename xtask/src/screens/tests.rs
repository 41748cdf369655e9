//! What is kept under docs/screens is what the command makes.

use std::{collections::BTreeSet, fs};

use super::*;

/// No picture weighs more: they are cloned with the sources.
const HEAVIEST: u64 = 250_000;

fn folder() -> PathBuf {
    setup::workspace().join("docs/screens")
}

#[test]
fn every_picture_is_there_and_shown_on_the_page() {
    let page = fs::read_to_string(folder().join("README.md")).expect("the page");
    let made: BTreeSet<_> = SCREENS.map(|(name, _)| name.to_owned()).into();
    for name in &made {
        assert!(page.contains(&format!("]({name})")), "README.md does not show {name}");
    }
    let names = fs::read_dir(folder()).expect("a folder").flatten();
    let names = names.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let kept: BTreeSet<_> = names.filter(|name| name != "README.md").collect();
    assert_eq!(kept, made, "make them anew: cargo xtask screens");
}

#[test]
fn pictures_have_their_sizes() {
    for (name, face) in SCREENS {
        let bytes = fs::read(folder().join(name)).expect(name);
        assert!(bytes.len() as u64 <= HEAVIEST, "{name} has {} bytes", bytes.len());
        match face {
            Face::Page(View { size: (width, height), scale, .. }) => {
                assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
                let number =
                    |at: usize| bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b));
                assert_eq!((number(16), number(20)), (width * scale, height * scale), "{name}");
            }
            Face::Report(columns) => assert!(fits(&bytes, columns, u16::MAX), "{name}"),
            Face::Top(columns, rows) => assert!(fits(&bytes, columns, rows), "{name}"),
        }
    }
}

fn fits(text: &[u8], columns: u16, rows: u16) -> bool {
    let text = std::str::from_utf8(text).expect("UTF-8");
    let wide = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    wide <= usize::from(columns) && (1..=usize::from(rows)).contains(&text.lines().count())
}

#[test]
fn nothing_invisible_is_kept() {
    assert_eq!(tidy("a  \n b\n\n  \n"), "a\n b\n");
    assert_eq!(terminal_of("top-80.txt"), "top-80");
}
