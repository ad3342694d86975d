//! What holds the repository together: the layers of the code, the documents, the files for deployment.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

#[cfg(unix)]
mod deploy;
mod layers;
mod readme;
mod targets;
