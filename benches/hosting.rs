//! What a hosted server costs: requests a second of `http --public-url` with OAuth, an owner for each connection and the
//! vault in PostgreSQL, beside `http` with a static token and SQLite; and the time from the authorization request to the
//! tokens. Both servers are processes, and take turns against one upstream that answers at once, so the ratios mean
//! something; the absolute figures are this machine's.
//!
//! `cargo bench --bench hosting`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is run for")]

#[cfg(unix)]
#[path = "../tests/common/postgres.rs"]
#[allow(dead_code, reason = "its share")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
mod postgres;

#[cfg(unix)]
#[path = "hosting/measure.rs"]
mod measure;
#[cfg(unix)]
#[path = "hosting/person.rs"]
mod person;
#[cfg(unix)]
#[path = "hosting/upstream.rs"]
mod upstream;

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    measure::main()
}

#[cfg(not(unix))]
fn main() {
    println!("nothing measured: this needs PostgreSQL's programs");
}
