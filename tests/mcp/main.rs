//! What hosts and agents see: the protocol over stdio and HTTP, the tools, signing in, and owners.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![recursion_limit = "256"]

#[path = "../common/mod.rs"]
mod common;

mod attack_findings;
mod audit;
mod cached_answers;
mod confirmation;
mod contract;
mod door;
mod health;
mod host_compatibility;
mod late_secrets;
mod limits;
mod owners;
#[cfg(unix)]
mod owners_property;
mod privacy;
mod protocol_http;
#[cfg(unix)]
mod protocol_stdio;
mod redaction;
mod redaction_scopes;
mod request_state;
mod resources;
mod selection;
mod shares;
mod sign_in;
mod sign_in_before_identity;
mod sign_in_hosts;
mod sign_in_page;
mod sign_in_page_states;
#[cfg(unix)]
mod spending;
mod status;
mod tool_faces;
