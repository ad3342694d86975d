//! `keys run`: a program with a key, or with a proxy that adds the key.

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    process::ExitStatus,
};

use anyhow::anyhow;
use tokio::process::{Child, Command};

use super::{Error, Keys, choose::Choice, proxy::Proxy};
use crate::secret::{ExposeSecret as _, SecretString};

/// Variables that are not passed to a child process.
const NOT_FOR_CHILDREN: [&str; 5] = [
    "BONDMCP_EMAIL",
    "BONDMCP_PASSWORD",
    "BONDMCP_SEALING_KEY",
    "BONDMCP_SEALING_KEY_FILE",
    "BONDMCP_HTTP_TOKEN",
];

/// Exit codes of POSIX shells for a program that does not exist, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// What shells add to the number of the signal that ended a program.
#[cfg(unix)]
const SIGNAL: i32 = 128;

pub(super) async fn run(
    keys: Keys<'_>,
    key: Choice,
    through_proxy: bool,
    command: Vec<OsString>,
) -> Result<(), Error> {
    let start = async {
        let secret = keys.account.key_secret(&key.id).await?;
        if through_proxy {
            let proxy = Proxy::listen(keys.app.client(), secret).await?;
            let child = spawn(command, proxy.token(), &proxy.base_url())?;
            Ok((child, Some(proxy)))
        } else {
            Ok((spawn(command, &secret, keys.app.settings.base_url.as_str())?, None))
        }
    };
    let (child, proxy) = keys.audited("run", Some(&key), start, |_| None).await?;
    let status = match proxy {
        None => wait(child).await,
        Some(proxy) => tokio::select! {
            status = wait(child) => status,
            () = proxy.serve() => Err(ErrorKind::BrokenPipe.into()),
        },
    };
    let status =
        status.map_err(|error| Error::Failed(anyhow!("The program cannot be waited for: {error}.")))?;
    match exit_code(status) {
        0 => Ok(()),
        code => Err(Error::Child(code)),
    }
}

fn spawn(command: Vec<OsString>, key: &SecretString, base_url: &str) -> Result<Child, Error> {
    let mut words = command.into_iter();
    let program = words.next().unwrap_or_default();
    let mut child = Command::new(&program);
    for name in NOT_FOR_CHILDREN {
        child.env_remove(name);
    }
    child.args(words).env("BONDMCP_API_KEY", key.expose_secret()).env("BONDMCP_BASE_URL", base_url);
    child.spawn().map_err(|error| {
        let program = program.to_string_lossy();
        match error.kind() {
            ErrorKind::NotFound => {
                Error::NotRun { message: format!("{program}: command not found"), code: NOT_FOUND }
            }
            kind => Error::NotRun { message: format!("{program}: {kind}"), code: NOT_EXECUTABLE },
        }
    })
}

/// Waits for the program. A signal to end this process is the program's to obey; the terminal sends an interrupt to
/// both.
#[cfg(unix)]
async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::signal::unix::{SignalKind, signal};

    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let pass_on = |signal| {
        // It may have ended already.
        let _ = pid.map(|pid| kill_process(pid, signal));
    };
    let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    loop {
        tokio::select! {
            status = child.wait() => return status,
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => pass_on(Signal::TERM),
            _ = hangup.recv() => pass_on(Signal::HUP),
        }
    }
}

#[cfg(not(unix))]
async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}

#[cfg(unix)]
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL + signal));
    code.and_then(|code| code.try_into().ok()).unwrap_or(1)
}

#[cfg(not(unix))]
fn exit_code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| code.try_into().ok()).unwrap_or(1)
}
