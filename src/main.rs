//! The binary: parses the command line, runs the command and returns its exit code.

use std::process::ExitCode;

use bondmcp_server::cli::{self, Cli};
use clap::Parser as _;
use tokio::runtime::Builder;

/// What the threads of a hosted server share, one allocates and another frees, for which the C library's allocator takes
/// locks.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything is read: the environment may hold a password.
    if let Err(error) = cli::forbid_core_dumps() {
        cli::warn(format_args!(
            "core dumps of this process, which would hold secrets, cannot be forbidden: {error}"
        ));
    }
    let cli = Cli::parse();
    // One thread: a call waits for the network rather than for a processor, and threads that wake each other for every
    // step of it cost more time than they save. A server over HTTP starts threads that do not.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::exit_with_error(format_args!("the process cannot start: {error}")),
    };
    let code = runtime.block_on(cli.run());
    // A pending read of stdin must not delay the exit.
    runtime.shutdown_background();
    code
}
