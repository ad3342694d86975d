//! An MCP server in front of the BondMCP health-AI API. The agent uses the API; it never sees a password, a token or
//! an API key.

pub mod bondmcp;
pub mod clock;
pub mod config;
pub mod error;
pub mod redact;
pub mod secret;
pub mod telemetry;
