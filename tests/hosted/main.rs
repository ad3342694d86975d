//! Hosted servers: OAuth, consent, the pages, the grants and what an operator sees of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod attacks;
mod client_address;
mod connections;
mod consent;
mod credentials;
#[cfg(unix)]
mod flags;
mod flow;
mod grants;
mod hang_ups;
mod limits;
mod metrics;
#[cfg(unix)]
mod operators;
mod public_page;
mod readiness;
mod recorded;
mod rmcp_client;
mod sign_in;
#[cfg(unix)]
mod stop;
mod thief;
mod tokens;
