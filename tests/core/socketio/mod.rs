//! Socket.IO in the core: sessions of Engine.IO, namespaces, and what applications may do.

mod application;
mod hall;
mod namespaces;
mod sessions;
