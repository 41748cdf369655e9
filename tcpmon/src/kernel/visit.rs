//! Entering network namespaces, and coming back.
//!
//! A namespace belongs to a thread (setns(2)), so visits are made by one thread that does nothing
//! else. No descriptor of a namespace is kept between visits: it would keep the namespace alive
//! after its last process, with its interfaces and its sockets in TIME_WAIT.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use super::namespaces::Namespace;

/// Where a thread's own network namespace is.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace was not visited.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Without a way back nobody sets out.
    #[error("cannot open the network namespace that the daemon runs in, {OWN}: {0}; mount /proc")]
    Home(Errno),
    /// No way leads to it any more: it has ended, or the next pass will find another way.
    #[error("the network namespace {0} has gone")]
    Gone(u32),
    /// There is a way, and it is barred.
    #[error(
        "cannot open the network namespace at {}: {cause}; it needs CAP_SYS_PTRACE, or start \
         the daemon with --namespaces host",
        path.display()
    )]
    Barred {
        /// Where it is.
        path: PathBuf,
        /// The system's answer.
        cause: Errno,
    },
    /// It was opened, and may not be entered.
    #[error(
        "cannot enter the network namespace {inode}: {cause}; it needs CAP_SYS_ADMIN, or start \
         the daemon with --namespaces host"
    )]
    Enter {
        /// Which.
        inode: u32,
        /// The system's answer.
        cause: Errno,
    },
    /// The thread could not come back, and is still there.
    #[error(
        "cannot leave the network namespace {inode}: {cause}; restart the daemon, with \
         CAP_SYS_ADMIN or with --namespaces host"
    )]
    Stranded {
        /// Where the thread is.
        inode: u32,
        /// The system's answer.
        cause: Errno,
    },
}

/// Lets the thread that made it visit namespaces; it stays with that thread.
///
/// If the way back is barred ([`VisitError::Stranded`]: the kernel had no memory, or somebody
/// took CAP_SYS_ADMIN away meanwhile), the thread is still in the other namespace. Every visit
/// then first tries to go home, and refuses while it cannot, so that nothing is ever read in a
/// wrong place under the name of home; but the thread keeps the foreign namespace alive, so it
/// should end.
#[derive(Debug)]
pub struct Visitor {
    home: OwnedFd,
    home_inode: u32,
    /// In which namespace the thread got stuck.
    stranded: Cell<Option<u32>>,
    /// Neither Send nor Sync: `home` is home of this thread only.
    _of_this_thread: PhantomData<*const ()>,
}

impl Visitor {
    /// A visitor whose home is the network namespace that this thread is in now.
    ///
    /// # Errors
    /// [`VisitError::Home`].
    pub fn new() -> Result<Self, VisitError> {
        let home = open(Path::new(OWN)).map_err(VisitError::Home)?;
        let home_inode = inode(&home).map_err(VisitError::Home)?;
        let stranded = Cell::new(None);
        Ok(Self { home, home_inode, stranded, _of_this_thread: PhantomData })
    }

    /// Inode number of the namespace that is home: visiting it needs no privileges.
    #[must_use]
    pub fn home(&self) -> u32 {
        self.home_inode
    }

    /// Does `work` in a namespace, and comes home, also where `work` panics.
    ///
    /// That it is the one that was meant is checked once it is open, since paths and numbers are
    /// given anew; between the check and the entering it cannot change.
    ///
    /// # Errors
    /// All but [`VisitError::Home`]; but for [`VisitError::Stranded`], `work` was not begun.
    pub fn visit<T>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> T,
    ) -> Result<T, VisitError> {
        self.go_home()?;
        if namespace.inode == self.home_inode {
            return Ok(work());
        }
        let door = find(namespace)?;
        enter(&door).map_err(|cause| match cause {
            // The number was right and the kind was not: some other file, by now.
            Errno::INVAL => VisitError::Gone(namespace.inode),
            _ => VisitError::Enter { inode: namespace.inode, cause },
        })?;
        drop(door);
        self.stranded.set(Some(namespace.inode));
        let way_back = WayBack(self);
        let done = work();
        drop(way_back);
        // Nothing to do if the way back was free.
        self.go_home()?;
        Ok(done)
    }

    /// Goes home, if the thread is elsewhere.
    fn go_home(&self) -> Result<(), VisitError> {
        let Some(inode) = self.stranded.get() else { return Ok(()) };
        enter(&self.home).map_err(|cause| VisitError::Stranded { inode, cause })?;
        self.stranded.set(None);
        Ok(())
    }
}

/// Goes home when it is dropped, however that comes.
struct WayBack<'a>(&'a Visitor);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        // A failure is found, and told, when the next visit looks.
        let _ = self.0.go_home();
    }
}

/// Opens the namespace by the first way that still leads to it.
fn find(namespace: &Namespace) -> Result<OwnedFd, VisitError> {
    let mut barred = None;
    for path in &namespace.ways {
        match open(path) {
            Ok(door) if inode(&door) == Ok(namespace.inode) => return Ok(door),
            Err(cause @ (Errno::ACCESS | Errno::PERM)) => {
                barred = barred.or(Some(VisitError::Barred { path: path.clone(), cause }));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(barred.unwrap_or(VisitError::Gone(namespace.inode)))
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    // If a pipe lies there by now, opening it must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty())
}

/// The inode number, which is no namespace's where it has more than 32 bits.
fn inode(door: &OwnedFd) -> Result<u32, Errno> {
    u32::try_from(rustix::fs::fstat(door)?.st_ino).map_err(|_| Errno::INVAL)
}

fn enter(door: &OwnedFd) -> Result<(), Errno> {
    // The type is said so that another kind of namespace with this number is refused.
    rustix::thread::move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
}

/// The cookie of the network namespace that this thread is in: never 0, and never given twice
/// while the machine runs (`net_cookie`, net/core/net_namespace.c), whereas an inode number is
/// given anew as soon as it is free. It tells a namespace from the next one of the same number.
///
/// # Errors
/// Before Linux 5.14 the kernel does not tell it (`NOPROTOOPT`); or there is no descriptor left
/// for a socket.
pub fn cookie_of_this_thread() -> Result<u64, Errno> {
    // Any socket tells it; one of the Unix domain is there in every kernel.
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes, which is the size
    // of `cookie`, to it, and the number of them to `len`; both live until the call returns.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if done == 0 {
        return Ok(cookie);
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::super::namespaces::Place;
    use super::*;

    fn namespace(inode: u32, ways: &[&str]) -> Namespace {
        let ways = ways.iter().map(PathBuf::from).collect();
        Namespace { inode, ways, pid: None, place: Place::Process, container: None }
    }

    #[test]
    fn home_needs_no_way() {
        let visitor = Visitor::new().expect("a visitor");
        let home = namespace(visitor.home(), &[]);
        assert_eq!(visitor.visit(&home, || 7).expect("a visit"), 7);
    }

    #[test]
    fn what_is_not_there_any_more_or_another_has_gone() {
        let visitor = Visitor::new().expect("a visitor");
        let other = namespace(7, &["/nowhere", OWN, "/proc/self/ns/mnt", "/dev/null"]);
        let refused = visitor.visit(&other, || unreachable!("nothing to enter"));
        assert!(matches!(refused, Err(VisitError::Gone(7))), "{refused:?}");
        // The right number of the wrong kind, which an ordinary user may not enter either.
        let mnt = open(Path::new("/proc/self/ns/mnt")).and_then(|file| inode(&file)).expect("mnt");
        let refused = visitor.visit(&namespace(mnt, &["/proc/self/ns/mnt"]), || unreachable!("no"));
        assert!(matches!(refused, Err(VisitError::Gone(_))), "{refused:?}");
    }

    #[test]
    fn every_message_is_one_line_and_says_what_to_do() {
        let cause = Errno::PERM;
        for (error, mend) in [
            (VisitError::Home(cause), "mount /proc"),
            (VisitError::Barred { path: OWN.into(), cause }, "--namespaces host"),
            (VisitError::Enter { inode: 7, cause }, "CAP_SYS_ADMIN, or start"),
            (VisitError::Stranded { inode: 7, cause }, "restart the daemon"),
            (VisitError::Gone(7), "namespace 7 has gone"),
        ] {
            let text = error.to_string();
            assert!(text.contains(mend) && !text.contains('\n') && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn a_namespace_has_one_cookie() {
        let cookie = cookie_of_this_thread().expect("a cookie");
        assert_ne!(cookie, 0);
        assert_eq!(cookie_of_this_thread(), Ok(cookie));
    }
}
