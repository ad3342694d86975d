//! MCP over stdio and over streamable HTTP, and the routes of a hosted server.

mod answers;
mod authentication;
mod endpoint;
pub mod hosted;
pub mod http;
mod limits;
mod lines;
mod message;
pub mod metrics;
mod output;
mod refusals;
mod request_body;
mod session_manager;
mod sessions;
mod shares;
pub mod stdio;
mod uninterrupted;
