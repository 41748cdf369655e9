//! The words of an Alertmanager's refusal, which go to the journal: one line of bounded length,
//! without what a terminal would obey.

use super::words::{WORDS, on_one_line};

/// Feeds it anything.
pub(super) fn look(data: &[u8]) {
    let told = on_one_line(data);
    assert!(told.chars().count() <= WORDS + 2, "{told:?}");
    assert!(!told.chars().any(char::is_control), "{told:?}");
    assert!(told.is_empty() || told.starts_with(": ") && told.len() > 2, "{told:?}");
}
