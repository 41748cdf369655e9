//! Diagnostics: one line each, on standard error.

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};
use std::io::Write;

/// Begins to write log lines of this level and above.
///
/// In the journal each line begins with its priority as the journal has
/// it (`sd-daemon(3)`); times are the journal's.
pub(super) fn init(level: LevelFilter) {
    let journal = is_journal();
    Builder::new()
        .filter_level(level)
        .target(Target::Stderr)
        .format(move |out, record| {
            let line = record.args();
            if journal {
                return writeln!(out, "<{}>{line}", priority(record.level()));
            }
            match record.level() {
                Level::Info => writeln!(out, "tcpmon: {line}"),
                other => writeln!(out, "tcpmon: {}: {line}", other.as_str().to_lowercase()),
            }
        })
        .init();
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
