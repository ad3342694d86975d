//! Protects the memory of this process, which holds passwords and tokens in plain text.

use std::io;

/// Disables core dumps of this process. On Linux this also prevents other processes of the same user from reading its
/// memory through `/proc/PID/mem` or with a debugger.
///
/// # Errors
/// When the operating system refuses.
#[cfg(unix)]
pub fn forbid_core_dumps() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A `core_pattern` that pipes to a collector ignores the limit, so the process is made undumpable as well.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Other systems have no core files.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(())
}

/// Lets this process open as many files and connections as its hard limit allows. Systems start processes with a soft
/// limit that is much lower, for old programs that use `select`.
#[cfg(unix)]
pub(super) fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// Other systems have no such limit.
#[cfg(not(unix))]
pub(super) fn allow_many_connections() {}
