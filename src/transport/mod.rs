//! MCP over stdio and over streamable HTTP, and the routes of a hosted server.

mod authentication;
mod endpoint;
pub mod hosted;
pub mod http;
mod lines;
mod sessions;
pub mod stdio;
