//! The Unix socket: where it is, who may use it, and that there is one daemon behind it.

use super::door::Door;
use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

/// The group that may talk to the daemon, where it exists.
const GROUP: &str = "tcpmon";
/// Owner and group may connect.
const MODE: u32 = 0o660;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon has it.
    #[error(
        "another tcpmon daemon (pid {pid}) listens on {}; stop it, or choose another --socket",
        path.display()
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The other daemon's process id; 0 where it is in another pid namespace.
        pid: i32,
    },
    /// Something else has that name.
    #[error("{} is not a socket; remove it, or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system would not have it.
    #[error("cannot {action} the socket {}: {cause}; choose another --socket", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
}

/// A bound socket, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that never another daemon's socket is removed.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds the socket at `path`, for whom its file is; a file left behind by a daemon that is gone is
/// replaced.
///
/// # Errors
///
/// Where another daemon listens there, or the system refuses.
pub fn bind(path: &Path) -> Result<(Door, SocketFile), SocketError> {
    let system = |action| move |cause| SocketError::System { action, path: path.to_owned(), cause };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder).map_err(system("make the folder of"))?;
    }
    clear(path)?;
    // Bound under another name, with no rights for anybody else, and given its own name when the
    // rights are right: no client ever sees it otherwise.
    let draft = path.with_file_name(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&draft);
    rustix::process::umask(umask);
    let listener = bound.map_err(system("bind"))?;
    let finish = || {
        let made = fs::symlink_metadata(&draft)?;
        // A service that is of that group already has no need of chown(2).
        let group = group_id(GROUP).unwrap_or(made.gid());
        if group != made.gid() {
            std::os::unix::fs::chown(&draft, None, Some(group))?;
        }
        fs::set_permissions(&draft, PermissionsExt::from_mode(MODE))?;
        fs::rename(&draft, path)?;
        Ok((made.uid(), group, identity(path)?))
    };
    match finish() {
        Ok((owner, group, identity)) => {
            let file = SocketFile { path: path.to_owned(), identity };
            Ok((Door::new(listener, owner, group), file))
        }
        Err(cause) => {
            let _ = fs::remove_file(&draft);
            Err(system("set up")(cause))
        }
    }
}

/// Makes the socket's folder if there is none, open to those who may use the socket.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755))
}

/// Makes sure that nobody listens at `path`, and that what is there may be replaced.
fn clear(path: &Path) -> Result<(), SocketError> {
    let system = |cause| SocketError::System { action: "look at", path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
    }
    match UnixStream::connect(path) {
        Ok(other) => {
            let pid = rustix::net::sockopt::socket_peercred(&other)
                .map_or(0, |peer| peer.pid.as_raw_nonzero().get());
            Err(SocketError::Taken { path: path.to_owned(), pid })
        }
        // Left behind by a daemon that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The id of a group in /etc/group.
fn group_id(name: &str) -> Option<u32> {
    group_in(&fs::read_to_string("/etc/group").ok()?, name)
}

fn group_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nbroken\ntcpmonitor:x:7:\ntcpmon:x:998:alice,bob\n";
        assert_eq!(group_in(groups, "tcpmon"), Some(998));
        assert_eq!(group_in(groups, "nobody"), None);
        assert_eq!(group_in("tcpmon:x:many:\n", "tcpmon"), None);
    }

    #[tokio::test]
    async fn one_daemon_a_socket_and_no_leftovers() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("run/tcpmon.sock");
        let (listener, file) = bind(&path).expect("first");
        assert_eq!(fs::metadata(&path).expect("socket").mode() & 0o777, MODE);
        let error = bind(&path).expect_err("second").to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("another tcpmon daemon (pid {pid})")), "{error}");
        // As after SIGKILL: the file stays, and nobody listens.
        drop(listener);
        let (_listener, second) = bind(&path).expect("stale file replaced");
        drop(file);
        assert!(path.exists(), "the first daemon's end must not take the second's socket");
        drop(second);
        assert!(!path.exists());
        fs::write(&path, "").expect("file");
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
    }
}
