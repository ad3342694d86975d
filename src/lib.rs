//! An MCP server in front of the BondMCP health-AI API. The agent uses the API; it never sees a password, a token or
//! an API key.

pub mod account;
pub mod bondmcp;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod mcp;
pub mod redact;
pub mod sandbox;
pub mod secret;
pub mod telemetry;
pub mod transport;
pub mod vault;
