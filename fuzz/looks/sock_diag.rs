//! The kernel's list of sockets by netlink: no panics, no end that is passed over, and no more
//! sockets than there is room for in the datagram.

use super::sock_diag::messages;

/// Feeds it anything, whole and as the body of a sound message.
pub(super) fn look(data: &[u8]) {
    ask(data);
    // Random bytes seldom make a header. `SOCK_DIAG_BY_FAMILY` is 20; a list ends with 3.
    let length = u32::try_from(16 + data.len()).unwrap_or(u32::MAX);
    let mut datagram = Vec::with_capacity(36 + data.len());
    datagram.extend(length.to_ne_bytes());
    datagram.extend(20_u16.to_ne_bytes());
    datagram.extend([0; 10]);
    datagram.extend(data);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    datagram.extend(16_u32.to_ne_bytes());
    datagram.extend(3_u16.to_ne_bytes());
    datagram.extend([0; 10]);
    if data.len() >= 72 {
        assert!(matches!(ask(&datagram), Some(false)), "the end is seen");
    } else {
        assert_eq!(ask(&datagram), None, "half a message is none");
    }
}

/// Whether there is more to come; `None` where it is not understood.
fn ask(datagram: &[u8]) -> Option<bool> {
    let mut sockets = 0;
    let told = messages(datagram, &mut |_| sockets += 1);
    assert!(sockets <= datagram.len() / 88);
    told.ok()
}
