//! A port of this host that leads to the daemon's Unix socket: the daemon runs in a network
//! namespace of its own, the browser must not, or its connections would be in the pictures.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};

/// Opens the port; it stays open as long as this process lives.
pub(super) fn open(socket: &Path) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr().context("the port is not known")?;
    let socket = socket.to_owned();
    thread::spawn(move || serve(&listener, &socket));
    Ok(address)
}

fn serve(listener: &TcpListener, socket: &PathBuf) {
    for client in listener.incoming().flatten() {
        // Where the daemon has gone, the browser sees the end of its connection.
        if let Ok(daemon) = UnixStream::connect(socket) {
            join(client, daemon);
        }
    }
}

/// Carries bytes both ways, on threads that end with the connections.
fn join(client: TcpStream, daemon: UnixStream) {
    let (Ok(mut from_client), Ok(mut to_daemon)) = (client.try_clone(), daemon.try_clone()) else {
        return;
    };
    let (mut to_client, mut from_daemon) = (client, daemon);
    thread::spawn(move || {
        let _ended = io::copy(&mut from_client, &mut to_daemon);
        let _gone = to_daemon.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ended = io::copy(&mut from_daemon, &mut to_client);
        let _gone = to_client.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
    };

    use super::*;

    #[test]
    fn it_carries_both_ways_to_the_end() {
        let socket = std::env::temp_dir().join(format!("xtask-bridge-{}", std::process::id()));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let address = open(&socket).expect("a port");
        let mut client = TcpStream::connect(address).expect("the port");
        let mut daemon = listener.accept().expect("a connection").0;
        std::fs::remove_file(&socket).expect("its name");
        client.write_all(b"asks").expect("to write");
        client.shutdown(Shutdown::Write).expect("to end");
        let mut heard = String::new();
        daemon.read_to_string(&mut heard).expect("to read");
        daemon.write_all(b"answers").expect("to write");
        drop(daemon);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("to read");
        assert_eq!((&*heard, &*answer), ("asks", "answers"));
    }
}
