//! `keys run`: a program with a key, or with a proxy that adds the key.

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    net::Ipv4Addr,
    process::ExitStatus,
};

use anyhow::anyhow;
use tokio::process::{Child, Command};

use super::{Error, Keys, choose::Choice, proxy::Proxy};
use crate::{
    config,
    secret::{ExposeSecret as _, SecretString},
};

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
        // Before the program starts, so that no signal ends this process and leaves the program behind.
        let signals = Signals::listen().map_err(|error| cannot_wait(&error))?;
        if through_proxy {
            let proxy = Proxy::listen(keys.app.client(), secret).await?;
            keys.app.redactor.hold("token of the proxy", [proxy.token()]);
            let mut program = program(command, proxy.token(), &proxy.base_url());
            for (name, other) in [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")] {
                let hosts = std::env::var_os(name).or_else(|| std::env::var_os(other));
                program.env(name, with_loopback(hosts));
            }
            Ok((spawn(program)?, signals, Some(proxy)))
        } else {
            let program = program(command, &secret, keys.app.settings.base_url.as_str());
            Ok((spawn(program)?, signals, None))
        }
    };
    let (child, signals, proxy) = keys.audited("run", Some(&key), start, |_| None).await?;
    let status = match proxy {
        None => signals.wait(child).await,
        Some(proxy) => tokio::select! {
            status = signals.wait(child) => status,
            () = proxy.serve() => Err(ErrorKind::BrokenPipe.into()),
        },
    };
    match exit_code(status.map_err(|error| cannot_wait(&error))?) {
        0 => Ok(()),
        code => Err(Error::Child(code)),
    }
}

fn cannot_wait(error: &io::Error) -> Error {
    Error::Failed(anyhow!("Waiting for the program to end failed: {error}."))
}

fn program(command: Vec<OsString>, key: &SecretString, base_url: &str) -> Command {
    let mut words = command.into_iter();
    let mut program = Command::new(words.next().unwrap_or_default());
    config::remove_variables(program.as_std_mut());
    program.args(words).env("BONDMCP_API_KEY", key.expose_secret()).env("BONDMCP_BASE_URL", base_url);
    program
}

/// Adds loopback to the hosts that are reached without a proxy: one of the network's would get the program's token and
/// requests in plain text.
fn with_loopback(hosts: Option<OsString>) -> OsString {
    let mut hosts = hosts.unwrap_or_default();
    // All hosts; in a list the asterisk would have no meaning.
    if hosts == "*" {
        return hosts;
    }
    if !hosts.is_empty() {
        hosts.push(",");
    }
    hosts.push(Ipv4Addr::LOCALHOST.to_string());
    hosts
}

fn spawn(mut program: Command) -> Result<Child, Error> {
    program.spawn().map_err(|error| {
        let name = program.as_std().get_program().to_string_lossy();
        match error.kind() {
            ErrorKind::NotFound => {
                Error::NotRun { message: format!("{name}: command not found"), code: NOT_FOUND }
            }
            kind => Error::NotRun { message: format!("{name}: {kind}"), code: NOT_EXECUTABLE },
        }
    })
}

/// The signals that end this process by default. While a program runs, it decides what to do about them: the terminal
/// sends an interrupt to both processes, and the other signals are forwarded to the program.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(mut self, mut child: Child) -> io::Result<ExitStatus> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let pass_on = |signal| {
            // It may have ended already.
            let _ = pid.map(|pid| kill_process(pid, signal));
        };
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = self.interrupt.recv() => {}
                _ = self.quit.recv() => {}
                _ = self.terminate.recv() => pass_on(Signal::TERM),
                _ = self.hangup.recv() => pass_on(Signal::HUP),
            }
        }
    }
}

/// Ctrl-C, which the console sends to the program too.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn wait(self, mut child: Child) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                _ = tokio::signal::ctrl_c() => {}
            }
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
