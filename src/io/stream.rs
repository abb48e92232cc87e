//! A client's socket, wherever it travels: from the listener through guests, regulars and rows, and from
//! shard to shard, with the TLS that it speaks, if it does. Invariant: whoever reads or writes a client's
//! bytes does it here, and never waits; a socket without TLS costs no more than looking whether it has any.

use crate::base::limits::{TLS_READ_BYTES, TLS_READS_MAX, TLS_SEALED_BYTES_MAX};
use crate::io::socket::{self, Shut};
use crate::io::tls::{News, Served, Session};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub struct Stream {
    fd: OwnedFd,
    tls: Option<Box<Session>>,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Got {
    /// Zero: the peer sends no more.
    pub bytes: usize,
    /// Another read may find something, though nobody will tell of it.
    pub has_more: bool,
}

thread_local! {
    /// What ciphertext is read into, and decrypted in. Made by the first who needs it.
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Stream {
    /// A socket whose peer is to begin with a handshake.
    pub fn secured(fd: OwnedFd, served: &Served) -> Stream {
        Stream { fd, tls: Some(Box::new(Session::new(served.config()))) }
    }

    pub fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads what is there, as much as fits, or `WouldBlock`. `Interrupted`: what came so far brought nothing
    /// to read, and there may be more at once. `InvalidData`: what came is no TLS that could be followed.
    pub fn receive(&mut self, into: &mut [u8]) -> io::Result<Got> {
        if self.tls.is_some() {
            return self.receive_secured(into);
        }
        let bytes = socket::receive(self.as_raw_fd(), into)?;
        // A read that did not fill its buffer took all, and what comes later is told.
        Ok(Got { bytes, has_more: bytes == into.len() })
    }

    /// Looks at what is there as it came, or `WouldBlock`; it stays there. Zero: the peer sends no more.
    pub fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        socket::peek(self.as_raw_fd(), into)
    }

    /// Takes what [`Stream::peek`] has shown: all of `seen`.
    pub fn take(&mut self, seen: &mut [u8]) -> io::Result<()> {
        match socket::receive(self.as_raw_fd(), seen) {
            Ok(took) if took == seen.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        }
    }

    fn receive_secured(&mut self, into: &mut [u8]) -> io::Result<Got> {
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let fd = self.fd.as_raw_fd();
        let Some(session) = &mut self.tls else { return Err(ErrorKind::Unsupported.into()) };
        if session.is_over() {
            return Ok(Got { bytes: session.take_over(into), has_more: true });
        }
        if session.is_closed() {
            let bytes = socket::receive(fd, into)?;
            return Ok(Got { bytes, has_more: bytes == into.len() });
        }
        if session.is_ended() {
            // The answer to its goodbye: whoever waits for it may then forget the connection.
            self.part();
            return Ok(Got { bytes: 0, has_more: false });
        }
        CIPHERTEXT.with_borrow_mut(|ciphertext| {
            ciphertext.resize(TLS_READ_BYTES, 0);
            let most = ciphertext.len().min(into.len());
            for _ in 0..TLS_READS_MAX {
                let Some(session) = &mut self.tls else { break };
                let got = socket::receive(fd, &mut ciphertext[..most])?;
                if got == 0 {
                    return Ok(Got { bytes: 0, has_more: false });
                }
                let fed = session.feed(&mut ciphertext[..got], into);
                let (is_over, is_ended) = (session.is_over(), session.is_ended());
                match self.flush() {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
                match fed {
                    Err(_) => return Err(ErrorKind::InvalidData.into()),
                    Ok(0) if is_ended => {
                        self.part();
                        return Ok(Got { bytes: 0, has_more: false });
                    }
                    Ok(0) => {}
                    Ok(bytes) => return Ok(Got { bytes, has_more: got == most || is_over || is_ended }),
                }
            }
            Err(ErrorKind::Interrupted.into())
        })
    }

    /// Writes what the socket takes of `bytes`, or `WouldBlock`.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.tls {
            None => socket::send(self.as_raw_fd(), bytes),
            Some(_) => self.send_secured(&[bytes]),
        }
    }

    /// Writes what the socket takes of `pieces`, the front first, or `WouldBlock`.
    pub fn send_gathered(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        match self.tls {
            None => socket::send_gathered(self.as_raw_fd(), pieces, &mut Vec::with_capacity(pieces.len())),
            Some(_) => self.send_secured(pieces),
        }
    }

    /// What is taken is encrypted, and the last of it may still be unsent: [`Stream::owes`].
    fn send_secured(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        self.flush()?;
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut taken = 0;
        while taken < all {
            taken += self.seal(&behind(pieces, taken))?;
            match self.flush() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(session) = &mut self.tls {
            session.take_sealed();
        }
        Ok(taken)
    }

    /// Encrypts the beginning of `pieces`, at most `TLS_SEALED_BYTES_MAX`: it is then unsent. Says how much.
    pub fn seal(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return Err(ErrorKind::Unsupported.into()) };
        session.seal(pieces, TLS_SEALED_BYTES_MAX).map_err(|_| ErrorKind::BrokenPipe.into())
    }

    /// What was encrypted and the socket has not taken. It has to go before anything else does.
    pub fn unsent(&self) -> &[u8] {
        self.tls.as_ref().map_or(&[], |session| session.unsent())
    }

    /// Whether anything is unsent.
    pub fn owes(&self) -> bool {
        !self.unsent().is_empty()
    }

    /// The socket took so much of the unsent. Gives back how much plaintext was encrypted since this was called.
    pub fn sent(&mut self, bytes: usize) -> usize {
        let Some(session) = &mut self.tls else { return 0 };
        session.sent(bytes);
        session.take_sealed()
    }

    /// Writes what is unsent; `WouldBlock`: some still is.
    pub fn flush(&mut self) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        let Some(session) = &mut self.tls else { return Ok(()) };
        while !session.unsent().is_empty() {
            let took = socket::send(fd, session.unsent())?;
            session.sent(took);
        }
        Ok(())
    }

    /// What became of the handshake since this was asked.
    pub fn news(&mut self) -> Option<News> {
        self.tls.as_mut()?.news()
    }

    /// Whether there is something to read that was taken from the socket already.
    pub fn has_over(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| session.is_over())
    }

    /// Bytes of buffers that go with it.
    pub fn bytes_held(&self) -> usize {
        self.tls.as_ref().map_or(0, |session| session.bytes_held())
    }

    /// Says goodbye, where one does: nothing is sent behind it, and what still comes is not looked at.
    pub fn part(&mut self) {
        if let Some(session) = &mut self.tls {
            session.part();
            // A socket that is full is not waited for.
            let _ = self.flush();
        }
    }

    pub fn shut(&mut self, what: Shut) {
        if what == Shut::Sending {
            self.part();
        }
        socket::shut(self.as_raw_fd(), what);
    }

    /// The same socket by the lowest number that is free.
    pub fn renumbered(mut self) -> Stream {
        if let Ok(fd) = self.fd.try_clone() {
            self.fd = fd;
        }
        self
    }
}

/// What is left of `pieces` behind their first `bytes`.
fn behind<'a>(pieces: &[&'a [u8]], bytes: usize) -> Vec<&'a [u8]> {
    let mut skip = bytes;
    let rest = pieces.iter().map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        &piece[skipped..]
    });
    rest.filter(|piece| !piece.is_empty()).collect()
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Stream {
        Stream { fd, tls: None }
    }
}

#[cfg(test)]
impl From<std::os::unix::net::UnixStream> for Stream {
    fn from(socket: std::os::unix::net::UnixStream) -> Stream {
        OwnedFd::from(socket).into()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
