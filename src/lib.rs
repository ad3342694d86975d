//! An MCP server in front of the BondMCP health-AI API. The agent uses the API; it never sees a password, a token or
//! an API key.
//!
//! # The house
//! Imports point down only: a room knows nothing of the floors above it.
//!
//! | floor | room | what it does |
//! |---|---|---|
//! | 6 | `main.rs`, [`cli`] | one file a subcommand |
//! | 5 | [`transport`] | MCP over stdio and over streamable HTTP |
//! | 4 | [`mcp`] | the server handler, the tools, the egress guard |
//! | 3 | [`sign_in`] | the page on which a person signs in, outside the chat |
//! | 2 | [`account`] | sign in and out, a bearer for this call, API keys |
//! | 1 | [`bondmcp`] | the upstream client, one function an endpoint |
//! | 1 | [`vault`] | accounts at rest, sealed |
//! | 0 | [`secret`], [`redact`] | secrets as types, and finding them in text |
//! | 0 | [`config`], [`error`], [`clock`], [`telemetry`], [`text`] | the operator's decisions, failures as told outside, time, logs, text from elsewhere |
//! | 0 | [`listener`] | serving HTTP within bounds, for the page and for [`transport`] |
//! | beside | [`sandbox`] | an embedded BondMCP API; it shares only the wire types of [`bondmcp`] |
//!
//! A tool call comes in by [`transport`], is bounded and caught in [`mcp`], gets a bearer from [`account`], goes upstream
//! by [`bondmcp`], and passes the egress guard on its way back.

pub mod account;
pub mod bondmcp;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod listener;
pub mod mcp;
pub mod redact;
pub mod sandbox;
pub mod secret;
pub mod sign_in;
pub mod telemetry;
pub mod text;
pub mod transport;
pub mod vault;
