//! The pump, one task per connection: from the socket to the core.
//! Invariant: between two reads a connection owns no buffer, unless the core has asked it to wait
//! in the middle of one; at most `READ_BYTES_PER_TURN` are read before others have their turn.

use crate::base::limits::{DISCARD_BYTES_MAX, MAILS_PER_READ};
use crate::io::edge::{Edge, Fed, Opened, Standing};
use crate::io::socket;
use crate::kernel::ids::ConnId;
use crate::wire::assembler::{Assembler, MessageLimits};
use monoio::net::TcpStream;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

/// Reads until the connection ends, then tells the core. `rest` came behind the request head.
pub async fn run(edge: Rc<Edge>, opened: Opened, rest: Vec<u8>) {
    let Opened { conn, stream } = opened;
    if converse(&edge, conn, &stream, rest).await == Outcome::Closing {
        see_out(&edge, conn, &stream).await;
    }
    edge.gone(conn);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The core says goodbye; the peer is heard no more.
    Closing,
    /// The socket has ended.
    Ended,
}

async fn converse(edge: &Rc<Edge>, conn: ConnId, stream: &TcpStream, rest: Vec<u8>) -> Outcome {
    let mut assembler = Assembler::new(MessageLimits::default());
    let mut held = rest;
    loop {
        match poll_fn(|context| edge.poll_unpaused(conn, context)).await {
            Standing::Open => {}
            Standing::Closing => return Outcome::Closing,
            Standing::Reset => return Outcome::Ended,
        }
        if !held.is_empty() {
            let mut at = 0;
            match edge.feed(conn, &mut assembler, &mut held, &mut at) {
                Fed::All => held = Vec::new(),
                Fed::Paused => drop(held.drain(..at)),
                Fed::Ending => return Outcome::Closing,
            }
            continue;
        }
        if stream.readable(false).await.is_err() {
            return Outcome::Ended;
        }
        match edge.standing(conn) {
            Standing::Open => {}
            Standing::Closing => return Outcome::Closing,
            Standing::Reset => return Outcome::Ended,
        }
        // Work that other shards have begun goes before work that clients begin: else a turn of many
        // reads fills the lanes faster than it empties them.
        edge.take_mail(MAILS_PER_READ);
        match read(edge, conn, stream, &mut assembler, &mut held) {
            Ok(Fed::All | Fed::Paused) => {}
            Ok(Fed::Ending) => return Outcome::Closing,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Outcome::Ended,
        }
        if !edge.driver.is_ring() {
            // The ring is asked by the next wait; epoll would answer it from memory.
            edge.turn.next().await;
        }
    }
}

/// One read and what it brings. What the core does not want yet is put into `held`.
fn read(
    edge: &Rc<Edge>,
    conn: ConnId,
    stream: &TcpStream,
    assembler: &mut Assembler,
    held: &mut Vec<u8>,
) -> io::Result<Fed> {
    edge.with_input(|input| {
        let got = socket::receive(stream.as_raw_fd(), input)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        edge.count(|counters| {
            counters.reads += 1;
            counters.bytes_in += got as u64;
        });
        let mut at = 0;
        let fed = edge.feed(conn, assembler, &mut input[..got], &mut at);
        if fed == Fed::Paused {
            held.extend_from_slice(&input[at..got]);
        }
        Ok(fed)
    })
}

/// Throws away what the peer still sends until it closes too. The core bounds the time, with a
/// reset; a peer that sends on and on is not waited for.
async fn see_out(edge: &Rc<Edge>, conn: ConnId, stream: &TcpStream) {
    let mut discarded = 0;
    while discarded < DISCARD_BYTES_MAX {
        if stream.readable(false).await.is_err() || edge.standing(conn) == Standing::Reset {
            return;
        }
        match edge.with_input(|input| socket::receive(stream.as_raw_fd(), input)) {
            Ok(0) => return,
            Ok(got) => discarded += got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if !edge.driver.is_ring() {
            edge.turn.next().await;
        }
    }
}
