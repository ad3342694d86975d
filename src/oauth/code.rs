//! Authorization codes (RFC 6749, section 4.1.2; RFC 9700, section 2.1.1).
