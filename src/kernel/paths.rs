//! What a process serves besides the native protocol, by path.

use crate::kernel::endpoint::Endpoints;
use crate::kernel::mounts::Mounts;

#[derive(Clone, Default)]
pub struct Paths {
    /// Messages as they are, over WebSockets.
    pub endpoints: Endpoints,
    /// Engine.IO and Socket.IO.
    pub mounts: Mounts,
}

impl Paths {
    /// `Err`: what cannot be served, and why.
    pub fn check(&self) -> Result<(), String> {
        self.endpoints.check()?;
        self.mounts.check()?;
        match self
            .mounts
            .paths()
            .find(|path| self.endpoints.has(path) || self.endpoints.has(path.trim_end_matches('/')))
        {
            Some(path) => Err(format!("an endpoint is declared where Engine.IO is spoken, at {path}")),
            None => Ok(()),
        }
    }
}
