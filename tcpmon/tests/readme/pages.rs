//! The pages as text: their blocks, commands, flags and names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

pub(crate) fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Fenced blocks of one of these languages: number of the first line, and lines.
pub(crate) fn blocks(text: &str, languages: &[&str]) -> Vec<(usize, Vec<String>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, usize, Vec<String>)> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some((languages.contains(&language), index + 2, Vec::new()));
            }
            (Some(_), Some(_)) => {
                blocks.extend(open.take().filter(|block| block.0).map(|block| (block.1, block.2)));
            }
            (None, Some((_, _, lines))) => lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// The commands of a page, with the place where each stands.
pub(crate) fn commands(page: &str) -> Vec<(String, String)> {
    let text = read(page);
    let in_sessions = blocks(&text, &["console"]).into_iter().flat_map(|(first, lines)| {
        let typed = |(index, line): (usize, String)| {
            Some((first + index, line.strip_prefix("$ ")?.to_owned()))
        };
        lines.into_iter().enumerate().filter_map(typed).collect::<Vec<_>>()
    });
    let in_scripts = blocks(&text, &["sh"]).into_iter().flat_map(|(first, lines)| {
        let numbered =
            lines.into_iter().enumerate().map(move |(index, line)| (first + index, line));
        numbered.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    });
    let mut all: Vec<_> = in_sessions.chain(in_scripts).collect();
    all.sort();
    all.into_iter().map(|(line, command)| (format!("{page}:{line}"), command)).collect()
}

/// The long flags in a text.
pub(crate) fn flags(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..]
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
            .collect();
        let begins = before.is_none_or(|c| !c.is_alphanumeric() && c != '-');
        if begins && name.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(format!("--{}", name.trim_end_matches(['.', '-'])));
        }
    }
    found
}

/// Words of a text that begin like this, with the histogram's suffix taken off.
pub(crate) fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_lowercase() && c != '_')
        .filter(|word| word.starts_with(prefix))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

/// Every file of the workspace's own.
pub(crate) fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if path.is_dir() && !hidden && !path.ends_with("target") {
            files(&path, into);
        } else if path.is_file() {
            into.push(path);
        }
    }
}
