//! Protects the memory of this process, which holds passwords and tokens in plain text.

use std::io;

/// Keeps the memory of this process from ending in a core file. On Linux no other process of the same user can read it
/// any more either: not by `/proc/PID/mem`, and not with a debugger.
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

/// Elsewhere there are no core files.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(())
}
