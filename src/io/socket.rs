//! The system calls on sockets that must not wait. Invariant: nothing here blocks, whatever the
//! descriptor's own flags say, so no peer can stop a shard.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Pieces that one gathered write may name.
pub const PIECES_MAX: usize = 1_024;

/// What a listener gives to every socket that it accepts: Linux copies these options, so an accept
/// costs no further call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// Connections that wait to be accepted, per shard.
    pub backlog: i32,
    /// Bytes that the kernel queues unsent before it calls a socket full. Without it a reader that
    /// stands still swallows megabytes, and bounds on outboxes are fiction.
    pub notsent_lowat: u32,
    /// Small frames leave at once instead of waiting for the peer to acknowledge earlier ones.
    pub nodelay: bool,
    /// `None`: the kernel sizes its buffers itself.
    pub send_buffer_bytes: Option<usize>,
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            backlog: 4_096,
            notsent_lowat: 64 * 1024,
            nodelay: true,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

/// A listener that shares `address` with its siblings; port 0 picks a free one.
pub fn listen(address: SocketAddr, options: &SocketOptions) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    set_listener(&socket, options)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// Has a listener give `options` to what it accepts from now on.
pub fn set_listener(socket: &socket2::Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// Sees to it that programs which this one starts do not get `fd`. Fails where nothing is open there.
pub fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes integers; what is not open yields an error.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes one connection and says whose it is, or `WouldBlock`.
pub fn accept(listener: RawFd) -> io::Result<(OwnedFd, IpAddr)> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: all zeroes is an address of no family.
    let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `peer`; the descriptor is
    // only a number here.
    let fd = unsafe { libc::accept4(listener, (&raw mut peer).cast(), &mut len, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` and nobody else knows it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, address_of(&peer)))
}

/// Whose socket it is.
pub fn peer(fd: RawFd) -> io::Result<IpAddr> {
    // SAFETY: all zeroes is an address of no family.
    let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `peer`.
    match unsafe { libc::getpeername(fd, (&raw mut peer).cast(), &mut len) } {
        0 => Ok(address_of(&peer)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn address_of(address: &libc::sockaddr_storage) -> IpAddr {
    let address = &raw const *address;
    // SAFETY: the pointer is that of a whole storage, which begins with its family.
    match i32::from(unsafe { (*address).ss_family }) {
        libc::AF_INET => {
            // SAFETY: a storage has room for every kind of address and is aligned for all; this one
            // is of this family.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)).to_canonical()
        }
        // Sockets without addresses are of this machine.
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Reads what is there, or `WouldBlock`. Zero: the peer sends no more.
pub fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, into, 0)
}

/// The same, but that what is there stays there.
pub fn peek(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, into, libc::MSG_PEEK)
}

fn receive_with(fd: RawFd, into: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one exclusive slice.
    let got = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), flags | libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes what the socket takes of `bytes`, or `WouldBlock`.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of one slice, which the kernel only reads.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes what the socket takes of `pieces`, the front first, or `WouldBlock`. Looks at
/// [`PIECES_MAX`] of them at most. `scratch` keeps its memory between calls and nothing else.
pub fn send_gathered(fd: RawFd, pieces: &[&[u8]], scratch: &mut Vec<libc::iovec>) -> io::Result<usize> {
    if let [only] = pieces {
        return send(fd, only);
    }
    let as_vector = |piece: &&[u8]| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
    scratch.clear();
    scratch.extend(pieces.iter().take(PIECES_MAX).map(as_vector));
    // SAFETY: a zeroed header is a valid one: no name, no control data, no pieces.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = scratch.as_mut_ptr();
    message.msg_iovlen = scratch.len() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: each vector is pointer and length of a piece that is borrowed until we return, and a
    // send only reads what they point at.
    let sent = unsafe { libc::sendmsg(fd, &message, flags) };
    // No pointer outlives what it points at.
    scratch.clear();
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Which directions of a socket end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    /// The peer reads to the end of what was sent, then sees the end.
    Sending,
    /// As well, every task that waits for the socket wakes.
    Both,
}

/// Fails only when the peer has already gone, which its reader notices by itself.
pub fn shut(fd: RawFd, what: Shut) {
    let how = match what {
        Shut::Sending => libc::SHUT_WR,
        Shut::Both => libc::SHUT_RDWR,
    };
    // SAFETY: takes two integers; a descriptor of another kind yields an error.
    unsafe { libc::shutdown(fd, how) };
}

/// Makes the coming close of `socket` a reset: what was not sent is thrown away.
pub fn reset_on_close(socket: &impl std::os::fd::AsFd) {
    // A failure leaves an ordinary close, which the kernel ends by its own time-outs.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Has the system end a connection whose peer has acknowledged nothing for this long (`RFC 5482`).
pub fn abandon_after(socket: &impl std::os::fd::AsFd, time: Duration) {
    // Sockets without a network below have nobody who could vanish.
    let _ = socket2::SockRef::from(socket).set_tcp_user_timeout(Some(time));
}

/// A counter that wakes its reader: zero until somebody adds.
pub fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `fd` and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `event` readable.
pub fn event_raise(event: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes of a local array. It fails only at the counter's end, and then the event
    // is readable anyway.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Makes `event` unreadable until it is raised again.
pub fn event_clear(event: RawFd) {
    let mut count = [0u8; 8];
    // SAFETY: eight bytes of a local array; an unraised event yields `WouldBlock`.
    unsafe { libc::read(event, count.as_mut_ptr().cast(), count.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair(options: &SocketOptions) -> (OwnedFd, TcpStream) {
        let listener = listen(([127, 0, 0, 1], 0).into(), options).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = loop {
            match accept(listener.as_raw_fd()) {
                Ok((server, _)) => break server,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        (server, client)
    }

    #[test]
    fn accepted_sockets_have_the_options_of_their_listener() {
        let (server, _client) = pair(&SocketOptions::default());
        let server = socket2::SockRef::from(&server);
        assert!(server.tcp_nodelay().unwrap());
        assert_eq!(server.tcp_notsent_lowat().unwrap(), 64 * 1024);
        assert!(server.nonblocking().unwrap());
    }

    #[test]
    fn a_profile_sets_the_options() {
        let options = SocketOptions {
            nodelay: false,
            notsent_lowat: 7_000,
            send_buffer_bytes: Some(30_000),
            receive_buffer_bytes: Some(20_000),
            ..SocketOptions::default()
        };
        let (server, _client) = pair(&options);
        let server = socket2::SockRef::from(&server);
        assert!(!server.tcp_nodelay().unwrap());
        assert_eq!(server.tcp_notsent_lowat().unwrap(), 7_000);
        // The kernel doubles what it is asked for, to have room for its own.
        assert_eq!((server.send_buffer_size().unwrap(), server.recv_buffer_size().unwrap()), (60_000, 40_000));
    }

    #[test]
    fn an_accepted_socket_says_whose_it_is() {
        for (host, bind, expected) in
            [("127.0.0.1", "127.4.5.6", "127.4.5.6"), ("::1", "::1", "::1"), ("::", "127.4.5.6", "127.4.5.6")]
        {
            let address = SocketAddr::new(host.parse().unwrap(), 0);
            let Ok(listener) = listen(address, &SocketOptions::default()) else {
                assert!(address.is_ipv6(), "every machine has an IPv4 loopback");
                continue;
            };
            let from: SocketAddr = SocketAddr::new(bind.parse().unwrap(), 0);
            let client = socket2::Socket::new(socket2::Domain::for_address(from), socket2::Type::STREAM, None).unwrap();
            client.bind(&from.into()).unwrap();
            let to = SocketAddr::new(
                if from.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap(),
                listener.local_addr().unwrap().port(),
            );
            client.connect(&to.into()).unwrap();
            let peer = loop {
                match accept(listener.as_raw_fd()) {
                    Ok((socket, peer)) => break (peer, socket),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!(peer.0.to_string(), expected);
            assert_eq!(super::peer(peer.1.as_raw_fd()).unwrap().to_string(), expected, "later too");
        }
    }

    #[test]
    fn siblings_share_a_port() {
        let options = SocketOptions::default();
        let first = listen(([127, 0, 0, 1], 0).into(), &options).unwrap();
        let second = listen(first.local_addr().unwrap(), &options).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        assert!(TcpListener::bind(first.local_addr().unwrap()).is_err(), "strangers do not");
    }

    #[test]
    fn pieces_arrive_joined_and_in_order() {
        for count in [1usize, 2, 16, 17, 300] {
            let (server, mut client) = pair(&SocketOptions::default());
            let pieces: Vec<Vec<u8>> = (0..count).map(|piece| vec![piece as u8; piece % 5 + 1]).collect();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let sent = send_gathered(server.as_raw_fd(), &pieces, &mut Vec::new()).unwrap();
            assert_eq!(sent, pieces.concat().len());
            let mut got = vec![0; sent];
            client.read_exact(&mut got).unwrap();
            assert_eq!(got, pieces.concat());
        }
    }

    #[test]
    fn a_full_or_empty_socket_answers_instead_of_waiting() {
        let (server, mut client) = pair(&SocketOptions::default());
        // Even a descriptor that is set to wait does not.
        socket2::SockRef::from(&server).set_nonblocking(false).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(server.as_raw_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let chunk = vec![0u8; 1 << 20];
        let full = loop {
            if let Err(error) = send(server.as_raw_fd(), &chunk) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        shut(server.as_raw_fd(), Shut::Both);
        assert_eq!(send(server.as_raw_fd(), b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe, "and no signal");
    }

    #[test]
    fn a_reset_is_seen_as_one() {
        let (server, mut client) = pair(&SocketOptions::default());
        reset_on_close(&server);
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
