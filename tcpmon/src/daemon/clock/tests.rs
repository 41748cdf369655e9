use super::*;
use std::path::{Path, PathBuf};

#[test]
fn the_offset_stays_until_the_time_of_day_is_set() {
    let mut offset = UtcOffset::default();
    assert_eq!(offset.settle(1_000, 1_100), 1_050);
    assert_eq!(offset.settle(1_040, 1_060), 1_050);
    // Taken off the CPU between two readings.
    assert_eq!(offset.settle(-80_000, 1_060), 1_050);
    // Set.
    assert_eq!(offset.settle(5_000, 5_100), 5_050);
}

/// Who asks for the time of day, and for what.
const ASKERS: [(&str, &str); 6] = [
    ("daemon/clock.rs", "the `ts` of events"),
    ("daemon/alerting.rs", "since when an alert fires"),
    ("daemon/pushing.rs", "the same for Alertmanager"),
    ("daemon/watch.rs", "the `ts` of reports"),
    ("export/alertmanager/worker.rs", "`startsAt` and `endsAt`"),
    // Compared with itself alone: the time of a mount says whether it is still the same.
    ("kernel/namespaces/mod.rs", "the time stamps of mounts"),
];
const BESIDE: [&str; 1] = ["kernel/namespaces/search.rs"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|name| name == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn nothing_but_what_is_shown_depends_on_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        // What stands in a file's tests is for tests.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let name = file.strip_prefix(&root).expect("inside").to_string_lossy().into_owned();
        let asks =
            ["SystemTime", "ClockId::Realtime", "Timestamp::now", "Zoned::now", "UNIX_EPOCH"]
                .iter()
                .any(|word| text.contains(word));
        if asks && !name.contains("tests") {
            found.push(name);
        }
    }
    found.sort();
    let mut known: Vec<String> =
        ASKERS.iter().map(|(name, _)| *name).chain(BESIDE).map(str::to_owned).collect();
    known.sort();
    assert_eq!(found, known, "who else asks for the time of day, and what if it is set?");
}
