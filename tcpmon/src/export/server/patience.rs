//! A connection whose other end has to take what it asked for.
//!
//! A client that asks and never reads would keep its place, and its answer in memory, for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Fails to write once nothing was taken for a while.
#[derive(Debug)]
pub(super) struct Patient<C> {
    connection: C,
    at_most: Duration,
    alarm: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<C> Patient<C> {
    pub(super) fn new(connection: C, at_most: Duration) -> Self {
        Self { connection, at_most, alarm: Box::pin(sleep(at_most)), waiting: false }
    }

    /// Passes on what came of a try to write, but for a wait that is too long.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.waiting = false;
            return tried;
        }
        if !self.waiting {
            self.waiting = true;
            self.alarm.as_mut().reset(Instant::now() + self.at_most);
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Patient<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Patient<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.bounded(context, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.connection).poll_write_vectored(context, slices);
        self.bounded(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.connection).poll_flush(context);
        self.bounded(context, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.connection).poll_shutdown(context);
        self.bounded(context, tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn who_takes_nothing_is_left_and_who_is_slow_is_not() {
        let short = Duration::from_millis(50);
        let (ours, _theirs) = duplex(16);
        let error = Patient::new(ours, short).write_all(&[0; 64]).await.expect_err("a full pipe");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (ours, mut theirs) = duplex(16);
        let reading = tokio::spawn(async move {
            let mut piece = [0; 8];
            for _ in 0..8 {
                sleep(Duration::from_millis(20)).await;
                theirs.read_exact(&mut piece).await.expect("a piece");
            }
        });
        // More than the bound in all, and never that long at a time.
        Patient::new(ours, Duration::from_secs(5)).write_all(&[0; 64]).await.expect("taken");
        reading.await.expect("all of it");
    }
}
