//! What the tools stand on: accounts, the vault, the client of BondMCP, and the sandbox.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![recursion_limit = "256"]

#[path = "../common/mod.rs"]
mod common;

mod connection_errors;
mod crash_safety;
mod fault_matrix;
#[cfg(unix)]
mod half_open;
mod key_rotation;
#[cfg(unix)]
mod linked_vault;
mod lost_values;
#[cfg(unix)]
mod one_renewal;
mod outages;
#[cfg(unix)]
mod postgres;
mod properties;
#[cfg(unix)]
mod rekey_stores;
mod renewal;
mod sandbox;
mod sandbox_restart;
mod sign_out_forgets;
mod upstream;
mod vault_outage;
#[cfg(unix)]
mod vault_postgres;
mod vault_stores;
