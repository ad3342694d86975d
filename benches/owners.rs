//! What many owners cost: opening one account where the vault has 10 or 10,000 owners, in a process that has just begun
//! or has served all of them; and the memory of a process that has served 1,000 or 10,000 owners. For records in SQLite
//! and, where it is installed, in PostgreSQL. The ratios are of one run on one machine.
//!
//! `cargo bench --bench owners`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is run for")]

#[cfg(unix)]
#[path = "../tests/common/postgres.rs"]
#[allow(dead_code, reason = "its share")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
mod postgres;

#[cfg(unix)]
#[path = "owners/measure.rs"]
mod measure;

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    measure::main()
}

#[cfg(not(unix))]
fn main() {
    println!("nothing measured: this needs Linux");
}
