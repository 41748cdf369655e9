//! Records of the probes, whatever is in them: an event or an error, and of an event a line that is
//! read again as what it says, in which no name of a process or service speaks to a terminal.

use super::model::{
    event::{Event, Line},
    json::{JsonWriter, parse_line},
};
use tcpmon_common::Transition;

/// Takes the members from the bytes, one after the other, zeros once there are no more; what is left
/// is the service's name.
pub(super) fn look(mut data: &[u8]) {
    fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
        let mut bytes = [0; N];
        let (head, rest) = data.split_at(data.len().min(N));
        bytes[..head.len()].copy_from_slice(head);
        *data = rest;
        bytes
    }
    let data = &mut data;
    let [family, old, new, flags] = take(data);
    let record = Transition {
        family,
        old,
        new,
        flags,
        ts_ns: u64::from_ne_bytes(take(data)),
        cookie: u64::from_ne_bytes(take(data)),
        duration_ns: u64::from_ne_bytes(take(data)),
        cgroup_id: u64::from_ne_bytes(take(data)),
        birth_ns: u64::from_ne_bytes(take(data)),
        saddr: take(data),
        daddr: take(data),
        comm: take(data),
        netns: u32::from_ne_bytes(take(data)),
        pid: u32::from_ne_bytes(take(data)),
        sport: u16::from_ne_bytes(take(data)),
        dport: u16::from_ne_bytes(take(data)),
    };
    let utc_offset_ns = i64::from_ne_bytes(take(data));
    let service = (!data.is_empty()).then(|| String::from_utf8_lossy(data).into());
    let Ok(event) = Event::from_record(&record, utc_offset_ns, service) else { return };
    let mut written = Vec::new();
    JsonWriter::new().event(&event, &mut written);
    let text = std::str::from_utf8(&written).expect("a line is text");
    assert!(!text.contains(char::is_control), "{text:?}");
    let Ok(Line::Event(again)) = parse_line(&written) else { panic!("not read: {text}") };
    assert_eq!((again.cookie, again.netns, again.sport), (event.cookie, event.netns, event.sport));
    assert_eq!((again.old, again.new, again.passage), (event.old, event.new, event.passage));
    // What stands for bytes that are no text is longer than they are, and a name is cut: then a
    // name is what it was read as from there on. The kernel's cut may itself part a character.
    let named_in_text =
        |event: &Event| event.comm.is_none_or(|comm| std::str::from_utf8(comm.as_bytes()).is_ok());
    assert!(named_in_text(&again));
    let mut twice = Vec::new();
    JsonWriter::new().event(&again, &mut twice);
    if named_in_text(&event) {
        assert_eq!(text, String::from_utf8_lossy(&twice));
    }
    let Ok(Line::Event(third)) = parse_line(&twice) else { panic!("not read again") };
    assert_eq!(again, third);
}
