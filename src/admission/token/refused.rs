//! Why a token is refused, and what is said about it.

use crate::wire::codes::ErrorCode;
use std::fmt;

/// Why a token is refused. None of these can be helped by sending the same token again, save
/// `NotYetValid` and `UnknownKey` later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenRefused {
    Missing,
    TooLong,
    Malformed,
    WrongAlgorithm,
    /// The server looks for the key as soon as it may.
    UnknownKey,
    AmbiguousKey,
    WrongSignature,
    Expired,
    NotYetValid,
    WrongType,
    WrongIssuer,
    WrongAudience,
    Revoked,
    /// The named claim is missing or out of bounds.
    Claim(&'static str),
}

impl TokenRefused {
    /// The code that the client sees.
    pub const fn code(self) -> ErrorCode {
        match self {
            TokenRefused::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::Unauthorized,
        }
    }

    /// A short stable name for counters and the log.
    pub const fn reason(self) -> &'static str {
        match self {
            TokenRefused::Missing => "token_missing",
            TokenRefused::TooLong => "token_too_long",
            TokenRefused::Malformed => "token_malformed",
            TokenRefused::WrongAlgorithm => "token_wrong_algorithm",
            TokenRefused::UnknownKey => "token_unknown_key",
            TokenRefused::AmbiguousKey => "token_ambiguous_key",
            TokenRefused::WrongSignature => "token_wrong_signature",
            TokenRefused::Expired => "token_expired",
            TokenRefused::NotYetValid => "token_not_yet_valid",
            TokenRefused::WrongType => "token_wrong_type",
            TokenRefused::WrongIssuer => "token_wrong_issuer",
            TokenRefused::WrongAudience => "token_wrong_audience",
            TokenRefused::Revoked => "token_revoked",
            TokenRefused::Claim(_) => "token_claim",
        }
    }
}

impl fmt::Display for TokenRefused {
    /// At most 123 bytes: it also travels as the reason of a close frame.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            TokenRefused::Missing => {
                "no token was sent; put one in the Authorization header, the subprotocol or ?token="
            }
            TokenRefused::TooLong => "the token is longer than 8 KiB; issue one with fewer claims",
            TokenRefused::Malformed => "the token is not a readable signed JWT; send it exactly as it was issued",
            TokenRefused::WrongAlgorithm => {
                "this server has no key for the token's algorithm; get a token for this server"
            }
            TokenRefused::UnknownKey => {
                "the token's key is not known here; try again in some seconds, or get a token for this server"
            }
            TokenRefused::AmbiguousKey => "the token does not say which key signed it; have it issued with a kid",
            TokenRefused::WrongSignature => {
                "the token's signature does not fit this server's key; get a token for this server"
            }
            TokenRefused::Expired => "the token has expired; get a new one and connect again",
            TokenRefused::NotYetValid => "the token is not valid yet; wait, or check the issuer's clock",
            TokenRefused::WrongType => "the token is not an access token; connect with one that is",
            TokenRefused::WrongIssuer => "the token's issuer is not trusted here; get a token for this server",
            TokenRefused::WrongAudience => "the token is meant for another audience; get a token for this server",
            TokenRefused::Revoked => "the token was revoked; log in again",
            TokenRefused::Claim(claim) => {
                return write!(out, "the token's claim {claim} is missing or out of bounds; have it issued again");
            }
        })
    }
}

impl std::error::Error for TokenRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_fits_a_close_frame() {
        let refusals = [
            TokenRefused::Missing,
            TokenRefused::TooLong,
            TokenRefused::Malformed,
            TokenRefused::WrongAlgorithm,
            TokenRefused::UnknownKey,
            TokenRefused::AmbiguousKey,
            TokenRefused::Revoked,
            TokenRefused::WrongSignature,
            TokenRefused::Expired,
            TokenRefused::NotYetValid,
            TokenRefused::WrongType,
            TokenRefused::WrongIssuer,
            TokenRefused::WrongAudience,
            TokenRefused::Claim("rooms.publish"),
        ];
        for refusal in refusals {
            assert!(refusal.to_string().len() <= 123, "{refusal:?}");
        }
    }
}
