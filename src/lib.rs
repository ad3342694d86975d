//! An MCP server in front of the BondMCP health-AI API. The agent uses the API; it never sees a password, a token or
//! an API key.
//!
//! # Module layout
//! A module imports only modules of lower layers, and in layer 0 only those listed above it.
//!
//! | layer | module | purpose | may be imported by |
//! |---|---|---|---|
//! | 6 | [`cli`] | the command line, one file per subcommand | `main.rs` |
//! | 5 | [`doctor`] | examining an installation | [`cli`] |
//! | 5 | [`transport`] | MCP over stdio and over streamable HTTP | [`cli`] |
//! | 4 | [`mcp`] | the server handler, the tools, the egress guard | [`transport`], [`cli`] |
//! | 4 | [`hosted`] | the pages and grants of a hosted server | [`transport`], [`cli`] |
//! | 3 | [`sign_in`] | the sign-in page, outside the chat | [`mcp`], [`hosted`], [`doctor`], [`cli`] |
//! | 3 | [`oauth`] | the authorization server of a hosted server, without HTTP | layers 4 to 6 |
//! | 2 | [`account`] | signing in and out, the credential for a call, API keys; whose account it is | layers 3 to 6 |
//! | 1 | [`bondmcp`] | the HTTP client of the API, one function per endpoint, and its wire types | layers 2 to 6, except [`transport`]; [`sandbox`] |
//! | 1 | [`vault`] | the encrypted storage of accounts | [`account`], [`sign_in`], [`oauth`], [`hosted`], [`doctor`], [`cli`] |
//! | 0 | [`secret`] | the types for secrets; their hashes and MACs | all |
//! | 0 | [`clock`] | an injected wall clock | all |
//! | 0 | [`error`] | failures as users and agents see them | all |
//! | 0 | [`text`] | making foreign text safe to display | all |
//! | 0 | [`config`] | the operator's configuration | all |
//! | 0 | [`redact`] | finding secrets in text | all |
//! | 0 | [`hosts`] | the programs that run MCP servers, and this server's entries in their files | [`cli`], [`doctor`] |
//! | 0 | [`telemetry`] | logging, redacted | [`mcp`], [`transport`], [`cli`] |
//! | 0 | [`metrics`] | figures for the operator | all |
//! | 0 | [`client_address`] | the address that a request comes from | [`hosted`], [`transport`], [`cli`] |
//! | 0 | [`token_bucket`] | limits on how often | [`oauth`], [`transport`] |
//! | 0 | [`json_size`] | the memory that JSON takes | [`transport`], [`bondmcp`] |
//! | 0 | [`listener`] | serving HTTP with limits on connections | [`sign_in`], [`transport`], [`cli`] |
//! | – | [`sandbox`] | an embedded BondMCP API; it imports layer 0 and the wire types of [`bondmcp`] | [`cli`], tests |
//!
//! A tool call arrives through [`transport`], which says whose it is; [`mcp`] applies its limits and deadline and catches
//! panics; [`account`] provides the owner's credential; [`bondmcp`] makes the request; and the result passes the egress
//! guard of [`mcp`].

pub mod account;
pub mod bondmcp;
pub mod cli;
pub mod client_address;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod error;
pub mod hosted;
pub mod hosts;
pub mod json_size;
pub mod listener;
pub mod mcp;
pub mod metrics;
pub mod oauth;
pub mod redact;
pub mod sandbox;
pub mod secret;
pub mod sign_in;
pub mod telemetry;
pub mod text;
pub mod token_bucket;
pub mod transport;
pub mod vault;
