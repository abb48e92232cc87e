//! Typed data of requests: checked once, with errors that say what is allowed.

use crate::kernel::feature::Told;
use crate::kernel::ids::Cursor;
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::envelope::Data;
use serde::de::DeserializeOwned;

/// Reads a request's data. The bytes are JSON, as the envelope was checked; this checks the types.
pub fn read<T: DeserializeOwned>(data: Data<'_>) -> Result<T, WireError> {
    // simd-json rewrites strings in place, so it gets a copy: this is not the publish path.
    let mut copy = data.json.as_bytes().to_vec();
    simd_json::serde::from_slice(&mut copy).map_err(|error| bad(format!("data: {error}")))
}

/// Writes the data of a reply.
pub fn write(value: &impl serde::Serialize) -> Told {
    Told::Json(to_json(value))
}

/// Writes what is told.
pub fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is told is plain data")
}

pub fn bad(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::BadRequest, message.into())
}

/// A position that this server gave out: a `pos` or a `mid`.
pub fn cursor(name: &str, text: Option<&str>) -> Result<Option<Cursor>, WireError> {
    let Some(text) = text else { return Ok(None) };
    match Cursor::parse(text) {
        Some(cursor) => Ok(Some(cursor)),
        None => Err(bad(format!("data.{name} is a `pos` or a `mid` that this server gave out"))),
    }
}
