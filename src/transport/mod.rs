//! MCP over stdio and over streamable HTTP.

mod authentication;
pub mod http;
mod lines;
mod sessions;
pub mod stdio;
