//! The upstream client: one function an endpoint of the BondMCP API. It knows no account, no vault and no MCP.

pub mod wire;
