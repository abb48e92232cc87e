//! Egress through a ring of its own, apart from the runtime's: a flush is one system call, however
//! many sockets it writes to.
//! Each send is told not to wait and to take all or say so; the kernel finishes it inside the
//! submission, and one that took everything leaves no completion. So when [`Egress::settle`]
//! returns, nothing is under way, and what was offered may go.
//! Invariant: `offers` are what is queued in the ring, in order; both are empty between flushes.

use crate::io::egress::{Egress, Sent};
use crate::io::socket::{self, PIECES_MAX};
use crate::kernel::ids::ConnId;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// Times that a submission which the kernel has no memory for is tried again.
const SUBMITS_MAX: usize = 1_000;

pub struct Ring {
    ring: IoUring,
    offers: Vec<Sent>,
    /// What gathered sends point at while they are queued, one for each place in the ring. Never
    /// moved; used again by the next flush.
    gathers: Box<[Gather]>,
    gathers_used: usize,
}

struct Gather {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
}

impl Default for Gather {
    fn default() -> Self {
        // SAFETY: a zeroed header is a valid one: no name, no control data, no pieces.
        Gather { header: unsafe { std::mem::zeroed() }, vectors: Vec::new() }
    }
}

impl Ring {
    /// Fails where io_uring is refused, and on kernels (before 5.19) that keep quiet about a send
    /// that was cut short.
    ///
    /// A submission holds `writes` of them.
    pub fn new(writes: usize) -> io::Result<Ring> {
        let mut ring = Ring {
            ring: IoUring::builder().build(writes as u32)?,
            offers: Vec::with_capacity(writes),
            gathers: (0..writes).map(|_| Gather::default()).collect(),
            gathers_used: 0,
        };
        ring.prove()?;
        Ok(ring)
    }

    /// Sends until a socket takes no more: every byte must be accounted for.
    fn prove(&mut self) -> io::Result<()> {
        let quiet = || io::Error::new(io::ErrorKind::Unsupported, "this kernel does not tell of sends cut short");
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let conn = ConnId(crate::base::table::Key { slot: 0, generation: 0 });
        let chunk = vec![0u8; 100_003];
        let (mut sent, mut told, mut is_full) = (Vec::new(), 0, false);
        for _ in 0..1_000 {
            // SAFETY: `chunk` lives until `settle` has returned.
            unsafe { self.offer(conn, ours.as_raw_fd(), &[&chunk]) };
            self.settle(&mut sent);
            match sent.pop().map(|sent| sent.result) {
                Some(Ok(took)) => told += took,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    is_full = true;
                    break;
                }
                Some(Err(error)) => return Err(error),
                None => return Err(quiet()),
            }
        }
        let mut read = 0;
        let mut buffer = vec![0u8; 1 << 16];
        while let Ok(took) = socket::receive(theirs.as_raw_fd(), &mut buffer) {
            read += took;
        }
        if is_full && read == told { Ok(()) } else { Err(quiet()) }
    }

    /// The header of a gathered send of `pieces`, for as long as the flush lasts.
    fn gather(&mut self, pieces: &[&[u8]]) -> *const libc::msghdr {
        let gather = &mut self.gathers[self.gathers_used];
        self.gathers_used += 1;
        let as_vector =
            |piece: &&[u8]| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        gather.vectors.clear();
        gather.vectors.extend(pieces.iter().map(as_vector));
        gather.header.msg_iov = gather.vectors.as_mut_ptr();
        gather.header.msg_iovlen = gather.vectors.len() as _;
        &gather.header
    }

    /// Lets the kernel do what is queued and notes what it could not do whole.
    fn finish(&mut self) {
        if self.ring.submission().is_empty() {
            return;
        }
        self.submit();
        for completion in self.ring.completion() {
            let offer = &mut self.offers[completion.user_data() as usize];
            offer.result =
                usize::try_from(completion.result()).map_err(|_| io::Error::from_raw_os_error(-completion.result()));
        }
        self.gathers_used = 0;
    }

    fn submit(&mut self) {
        for _ in 0..SUBMITS_MAX {
            let submitted = self.ring.submit();
            if self.ring.submission().is_empty() {
                return;
            }
            match submitted {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => panic!("the ring of the writes failed: {error}"),
            }
        }
        // Returning would let go of memory that the ring still names.
        panic!("the kernel has no memory for writes");
    }
}

impl Egress for Ring {
    unsafe fn offer(&mut self, conn: ConnId, fd: RawFd, pieces: &[&[u8]]) {
        let pieces = &pieces[..pieces.len().min(PIECES_MAX)];
        let asked: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.ring.submission().is_full() {
            self.finish();
        }
        // All or a completion that says how much; never wait for room.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = match pieces {
            [only] => opcode::Send::new(types::Fd(fd), only.as_ptr(), only.len() as u32).flags(flags).build(),
            _ => opcode::SendMsg::new(types::Fd(fd), self.gather(pieces)).flags(flags as u32).build(),
        };
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(self.offers.len() as u64);
        // SAFETY: what the entry points at are the pieces, which the caller keeps until `settle`
        // returns, and a gather that is not used again before; by then the kernel is done with it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the ring holds a whole flush");
        self.offers.push(Sent { conn, asked, result: Ok(asked) });
    }

    fn settle(&mut self, sent: &mut Vec<Sent>) {
        self.finish();
        sent.append(&mut self.offers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;
    use std::io::Read;

    const WRITES: usize = 256;

    fn conn(slot: u32) -> ConnId {
        ConnId(Key { slot, generation: 0 })
    }

    fn ring() -> Option<Ring> {
        // Where io_uring is refused there is nothing to test: the process tests say so aloud.
        Ring::new(WRITES).inspect_err(|error| eprintln!("no ring here: {error}")).ok()
    }

    #[test]
    fn each_offer_is_answered_in_order_whatever_became_of_it() {
        let Some(mut ring) = ring() else { return };
        let (whole, mut whole_peer) = UnixStream::pair().unwrap();
        let (gone, gone_peer) = UnixStream::pair().unwrap();
        let (full, mut full_peer) = UnixStream::pair().unwrap();
        drop(gone_peer);
        full.set_nonblocking(true).unwrap();
        let large = vec![7u8; 4 << 20];
        let mut sent = Vec::new();
        // SAFETY: all that is offered outlives `settle`.
        unsafe {
            ring.offer(conn(1), whole.as_raw_fd(), &[b"ab", b"c", b"defg"]);
            ring.offer(conn(2), gone.as_raw_fd(), &[b"x"]);
            ring.offer(conn(3), full.as_raw_fd(), &[&large]);
            ring.offer(conn(4), full.as_raw_fd(), &[b"y"]);
        }
        ring.settle(&mut sent);
        assert_eq!(sent.iter().map(|sent| sent.conn).collect::<Vec<_>>(), [1, 2, 3, 4].map(conn));
        assert_eq!(sent[0].result.as_ref().ok(), Some(&7));
        assert_eq!(sent[1].result.as_ref().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let took = *sent[2].result.as_ref().unwrap();
        assert!(took > 0 && took < large.len(), "cut short, and says so: {took}");
        assert_eq!(sent[3].result.as_ref().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut got = [0; 7];
        whole_peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"abcdefg");
        full_peer.set_nonblocking(true).unwrap();
        let (mut read, mut buffer) = (0, vec![0u8; 1 << 16]);
        while let Ok(took) = full_peer.read(&mut buffer) {
            read += took;
        }
        assert_eq!(read, took, "what was told is what came");
    }

    #[test]
    fn a_flush_larger_than_the_ring_goes_out_whole() {
        let Some(mut ring) = ring() else { return };
        // Several sockets: each holds only so many small messages.
        let mut pairs: Vec<_> = (0..16).map(|_| UnixStream::pair().unwrap()).collect();
        let mut sent = Vec::new();
        let rounds = WRITES * 2 / pairs.len() + 1;
        for n in 0..rounds {
            for (ours, _) in &pairs {
                let pieces: &[&[u8]] = if n % 2 == 0 { &[b"a"] } else { &[b"b", b"c"] };
                // SAFETY: the pieces are static.
                unsafe { ring.offer(conn(n as u32), ours.as_raw_fd(), pieces) };
            }
        }
        ring.settle(&mut sent);
        assert_eq!(sent.len(), rounds * pairs.len());
        let expected: String = (0..rounds).map(|n| if n % 2 == 0 { "a" } else { "bc" }).collect();
        for (_, theirs) in &mut pairs {
            let mut got = vec![0; expected.len()];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(got, expected.as_bytes());
        }
        assert!(sent.iter().all(|sent| sent.result.as_ref().ok() == Some(&sent.asked)));
    }
}
