//! The lines of a stream, as `tcpmon tail` reads them from a daemon of another version or from
//! whatever answers on the socket: no panics, and nothing that is written other than it was read.

use super::model::json::{JsonWriter, parse_line};

/// Feeds it anything.
pub(super) fn look(data: &[u8]) {
    let Ok(line) = parse_line(data) else { return };
    let mut written = Vec::new();
    JsonWriter::new().line(&line, &mut written);
    let again = parse_line(written.trim_ascii()).expect("what was written is read");
    let mut twice = Vec::new();
    JsonWriter::new().line(&again, &mut twice);
    assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&twice));
}
