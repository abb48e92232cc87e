//! Flushing: from outboxes to sockets, one gathered write for each connection that has something.
//! Invariant: what a flush offers is written or given back to the core before it returns; whatever
//! could not be written whole waits until its socket says that it takes more.

use super::{Edge, State};
use crate::base::limits::WRITE_BYTES_MAX;
use crate::io::dirty::Dirty;
use crate::io::egress::{Egress, Sent};
use crate::io::joined::Joined;
use crate::io::rows::{Row, Standing};
use crate::io::socket::{PIECES_MAX, Shut};
use crate::kernel::ids::ConnId;
use crate::shard::Input;
use std::os::fd::AsRawFd;

/// What waits to be written, and what one flush after the other needs.
#[derive(Default)]
pub(super) struct Flushing {
    /// Connections to write to.
    pub dirty: Dirty,
    /// Connections of the present flush that have more than one write names.
    again: Vec<ConnId>,
    sent: Vec<Sent>,
    /// Keeps the memory of the list of pieces between writes.
    pieces: Vec<&'static [u8]>,
    joined: Joined,
}

impl Edge {
    /// Writes to the connections whose turn it is, a bounded number. Says whether more wait.
    pub fn flush(&self, egress: &mut impl Egress) -> bool {
        self.within(|state, now| {
            let State { shard, effects, rows, flushing, .. } = state;
            let Flushing { dirty, again, sent, pieces, joined } = flushing;
            for conn in dirty.next_flush() {
                // Listed twice at most: by the core, and for more than one write takes.
                let is_ready = |row: &&mut Row| !row.is_mute && !row.is_blocked && !row.is_offered;
                let Some(row) = rows.get_mut(conn).filter(is_ready) else { continue };
                let mut named = recycle(std::mem::take(pieces));
                let bytes = shard.gather(conn, &mut named, WRITE_BYTES_MAX);
                if bytes > 0 {
                    row.is_offered = true;
                    again.extend((bytes >= WRITE_BYTES_MAX || named.len() > PIECES_MAX).then_some(conn));
                    let joined = joined.join(&named);
                    let pieces = joined.as_ref().map_or(&named[..], std::slice::from_ref);
                    // SAFETY: the pieces are parts of frames in the connection's outbox, which keeps
                    // them, where they are and as they are, until it is told that they were written:
                    // after `settle`, below. What was joined stays until `clear`, there too.
                    unsafe { egress.offer(conn, row.socket.as_raw_fd(), pieces) };
                }
                *pieces = recycle(named);
            }
            egress.settle(sent);
            joined.clear();
            again.drain(..).for_each(|conn| dirty.list_again(conn));
            let mut counters = self.counters.borrow_mut();
            for Sent { conn, asked, result } in sent.drain(..) {
                let Some(row) = rows.get_mut(conn) else { continue };
                row.is_offered = false;
                counters.writes += 1;
                let took = match result {
                    Ok(took) => took,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    Err(_) => {
                        // The peer has gone; the reader finds the end in its socket.
                        row.mute(Shut::Both);
                        continue;
                    }
                };
                counters.bytes_out += took as u64;
                if took > 0 {
                    shard.step(now, Input::Wrote { conn, bytes: took }, effects);
                }
                if took < asked {
                    counters.writes_short += 1;
                    row.is_blocked = true;
                    shard.step(now, Input::Blocked { conn }, effects);
                } else if row.standing == Standing::Closing && shard.is_finished(conn) {
                    row.mute(Shut::Sending);
                }
            }
            drop(counters);
            !dirty.is_empty()
        })
    }
}

/// The same memory for pieces of another lifetime: the list is emptied, and the standard library
/// collects a mapped vector in place.
fn recycle<'a>(mut pieces: Vec<&[u8]>) -> Vec<&'a [u8]> {
    pieces.clear();
    pieces.into_iter().map(|_| -> &'a [u8] { unreachable!("the list is empty") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::edge::sample::{edge, open};
    use crate::io::runtime::{self, Driver};
    use std::os::fd::RawFd;

    /// Takes all that it is offered, and remembers it.
    #[derive(Default)]
    struct Recorder {
        bytes: Vec<u8>,
        sent: Vec<Sent>,
    }

    impl Egress for Recorder {
        unsafe fn offer(&mut self, conn: ConnId, _: RawFd, pieces: &[&[u8]]) {
            let before = self.bytes.len();
            pieces.iter().take(PIECES_MAX).for_each(|piece| self.bytes.extend_from_slice(piece));
            let asked = self.bytes.len() - before;
            self.sent.push(Sent { conn, asked, result: Ok(asked) });
        }

        fn settle(&mut self, sent: &mut Vec<Sent>) {
            sent.append(&mut self.sent);
        }
    }

    #[test]
    fn more_than_one_write_names_leaves_once_and_in_order() {
        const FIRST: usize = 3 * PIECES_MAX;
        let recorded = runtime::block_on(Driver::Epoll, async {
            let edge = edge(Driver::Epoll);
            let (conn, _peer) = open(&edge, "alice");
            let say = |message: &str| edge.step(Input::Text { conn, message: message.as_bytes() });
            say(r#"{"event":"room:join","data":{"room":"chat:1"}}"#);
            let publish = r#"{"event":"room:publish","data":{"room":"chat:1","event":"chat","data":0}}"#;
            (0..FIRST).for_each(|_| say(publish));
            let mut egress = Recorder::default();
            while edge.flush(&mut egress) {
                // The core lists the connection anew while the edge still has it listed.
                say(publish);
            }
            String::from_utf8_lossy(&egress.bytes).into_owned()
        });
        let recorded = recorded.unwrap();
        let seqs: Vec<usize> = recorded
            .split("\"seq\":")
            .skip(1)
            .map(|rest| rest.split(|char: char| !char.is_ascii_digit()).next().unwrap().parse().unwrap())
            .collect();
        assert!(seqs.len() > FIRST);
        assert_eq!(seqs, (1..=seqs.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_recycled_list_keeps_its_memory() {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(100);
        pieces.push(b"x");
        let before = (pieces.as_ptr() as usize, pieces.capacity());
        let pieces: Vec<&'static [u8]> = recycle(pieces);
        assert_eq!((pieces.as_ptr() as usize, pieces.capacity()), before);
        assert!(pieces.is_empty());
    }
}
