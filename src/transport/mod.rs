//! MCP over stdio and over streamable HTTP.

pub mod http;
mod lines;
pub mod stdio;
