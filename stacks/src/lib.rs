//! What the stacks' tests and examples share.

pub mod echo;
pub mod guard;
pub mod tls;
