//! Refresh tokens: families with rotation that forgives (RFC 9700, section 4.14).
