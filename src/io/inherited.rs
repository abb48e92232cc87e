//! Listeners that whoever started the process has opened already and goes on holding, so that clients
//! who connect while no gateway runs wait instead of being refused.
//! Invariant: such a listener is never shut down, only let go of: what waits in it is for who comes next.

use crate::io::socket::{self, SocketOptions};
use socket2::{SockRef, Socket};
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that is handed over (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;

/// Takes the `count` descriptors behind standard error that were handed over: all of them, in their
/// order. To be called once, before anything is opened: afterwards they would be somebody else's.
pub fn take(count: usize) -> io::Result<Vec<TcpListener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "what is handed over is taken once");
    (0..count).map(|nth| listener(FIRST + nth as RawFd)).collect()
}

/// `fd` as a listener, if it is one.
fn listener(fd: RawFd) -> io::Result<TcpListener> {
    socket::close_on_exec(fd)?;
    // SAFETY: the call above says that it is open. Whoever started us opened it for us, and nobody
    // else in this process knows it.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let is_tcp = socket.r#type().ok() == Some(socket2::Type::STREAM)
        && socket.local_addr().is_ok_and(|address| address.as_socket().is_some());
    if !is_tcp || !socket.is_listener().unwrap_or(false) {
        return Err(io::Error::other(format!("descriptor {fd} is no listening TCP socket; ListenStream= opens one")));
    }
    // Shared with who gave it, to whom it makes no difference.
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Deals `listeners` out: each shard has one at least and each listener a shard at least. Shards that
/// share a listener each hold a descriptor of it; the kernel keeps one queue of connections for them.
pub fn deal(listeners: Vec<TcpListener>, shards: usize, options: &SocketOptions) -> io::Result<Vec<Vec<TcpListener>>> {
    assert!(!listeners.is_empty(), "who was handed nothing listens itself");
    for listener in &listeners {
        socket::set_listener(&SockRef::from(listener), options)?;
        SockRef::from(listener).listen(options.backlog)?;
    }
    let count = listeners.len();
    let mut dealt: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for shard in count..shards {
        dealt[shard].push(listeners[shard % count].try_clone()?);
    }
    for (nth, listener) in listeners.into_iter().enumerate() {
        dealt[nth % shards].push(listener);
    }
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn open() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn addresses(dealt: &[Vec<TcpListener>]) -> Vec<Vec<SocketAddr>> {
        dealt.iter().map(|own| own.iter().map(|one| one.local_addr().unwrap()).collect()).collect()
    }

    #[test]
    fn every_shard_has_a_listener_and_every_listener_a_shard() {
        let options = SocketOptions::default();
        for (count, shards, expected) in [
            (1, 1, vec![vec![0]]),
            (1, 3, vec![vec![0], vec![0], vec![0]]),
            (2, 2, vec![vec![0], vec![1]]),
            (2, 3, vec![vec![0], vec![1], vec![0]]),
            (3, 2, vec![vec![0, 2], vec![1]]),
        ] {
            let listeners: Vec<_> = (0..count).map(|_| open()).collect();
            let at: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap()).collect();
            let expected: Vec<Vec<_>> = expected.iter().map(|own| own.iter().map(|nth| at[*nth]).collect()).collect();
            assert_eq!(addresses(&deal(listeners, shards, &options).unwrap()), expected, "{count} for {shards}");
        }
    }

    #[test]
    fn what_was_handed_over_gives_its_sockets_the_options_of_the_configuration() {
        let handed = listener(open().into_raw_fd()).unwrap();
        let dealt = deal(vec![handed], 1, &SocketOptions { notsent_lowat: 7_000, ..Default::default() }).unwrap();
        let client = TcpStream::connect(dealt[0][0].local_addr().unwrap()).unwrap();
        let accepted = loop {
            match socket::accept(dealt[0][0].as_raw_fd()) {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it never waits"),
            }
        };
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 7_000);
        drop(client);
    }

    #[test]
    fn what_is_no_listener_is_refused() {
        assert_eq!(listener(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap().into_raw_fd();
        assert!(listener(datagrams).unwrap_err().to_string().contains("ListenStream"));
        let calm = open();
        let connected = TcpStream::connect(calm.local_addr().unwrap()).unwrap().into_raw_fd();
        assert!(listener(connected).unwrap_err().to_string().contains("no listening"));
        let local =
            std::os::unix::net::UnixListener::bind(std::env::temp_dir().join(format!("rr-{}", std::process::id())));
        assert!(listener(local.unwrap().into_raw_fd()).is_err());
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("rr-{}", std::process::id())));
    }
}
