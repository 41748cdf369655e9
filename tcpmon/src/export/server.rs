//! Accepting connections, on TCP and on the Unix socket.

use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// Connections of one listener at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// A client that has not sent its request by then is hung up on.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// What open connections get for their last words when the daemon ends.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Pause after a failed accept(): the cause, mostly a lack of descriptors, lasts.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket of either kind.
pub trait Listener: Send + Sync + 'static {
    /// Its connections.
    type Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        let (connection, _) = TcpListener::accept(self).await?;
        // Lines are handed over in large pieces already.
        connection.set_nodelay(true)?;
        Ok(connection)
    }
}

impl Listener for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Serves `router` on `listener` until `stop` turns true; then ends within [`LAST_WORDS`].
pub fn serve<L: Listener>(
    listener: L,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let ending = GracefulShutdown::new();
        loop {
            let next = async {
                let seat = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?, seat))
            };
            let (connection, seat) = tokio::select! {
                _ = stop.changed() => break,
                next = next => match next {
                    Ok(next) => next,
                    Err(error) => {
                        log::debug!("cannot accept a connection: {error}");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_WITHIN)
                .serve_connection(TokioIo::new(connection), service);
            let connection = ending.watch(connection);
            tokio::spawn(async move {
                // A client that hangs up is no concern of ours.
                let _ = connection.await;
                drop(seat);
            });
        }
        drop(listener);
        let _ = tokio::time::timeout(LAST_WORDS, ending.shutdown()).await;
    })
}
