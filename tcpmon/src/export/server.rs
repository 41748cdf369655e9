//! Accepting connections, on TCP and on the Unix socket.

mod patience;

use super::{
    seats::Seats,
    web::{Peer, Web},
};
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use patience::Patient;
use std::{future::Future, io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// A client that has not sent its request by then, or has shaken no hands, is hung up on.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// A client over TCP that takes nothing of its answer for that long is hung up on.
const TAKE_WITHIN: Duration = Duration::from_mins(1);
/// Header lines of a request.
const HEADERS: usize = 64;
/// Bytes of a request without its body.
const HEAD_BYTES: usize = 16 << 10;
/// What open connections get for their last words when the daemon ends.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Connections of one listener at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Of these from one host.
const OF_ONE_HOST: usize = 64;
/// Pause after a failed accept(): the cause, mostly a lack of descriptors, lasts.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket of either kind.
pub trait Listener: Send + Sync + 'static {
    /// Its connections.
    type Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and where it comes from if that is another host.
    fn accept(&self)
    -> impl Future<Output = io::Result<(Self::Connection, Option<IpAddr>)>> + Send;
}

impl Listener for TcpListener {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        let (connection, from) = TcpListener::accept(self).await?;
        // Lines are handed over in large pieces already.
        connection.set_nodelay(true)?;
        // A stream with nothing to tell would not notice that its reader is gone.
        rustix::net::sockopt::set_socket_keepalive(&connection, true)?;
        let from = from.ip().to_canonical();
        Ok((connection, (!from.is_loopback()).then_some(from)))
    }
}

impl Listener for UnixListener {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Connection, Option<IpAddr>)> {
        Ok((UnixListener::accept(self).await?.0, None))
    }
}

/// Serves `router` on `listener` until `stop` turns true; then ends within [`LAST_WORDS`]. `web`
/// says whether connections are TLS; `None`: they never are, and may take their answers as slowly
/// as they like, as a pager does.
pub fn serve<L: Listener>(
    listener: L,
    router: Router,
    web: Option<Arc<Web>>,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let seats = Seats::new(CONNECTIONS, OF_ONE_HOST);
        let ending = GracefulShutdown::new();
        loop {
            let next = async {
                let seat = seats.take().await;
                let (connection, host) = listener.accept().await?;
                Ok::<_, io::Error>((connection, host, seats.belongs(seat, host)))
            };
            let (connection, host, seat) = tokio::select! {
                _ = stop.changed() => break,
                next = next => match next {
                    Ok((connection, host, Some(seat))) => (connection, host, seat),
                    Ok((.., None)) => {
                        log::debug!("hung up on a host with too many connections");
                        continue;
                    }
                    Err(error) => {
                        log::debug!("cannot accept a connection: {error}");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let (router, web, watcher) = (router.clone(), web.clone(), ending.watcher());
            tokio::spawn(async move {
                // A client that hangs up is no concern of ours.
                welcome(connection, host, router, web, watcher).await;
                drop(seat);
            });
        }
        drop(listener);
        let _ = timeout(LAST_WORDS, ending.shutdown()).await;
    })
}

/// Shakes hands, if that is the custom here, and answers what is asked.
async fn welcome<C>(
    connection: C,
    host: Option<IpAddr>,
    router: Router,
    web: Option<Arc<Web>>,
    watcher: Watcher,
) where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stranger = Peer { host, certified: false };
    let Some(web) = web else {
        return converse(connection, router, stranger, watcher).await;
    };
    let connection = Patient::new(connection, TAKE_WITHIN);
    let Some(acceptor) = web.rules().acceptor() else {
        return converse(connection, router, stranger, watcher).await;
    };
    match timeout(REQUEST_WITHIN, acceptor.accept(connection)).await {
        Ok(Ok(connection)) => {
            // Only what was verified is kept there.
            let (_, tls) = connection.get_ref();
            let certified = tls.peer_certificates().is_some_and(|chain| !chain.is_empty());
            converse(connection, router, Peer { host, certified }, watcher).await;
        }
        Ok(Err(error)) => log::debug!("no TLS connection: {error}"),
        Err(_) => log::debug!("no TLS connection: the client took too long"),
    }
}

async fn converse<C>(connection: C, router: Router, peer: Peer, watcher: Watcher)
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let routes = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(connection), service);
    let _ = watcher.watch(connection).await;
}
