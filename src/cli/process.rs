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
