//! What a session is called: where it is, and a secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where a session is, and what only its client knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid {
    pub shard: u8,
    pub slot: u32,
    pub generation: u32,
    pub secret: [u8; 12],
}

const BYTES: usize = 1 + 4 + 4 + 12;

impl Sid {
    /// 28 characters that a URL takes as they are.
    pub fn text(&self) -> String {
        let mut bytes = [0; BYTES];
        bytes[0] = self.shard;
        bytes[1..5].copy_from_slice(&self.slot.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.generation.to_be_bytes());
        bytes[9..].copy_from_slice(&self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn parse(text: &str) -> Option<Sid> {
        let mut bytes = [0; BYTES];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        if len != BYTES {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut secret = [0; 12];
        secret.copy_from_slice(&bytes[9..]);
        Some(Sid { shard: bytes[0], slot: word(1), generation: word(5), secret })
    }
}
