//! A caller's connection, which nobody can keep for ever: one that takes no answer is given up, and one that is closed
//! while its caller is still sending is closed so that the caller can read why.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long a caller that is told of the end may go on sending. What arrives at a closed socket is answered with a reset,
/// and that can take the answer away from a caller that has not read it yet.
const LINGER: Duration = Duration::from_secs(2);
/// What is read at once of what nobody wants.
const SCRAP_BYTES: usize = 16 * 1024;

/// A connection with its bounds.
pub struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while a write waits for the caller to read.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs from the end of the last answer on.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Gives the connection up once a write has waited so long.
    pub fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self {
            stream,
            write_timeout,
            stalled: None,
            linger: None,
        }
    }

    /// Lets a write wait, but not for ever.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the answers, and then reads and forgets what is still being sent, until the caller ends too.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scrap = [0; SCRAP_BYTES];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut scrap);
            let ended = match read {
                Poll::Ready(read) => read.is_err() || scrap.filled().is_empty(),
                Poll::Pending => {
                    ready!(linger.as_mut().poll(cx));
                    true
                }
            };
            if ended {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
