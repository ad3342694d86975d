//! MCP over stdio and over streamable HTTP.

mod authentication;
pub mod client_address;
mod endpoint;
pub mod hosted;
pub mod http;
pub mod limits;
mod lines;
pub mod metrics;
pub mod request_id;
mod sessions;
pub mod stdio;
