//! Diagnostics: one line each, on standard error.

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use std::io::Write;

/// Begins to write log lines of this level and above, until `log::set_max_level` says otherwise.
///
/// In the journal each line begins with its priority as the journal has
/// it (`sd-daemon(3)`); times are the journal's.
pub(super) fn init(level: LevelFilter) {
    let journal = is_journal();
    Builder::new()
        .filter_level(LevelFilter::Debug)
        .target(Target::Stderr)
        .format(move |out, record| {
            let line = escaped(record.args().to_string(), record.level());
            if journal {
                return writeln!(out, "<{}>{line}", priority(record.level()));
            }
            match record.level() {
                Level::Info => writeln!(out, "tcpmon: {line}"),
                other => writeln!(out, "tcpmon: {}: {line}", other.as_str().to_lowercase()),
            }
        })
        .init();
    log::set_max_level(level);
}

/// What a line says, without what a terminal would obey, or the journal would take for the end of
/// it: names of processes, cgroups and files have whatever characters somebody gave them. Only what
/// is for debugging may have several lines, as the verifier's words do.
fn escaped(text: String, level: Level) -> String {
    let harmful = |letter: char| {
        letter.is_control() && !(matches!(letter, '\n' | '\t') && level >= Level::Debug)
    };
    if !text.contains(harmful) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if harmful(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Whether standard error is the journal: `JOURNAL_STREAM` has its device and inode then, and is
/// inherited by others too (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stderr) = rustix::fs::fstat(std::io::stderr()) else { return false };
    let told = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    told == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// The priority of syslog(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_line_whatever_names_are_in_it() {
        let hostile = "cgroup a\u{1b}[2Jb\n<0>forged\u{9b}c";
        let line = escaped(hostile.to_owned(), Level::Info);
        assert_eq!(line, "cgroup a\\u{1b}[2Jb\\n<0>forged\\u{9b}c");
        assert_eq!(escaped("one\ntwo".to_owned(), Level::Debug), "one\ntwo");
        assert_eq!(escaped("d\u{fc}rer".to_owned(), Level::Warn), "d\u{fc}rer");
    }
}
