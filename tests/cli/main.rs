//! The program's commands, on terminals and on pipes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

#[cfg(unix)]
mod audit;
mod bad_input;
mod core_dump;
mod environment_credentials;
#[cfg(unix)]
mod first_start;
mod help;
#[cfg(unix)]
mod keys;
#[cfg(unix)]
mod keys_proxy;
#[cfg(unix)]
mod messages;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod terminal_injection;
#[cfg(unix)]
mod vault_commands;
