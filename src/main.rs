//! The binary: parses the command line, runs the command and returns its exit code.

use std::process::ExitCode;

use bondmcp_server::cli::{self, Cli};
use clap::Parser as _;
use tokio::runtime::Builder;

/// The threads of a hosted server free what others have allocated, for which the C library's allocator takes locks.
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
    let mut builder =
        if cli.serves_many() { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::exit_with_error(format_args!("the process cannot start: {error}")),
    };
    let code = runtime.block_on(cli.run());
    // A pending read of stdin must not delay the exit.
    runtime.shutdown_background();
    code
}
