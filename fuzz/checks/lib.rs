//! What the fuzz targets check: for each parser of what strangers send, a function that takes any bytes
//! and panics where a promise of that parser is broken. The targets call them with what libFuzzer makes
//! up, and `tests/corpus.rs` of ringroom with every file of the corpora.

mod choices;
mod engine;
mod envelope;
mod frames;
mod http;
mod inflate;
mod msgpack;
mod proxy;
mod socketio;
mod sse;

pub use engine::engine;
pub use envelope::envelope;
pub use frames::{frames, frames_raw};
pub use http::http_head;
pub use inflate::inflate;
pub use msgpack::msgpack;
pub use proxy::proxy;
pub use socketio::socketio;
pub use sse::sse;
