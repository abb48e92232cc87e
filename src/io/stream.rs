//! A client's socket, wherever it travels: from the listener through guests, regulars and rows, and from
//! shard to shard. Invariant: whoever reads or writes a client's bytes does it here, and never waits.

use crate::io::socket::{self, Shut};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

pub struct Stream {
    fd: OwnedFd,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Got {
    /// Zero: the peer sends no more.
    pub bytes: usize,
    /// Another read may find something, though nobody will tell of it.
    pub has_more: bool,
}

impl Stream {
    /// Reads what is there, as much as fits, or `WouldBlock`.
    pub fn receive(&mut self, into: &mut [u8]) -> io::Result<Got> {
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

    /// Writes what the socket takes of `bytes`, or `WouldBlock`.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.as_raw_fd(), bytes)
    }

    /// Writes what the socket takes of `pieces`, the front first, or `WouldBlock`.
    pub fn send_gathered(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        socket::send_gathered(self.as_raw_fd(), pieces, &mut Vec::with_capacity(pieces.len()))
    }

    pub fn shut(&mut self, what: Shut) {
        socket::shut(self.as_raw_fd(), what);
    }

    /// The same socket by the lowest number that is free.
    pub fn renumbered(self) -> Stream {
        match self.fd.try_clone() {
            Ok(fd) => Stream { fd },
            Err(_) => self,
        }
    }
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Stream {
        Stream { fd }
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
