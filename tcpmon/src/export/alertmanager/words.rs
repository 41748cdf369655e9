//! What is told of an answer that somebody else has written.

/// Bytes of a refusal that are read, and of it that are shown.
pub(crate) const WORDS: usize = 300;

/// The beginning of a refusal's text, on one line after `: `; empty where it says nothing.
pub(crate) fn on_one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..WORDS).unwrap_or(bytes));
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { text } else { format!(": {text}") }
}
