//! Says which tests of this run did not run. It is the last of the test targets in the order of their names, so these are
//! the last lines of `cargo test`.

#[cfg(unix)]
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "the records only")]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
mod postgres;

#[cfg(unix)]
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn main() {
    let mut arguments = std::env::args();
    // Test runners ask for a list of tests; there are none here.
    if arguments.any(|argument| argument == "--list") {
        return;
    }
    let lines = postgres::take_not_run();
    if lines.is_empty() {
        return;
    }
    println!("\nThese {} tests did not run, since PostgreSQL is not installed:", lines.len());
    for line in lines {
        println!("    {line}");
    }
    println!(
        "Install it (Debian: postgresql), or name a server in BONDMCP_TEST_POSTGRES; see CONTRIBUTING.md."
    );
}

#[cfg(not(unix))]
fn main() {}
