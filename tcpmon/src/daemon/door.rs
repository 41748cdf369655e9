//! Who comes in by the Unix socket: asked of the kernel, beside the rights of the socket's file.
//!
//! Rights are a setting that somebody may loosen, by hand or by a copy of a folder, and a
//! descriptor of a connected socket may be handed on. Who connected is told by the kernel
//! (`SO_PEERCRED`, `SO_PEERGROUPS`; unix(7)), and is held against what the file's rights were when
//! it was made.

use crate::export::server::Listener;
use std::{
    io,
    net::IpAddr,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// Groups that a process may have (`NGROUPS_MAX` in include/uapi/linux/limits.h).
const MOST_GROUPS: usize = 65_536;
/// As many as nearly all processes have.
const USUAL_GROUPS: usize = 32;

/// Strangers that are answered at the same time, and how long one may take to ask.
const REFUSED_AT_A_TIME: usize = 16;
const PATIENCE: Duration = Duration::from_secs(1);
/// More than any question has.
const QUESTION_BYTES: usize = 4096;

/// What a stranger is answered.
const REFUSAL: &str = "this socket is for root, the daemon's own user and the group of the socket: \
                       join the group tcpmon, or run as root\n";

/// A listening Unix socket that looks at who comes.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    /// Beside root.
    owner: u32,
    group: u32,
    turned_away: Arc<AtomicU64>,
    refusing: Arc<Semaphore>,
}

/// Who is at the other end.
#[derive(Debug, PartialEq, Eq)]
struct Comer {
    uid: u32,
    gid: u32,
    /// Further groups.
    groups: Vec<u32>,
}

impl Comer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let own = stream.peer_cred()?;
        Ok(Self { uid: own.uid(), gid: own.gid(), groups: groups_of(stream)? })
    }

    fn may_enter(&self, owner: u32, group: u32) -> bool {
        self.uid == 0 || self.uid == owner || self.gid == group || self.groups.contains(&group)
    }
}

impl Door {
    /// A door for `owner`, root, and whoever is in `group`.
    #[must_use]
    pub fn new(listener: UnixListener, owner: u32, group: u32) -> Self {
        let refusing = Arc::new(Semaphore::new(REFUSED_AT_A_TIME));
        Self { listener, owner, group, turned_away: Arc::default(), refusing }
    }

    /// Counts those who were turned away.
    #[must_use]
    pub fn turned_away(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.turned_away)
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        match Comer::of(stream) {
            Ok(comer) if comer.may_enter(self.owner, self.group) => return true,
            Ok(Comer { uid, gid, .. }) => {
                log::debug!("turned uid {uid}, gid {gid} away from the Unix socket");
            }
            Err(error) => log::debug!("turned somebody away from the Unix socket: {error}"),
        }
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        false
    }
}

impl Listener for Door {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if self.admits(&stream) {
                return Ok((stream, None));
            }
            // One for whom there is no time is hung up on.
            if let Ok(place) = Arc::clone(&self.refusing).try_acquire_owned() {
                tokio::spawn(async move {
                    // Whether the answer is read is no concern of ours.
                    let _told = timeout(PATIENCE, refuse(stream)).await;
                    drop(place);
                });
            }
        }
    }
}

/// Answers a stranger's question, once it is there: before that a client takes an answer for a
/// mistake.
async fn refuse(mut stream: UnixStream) -> io::Result<()> {
    let mut asked = [0; QUESTION_BYTES];
    let _some = stream.read(&mut asked).await?;
    let length = REFUSAL.len();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{REFUSAL}"
    );
    stream.write_all(answer.as_bytes()).await
}

/// The supplementary groups of whoever connected.
fn groups_of(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; USUAL_GROUPS];
    loop {
        let bytes = size_of_val(&*groups);
        let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which the buffer has, and the length.
        let done = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if done == 0 {
            groups.truncate(length as usize / size_of::<libc::gid_t>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too many for the buffer (`sk_getsockopt()` in net/core/sock.c).
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= MOST_GROUPS {
            return Err(error);
        }
        groups.resize(MOST_GROUPS, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_the_group_may_enter() {
        let comer = |uid, gid, groups: &[u32]| Comer { uid, gid, groups: groups.to_vec() };
        for (comer, may) in [
            (comer(0, 5, &[]), true),
            (comer(7, 5, &[]), true),
            (comer(8, 9, &[]), true),
            (comer(8, 5, &[1, 9]), true),
            (comer(8, 5, &[1, 2]), false),
            (comer(8, 0, &[0]), false),
        ] {
            assert_eq!(comer.may_enter(7, 9), may, "{comer:?}");
        }
    }

    #[tokio::test]
    async fn the_kernel_tells_who_connects() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let comer = Comer::of(&ours).expect("somebody");
        assert_eq!(comer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(comer.gid, rustix::process::getegid().as_raw());
        let own = std::fs::read_to_string("/proc/thread-self/status").expect("own status");
        let own = own.lines().find_map(|line| line.strip_prefix("Groups:")).expect("own groups");
        let own: Vec<u32> = own.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        assert_eq!(comer.groups, own);
    }
}
