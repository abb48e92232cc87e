//! The TLS of one connection, over rustls' unbuffered interface: records are decrypted where they were
//! read, and what is to be sent is encrypted into memory of ours.
//! Invariant: an idle connection holds no bytes; what is held is a record or a message of the handshake
//! that has not come whole, plaintext that its reader had no room for, or what the socket has not taken
//! yet. Ciphertext leaves in the order in which it was made, so nothing new is encrypted before all of it
//! has gone.

use crate::base::limits::TLS_HELD_BYTES_MAX;
use crate::wire::codes::ErrorCode;
use crate::wire::{handshake, http};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{AlertDescription, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig};
use std::cell::RefCell;
use std::sync::Arc;

/// Plaintext of one record (`RFC 8446` section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// What a record has besides, whatever the version and the cipher: header, nonce, type and tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;
/// Room for one message of the handshake; a larger one asks for more.
const MESSAGE_BYTES: usize = 512;

/// What one is told who speaks HTTP where TLS is spoken.
const PLAIN_HTTP: &str = "this port speaks TLS; ask with https:// or with wss://";

/// What became of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The costly part is done: keys were agreed on, and signed for where it is no resumption.
    Answered,
    /// It is over, and the connection is open.
    Done { version: &'static str, is_resumed: bool },
    /// It came to nothing.
    Failed(&'static str),
}

/// The connection is of no more use. What the peer is told of it is among the unsent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

enum State {
    /// Nothing has come yet.
    Awaited(Arc<ServerConfig>),
    Begun(Box<UnbufferedServerConnection>),
    /// All is said from our side, and what still comes is not looked at.
    Over,
}

pub struct Session {
    state: State,
    /// A part of a record, or of a message of the handshake.
    held: Vec<u8>,
    /// Plaintext that nobody had room for, from `over_at` on.
    over: Vec<u8>,
    over_at: usize,
    /// Ciphertext that the socket has not taken, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    /// Plaintext that was encrypted, and whoever gave it was not told so.
    sealed: usize,
    is_answered: bool,
    is_open: bool,
    /// The peer said that it sends no more.
    is_ended: bool,
    news: Option<News>,
}

thread_local! {
    /// Where small pieces become one record.
    static RECORD: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(RECORD_BYTES));
}

impl Session {
    /// Costs no cryptography before something comes.
    pub fn new(config: Arc<ServerConfig>) -> Session {
        Session {
            state: State::Awaited(config),
            held: Vec::new(),
            over: Vec::new(),
            over_at: 0,
            out: Vec::new(),
            out_at: 0,
            sealed: 0,
            is_answered: false,
            is_open: false,
            is_ended: false,
            news: None,
        }
    }

    /// Takes ciphertext, which is decrypted where it lies. Plaintext goes to the front of `into`, and what
    /// finds no room there is kept. Returns how many bytes are there.
    pub fn feed(&mut self, got: &mut [u8], into: &mut [u8]) -> Result<usize, Broken> {
        let is_first = matches!(self.state, State::Awaited(_));
        if let State::Awaited(config) = &self.state {
            match UnbufferedServerConnection::new(Arc::clone(config)) {
                Ok(connection) => self.state = State::Begun(Box::new(connection)),
                Err(error) => return Err(self.fail(&error)),
            }
        }
        let is_http = is_first && is_http(got);
        let mut held = std::mem::take(&mut self.held);
        let incoming = match held.is_empty() {
            true => &mut *got,
            false => {
                held.extend_from_slice(got);
                &mut held[..]
            }
        };
        let mut sink = Sink { into, at: 0 };
        match self.drive(incoming, &mut sink, None) {
            Ok(used) => {
                let (filled, all) = (sink.at, incoming.len());
                // Behind the peer's last word nothing counts.
                let used = if self.is_ended { all } else { used };
                match held.is_empty() {
                    true => self.held = got[used..].to_vec(),
                    false => {
                        held.drain(..used);
                        if !held.is_empty() {
                            self.held = held;
                        }
                    }
                }
                if all - used > TLS_HELD_BYTES_MAX {
                    return Err(self.fail(&Error::General("a message is too long".into())));
                }
                self.note_progress();
                Ok(filled)
            }
            Err(error) => {
                if is_http {
                    // In its own language, instead of an alert that it would take for an answer.
                    let body = handshake::error_body(ErrorCode::BadRequest, PLAIN_HTTP);
                    self.out = http::response(400, &[("Content-Type", "application/json")], &body, false);
                    self.news = Some(News::Failed("plain_http"));
                    self.close();
                    return Err(Broken);
                }
                Err(self.fail(&error))
            }
        }
    }

    /// Encrypts `pieces`, the front first, and no more than `most` bytes. Returns how many.
    pub fn seal(&mut self, pieces: &[&[u8]], most: usize) -> Result<usize, Broken> {
        let mut held = std::mem::take(&mut self.held);
        let mut sealed = 0;
        let mut write = |traffic: &mut WriteTraffic<'_, _>, out: &mut Vec<u8>| {
            records(pieces, most, |record| {
                encrypt(traffic, record, out)?;
                sealed += record.len();
                Ok(())
            })
        };
        let driven = self.drive(&mut held, &mut Sink { into: &mut [], at: 0 }, Some(&mut write));
        match driven {
            Ok(used) => {
                held.drain(..used);
                self.held = held;
                self.sealed += sealed;
                Ok(sealed)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Says goodbye, behind what is unsent (`RFC 8446` section 6.1). What comes from now on is not looked at.
    pub fn part(&mut self) {
        if self.is_open && !self.is_closed() {
            let mut held = std::mem::take(&mut self.held);
            let mut write = |traffic: &mut WriteTraffic<'_, _>, out: &mut Vec<u8>| {
                append(out, MESSAGE_BYTES, |room| traffic.queue_close_notify(room)).map_err(exhausted)
            };
            // Who cannot be told goodbye sees the end.
            let _ = self.drive(&mut held, &mut Sink { into: &mut [], at: 0 }, Some(&mut write));
        }
        self.close();
    }

    /// Runs the connection over `incoming`, until it wants more, and then has `write` write. Returns how much
    /// of it is used up.
    fn drive(&mut self, incoming: &mut [u8], sink: &mut Sink<'_>, write: Option<Write<'_>>) -> Result<usize, Error> {
        let Session { state, over, out, is_answered, is_ended, news, .. } = self;
        let State::Begun(connection) = state else {
            return Err(Error::General("there is no connection".into()));
        };
        let mut at = 0;
        loop {
            // Even with nothing new: parts of messages are found in it by their places.
            let UnbufferedStatus { mut discard, state, .. } = connection.process_tls_records(&mut incoming[at..]);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    if !matches!(error, Error::AlertReceived(_)) {
                        alert(connection, &mut incoming[at + discard..], out);
                    }
                    return Err(error);
                }
            };
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink.take(record.payload, over);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    append(out, MESSAGE_BYTES, |room| data.encode(room))
                        .map_err(|_| Error::General("a message was encoded twice".into()))?;
                    if !std::mem::replace(is_answered, true) {
                        *news = Some(News::Answered);
                    }
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => *is_ended = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    if let Some(write) = write {
                        write(&mut traffic, out)?;
                    }
                    return Ok(at + discard);
                }
                _ if write.is_some() => return Err(Error::HandshakeNotComplete),
                _ => return Ok(at + discard),
            }
            at += discard;
        }
    }

    /// Nothing more is read or encrypted.
    fn fail(&mut self, error: &Error) -> Broken {
        if !self.is_open {
            self.news = Some(News::Failed(reason(error)));
        }
        self.close();
        Broken
    }

    fn close(&mut self) {
        self.state = State::Over;
        self.held = Vec::new();
    }

    fn note_progress(&mut self) {
        let State::Begun(connection) = &self.state else { return };
        if self.is_open || connection.is_handshaking() {
            return;
        }
        self.is_open = true;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "1.2",
        };
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        self.news = Some(News::Done { version, is_resumed });
    }

    /// What became of the handshake since this was asked.
    pub fn news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// Moves plaintext that was kept to the front of `into`. Returns how many bytes.
    pub fn take_over(&mut self, into: &mut [u8]) -> usize {
        let rest = &self.over[self.over_at..];
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        self.over_at += taken;
        if self.over_at == self.over.len() {
            (self.over, self.over_at) = (Vec::new(), 0);
        }
        taken
    }

    /// Whether there is plaintext that [`Session::take_over`] would find.
    pub fn is_over(&self) -> bool {
        !self.over.is_empty()
    }

    /// Whether the peer said that it sends no more.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether nothing that comes is looked at any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// What the socket is to take before anything else.
    pub fn unsent(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    /// The socket took so much of it.
    pub fn sent(&mut self, bytes: usize) {
        self.out_at += bytes;
        debug_assert!(self.out_at <= self.out.len());
        if self.out_at >= self.out.len() {
            (self.out, self.out_at) = (Vec::new(), 0);
        }
    }

    /// How much plaintext was encrypted since this was asked.
    pub fn take_sealed(&mut self) -> usize {
        std::mem::take(&mut self.sealed)
    }

    /// Ciphertext that waits for its rest.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Bytes of buffers.
    pub fn bytes_held(&self) -> usize {
        self.held.capacity() + self.over.capacity() + self.out.capacity()
    }
}

type Write<'a> = &'a mut dyn FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>) -> Result<(), Error>;

/// Where plaintext goes first.
struct Sink<'a> {
    into: &'a mut [u8],
    at: usize,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8], over: &mut Vec<u8>) {
        let fits = bytes.len().min(self.into.len() - self.at);
        // Once something was kept, all that follows is.
        let fits = if over.is_empty() { fits } else { 0 };
        self.into[self.at..][..fits].copy_from_slice(&bytes[..fits]);
        self.at += fits;
        over.extend_from_slice(&bytes[fits..]);
    }
}

/// Gives `each` the first `most` bytes of `pieces` as records: full ones, and the last.
fn records(pieces: &[&[u8]], most: usize, mut each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    if let [only] = pieces {
        return only[..only.len().min(most)].chunks(RECORD_BYTES).try_for_each(each);
    }
    RECORD.with_borrow_mut(|record| {
        record.clear();
        let mut left = most;
        for piece in pieces {
            let mut rest = &piece[..piece.len().min(left)];
            left -= rest.len();
            while !rest.is_empty() {
                let (fits, behind) = rest.split_at(rest.len().min(RECORD_BYTES - record.len()));
                record.extend_from_slice(fits);
                rest = behind;
                if record.len() == RECORD_BYTES {
                    each(record)?;
                    record.clear();
                }
            }
        }
        if record.is_empty() { Ok(()) } else { each(record) }
    })
}

fn encrypt(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    record: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    append(out, record.len() + RECORD_OVERHEAD, |room| traffic.encrypt(record, room)).map_err(exhausted)
}

/// Appends what the peer is to be told of a failure. `incoming`: what was not used up.
fn alert(connection: &mut UnbufferedServerConnection, incoming: &mut [u8], out: &mut Vec<u8>) {
    // What is to be said comes before anything is read, and may be several records: over 1.3 the beginning of the
    // answer, then the alert. Asked for more than there is, rustls would read on, fail again and panic over a
    // second alert.
    while connection.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.process_tls_records(incoming).state
        // Without it the peer sees the end alone.
        && append(out, MESSAGE_BYTES, |room| data.encode(room)).is_ok()
    {}
}

/// Keys that were used as often as they may be.
fn exhausted(_: EncryptError) -> Error {
    Error::EncryptError
}

/// Appends what `put` puts into room for `bytes`, or for as many as it asks for.
fn append<E: WantsRoom>(
    out: &mut Vec<u8>,
    bytes: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = out.len();
    out.resize(start + bytes, 0);
    let put_first = put(&mut out[start..]);
    let put_all = match put_first {
        Err(error) => match error.wanted() {
            Some(wanted) => {
                out.resize(start + wanted, 0);
                put(&mut out[start..])
            }
            None => Err(error),
        },
        done => done,
    };
    out.truncate(start + put_all.as_ref().copied().unwrap_or(0));
    put_all.map(drop)
}

/// What says how much room it takes.
trait WantsRoom {
    fn wanted(&self) -> Option<usize>;
}

impl WantsRoom for EncodeError {
    fn wanted(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl WantsRoom for EncryptError {
    fn wanted(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

fn is_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] = [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT "];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// What is counted of a handshake that came to nothing.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => "version",
        Error::PeerIncompatible(_) => "incompatible",
        Error::NoApplicationProtocol => "alpn",
        Error::NoCertificatesPresented => "client_certificate_missing",
        Error::InvalidCertificate(_) => "client_certificate",
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => "certificate_refused",
        Error::AlertReceived(_) => "alert",
        Error::InvalidMessage(_) => "malformed",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } | Error::PeerMisbehaved(_) => {
            "misbehaved"
        }
        Error::DecryptError => "decrypt",
        _ => "other",
    }
}
