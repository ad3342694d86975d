//! MCP over stdio and over streamable HTTP, and the routes of a hosted server.

mod authentication;
mod endpoint;
pub mod hosted;
pub mod http;
mod limits;
mod lines;
pub mod metrics;
mod request_body;
mod sessions;
mod shares;
pub mod stdio;
