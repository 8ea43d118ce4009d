//! What is tried, a file for each subject.

pub mod clocks;
pub mod glewlwyd;
pub mod load;
pub mod mcp;
pub mod replays;
pub mod requests;
pub mod restarts;
pub mod verifiers;
