//! Egress: how bytes reach sockets. Invariant: nothing that was offered is touched after
//! [`Egress::settle`] has returned, and each offer is answered by exactly one [`Sent`], in order.

use crate::io::socket::{self, PIECES_MAX};
use crate::kernel::ids::ConnId;
use std::io;
use std::os::fd::RawFd;

/// Two steps, so that an implementation may submit all offers at once.
pub trait Egress {
    /// Offers `pieces`, the front first, to a socket. At least one piece, none of them empty.
    ///
    /// # Safety
    /// What the pieces name stays where it is and unchanged until [`Egress::settle`] returns.
    unsafe fn offer(&mut self, conn: ConnId, fd: RawFd, pieces: &[&[u8]]);

    /// Appends the outcome of every offer since the last call.
    fn settle(&mut self, sent: &mut Vec<Sent>);
}

/// What became of one offer.
#[derive(Debug)]
pub struct Sent {
    pub conn: ConnId,
    /// Bytes that were offered to the kernel.
    pub asked: usize,
    /// Bytes that it took. `WouldBlock`: none, for now.
    pub result: io::Result<usize>,
}

/// One non-blocking system call for each offer.
#[derive(Default)]
pub struct Direct {
    sent: Vec<Sent>,
    vectors: Vec<libc::iovec>,
}

impl Egress for Direct {
    unsafe fn offer(&mut self, conn: ConnId, fd: RawFd, pieces: &[&[u8]]) {
        let asked = pieces.iter().take(PIECES_MAX).map(|piece| piece.len()).sum();
        let result = socket::send_gathered(fd, pieces, &mut self.vectors);
        self.sent.push(Sent { conn, asked, result });
    }

    fn settle(&mut self, sent: &mut Vec<Sent>) {
        sent.append(&mut self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn each_offer_is_answered_in_order() {
        let conn = |slot| ConnId(Key { slot, generation: 0 });
        let (first, mut first_peer) = UnixStream::pair().unwrap();
        let (second, second_peer) = UnixStream::pair().unwrap();
        drop(second_peer);
        let mut egress = Direct::default();
        // SAFETY: the pieces are static.
        unsafe {
            egress.offer(conn(1), first.as_raw_fd(), &[b"ab", b"c"]);
            egress.offer(conn(2), second.as_raw_fd(), &[b"x"]);
        }
        let mut sent = Vec::new();
        egress.settle(&mut sent);
        assert_eq!(sent.len(), 2);
        assert_eq!((sent[0].conn, sent[0].asked, sent[0].result.as_ref().ok()), (conn(1), 3, Some(&3)));
        assert_eq!(sent[1].result.as_ref().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut got = [0; 3];
        first_peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abc");
        egress.settle(&mut sent);
        assert_eq!(sent.len(), 2, "nothing is answered twice");
    }
}
