//! Standard error for the log. A host may start this server and not read what it writes there; that must not stop it.
//! Once the pipe is full, lines are dropped until there is space again.

use std::{
    io::{self, StderrLock, Write},
    time::Duration,
};

use parking_lot::Mutex;

/// How long a host that has read so far may take. One that has not caught up since is not waited for again.
const READER_TIMEOUT: Duration = Duration::from_millis(100);

/// What a pipe that is ready takes at once, in bytes (POSIX).
#[cfg(unix)]
const MAX_PIECE: usize = rustix::pipe::PIPE_BUF;
#[cfg(not(unix))]
const MAX_PIECE: usize = usize::MAX;

static STATE: Mutex<State> = Mutex::new(State { is_stalled: false, is_torn: false });

/// What became of the last line.
struct State {
    /// Whether it was dropped.
    is_stalled: bool,
    /// Whether its end was dropped, so that the next one has to begin on a line of its own.
    is_torn: bool,
}

pub(super) struct HostsStderr;

impl Write for HostsStderr {
    /// Writes a whole line, or drops what the host leaves no space for.
    #[expect(clippy::disallowed_methods, reason = "what passes here is escaped and redacted")]
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = STATE.lock();
        let mut stderr = io::stderr().lock();
        let end_of_last = state.is_torn.then_some(&b"\n"[..]);
        for piece in end_of_last.into_iter().chain(line.chunks(MAX_PIECE)) {
            let timeout = if state.is_stalled { Duration::ZERO } else { READER_TIMEOUT };
            state.is_stalled = !is_ready(&stderr, timeout);
            if state.is_stalled {
                break;
            }
            stderr.write_all(piece)?;
            state.is_torn = !piece.ends_with(b"\n");
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a piece can be written without a wait for the host. What cannot be asked is written to.
#[cfg(unix)]
fn is_ready(stderr: &StderrLock, timeout: Duration) -> bool {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
    };

    let mut polled = [PollFd::new(stderr, PollFlags::OUT)];
    let ready = poll(&mut polled, Timespec::try_from(timeout).ok().as_ref());
    !matches!(ready, Ok(0) | Err(Errno::INTR))
}

#[cfg(not(unix))]
fn is_ready(_: &StderrLock, _: Duration) -> bool {
    true
}
