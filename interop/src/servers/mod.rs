//! The servers: how each is started, and what a client has to know of it.

pub mod glewlwyd;
pub mod node;
