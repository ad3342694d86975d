//! `doctor` on broken set-ups: each test breaks one thing, finds it named with its fix, fixes it as told, and finds it
//! whole. The real binary runs with a home directory of its own.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod account;
mod database;
mod hosts;
mod keys;
mod network;
mod other_users;
mod outside;
mod privacy;
mod storage;
mod upstreams;

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use bondmcp_server::{cli::Cli, sandbox::RunningSandbox};
use clap::Parser as _;
use common::{EMAIL, Place, secrets, within};
use serde_json::Value;
use tokio::process::Command;

/// A computer on which something is broken. Its home directory holds the data directory.
struct Installation {
    place: Place,
    /// Variables besides those of the place; `None` removes one.
    variables: BTreeMap<String, Option<String>>,
    /// Flags of the program, such as another data directory.
    flags: Vec<String>,
    /// The user who runs everything; `None` for the one who runs the tests.
    user: Option<u32>,
}

impl Installation {
    fn of(place: Place) -> Self {
        let mut installation = Self { place, variables: BTreeMap::new(), flags: vec![], user: None };
        installation.set("PATH", "/usr/bin:/bin");
        installation.set("HOME", installation.home().to_str().unwrap());
        installation
    }

    /// A person with an account who is not signed in.
    async fn signed_out() -> (RunningSandbox, Self) {
        let (sandbox, place) = common::signed_out().await;
        (sandbox, Self::of(place))
    }

    /// A person who is signed in and whose sealing key is in a file.
    async fn signed_in() -> (RunningSandbox, Self) {
        let (sandbox, mut installation) = Self::signed_out().await;
        installation.unset("BONDMCP_SEALING_KEY");
        installation.sign_in().await;
        (sandbox, installation)
    }

    async fn sign_in(&self) {
        let mut command = self.command(&["login", "--email", EMAIL, "--password-stdin"]);
        let (code, _, told) = common::run(&mut command, secrets::text(&self.place.password)).await;
        assert_eq!(code, Some(0), "{told}");
    }

    fn home(&self) -> PathBuf {
        self.place.directory.path().canonicalize().unwrap()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.place.data_dir().join(name)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), Some(value.to_owned()));
    }

    fn unset(&mut self, name: &str) {
        self.variables.insert(name.to_owned(), None);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.args(&self.flags);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(user) = self.user {
            command.uid(user);
        }
    }

    /// Returns another program than the real binary, with the same environment.
    fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().kill_on_drop(true);
        for (name, value) in self.place.command(&[]).as_std().get_envs() {
            command.env(name, value.unwrap());
        }
        self.prepare(&mut command);
        command
    }

    /// Runs a command as a person pastes it into a shell, with `input` on its stdin.
    async fn paste(&self, line: &str, input: &str) {
        let mut command = self.program("/bin/sh");
        command.args(["-c", line]);
        let (code, out, told) = common::run(&mut command, input).await;
        assert_eq!(code, Some(0), "{line}: {out}{told}");
    }

    async fn examine(&self) -> Report {
        let mut command = self.command(&["doctor", "--json"]);
        let output = within(command.stdin(Stdio::null()).output()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told, "", "nothing is left for stderr");
        Report::of(&text, output.status.code())
    }

    /// As `examine`, for what answers only by a time-out: in a process of this test binary that runs `doctor` on a clock
    /// that runs fast.
    async fn examine_fast(&self) -> Report {
        let mut command = self.program(std::env::current_exe().unwrap());
        command.args(["--exact", "doctor_runs_on_a_fast_clock", "--nocapture"]).env(FAST, "1");
        // The findings name the program by this.
        command.arg0(env!("CARGO_BIN_EXE_bondmcp-server"));
        let (code, text, told) = common::run(&mut command, "").await;
        let before = text.find('{').unwrap_or_else(|| panic!("{text}{told}"));
        Report::of(&text[before..], code)
    }

    /// Finds `name` whole.
    async fn assert_fixed(&self, name: &str) {
        let report = self.examine().await;
        assert_eq!(report.check(name).status, "ok", "{:#}", report.0);
    }
}

/// What `doctor --json` printed.
struct Report(Value);

#[derive(Debug)]
struct Check {
    status: String,
    detail: String,
    /// The command of the fix.
    run: String,
    advice: String,
}

impl Report {
    fn of(text: &str, code: Option<i32>) -> Self {
        let report: Value = serde_json::from_str(text).unwrap();
        let failed = report["checks"].as_array().unwrap().iter().any(|check| check["status"] == "fail");
        assert_eq!(report["ok"], !failed);
        assert_eq!(code, Some(i32::from(failed)), "{text}");
        Self(report)
    }

    fn check(&self, name: &str) -> Check {
        let checks = self.0["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check {name}: {:#}", self.0));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Check {
            status: text(&check["status"]),
            detail: text(&check["detail"]),
            run: text(&check["fix"]["run"]),
            advice: text(&check["fix"]["advice"]),
        }
    }

    /// Returns the check `name`, which failed and says `detail`.
    fn failed(&self, name: &str, detail: &str) -> Check {
        self.found(name, "fail", detail)
    }

    /// Returns the check `name`, which warns and says `detail`.
    fn warned(&self, name: &str, detail: &str) -> Check {
        self.found(name, "warn", detail)
    }

    fn found(&self, name: &str, status: &str, detail: &str) -> Check {
        let check = self.check(name);
        assert!(check.status == status && check.detail.contains(detail), "{check:?}");
        assert!(!check.run.is_empty() || !check.advice.is_empty(), "a fix: {check:?}");
        check
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_works_has_nothing_to_mend() {
    let (_sandbox, mut installation) = Installation::signed_in().await;
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_bondmcp-server"));
    installation.set("PATH", binary.parent().unwrap().to_str().unwrap());
    installation.configure(&installation.entry());
    let report = installation.examine().await;
    for check in report.0["checks"].as_array().unwrap() {
        assert!(check["status"] == "ok" || check["name"] == "TLS", "{check}");
        assert!(check["fix"].is_null(), "{check}");
    }
    let output = within(installation.command(&["doctor"]).output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("Everything works.\n"), "{text}");
    assert!(text.contains("unlimited (active); ") && text.contains("works and has"), "{text}");
}

/// Tells a process of this test binary to run `doctor`.
const FAST: &str = "DOCTOR_ON_A_FAST_CLOCK";

#[tokio::test]
async fn doctor_runs_on_a_fast_clock() {
    if std::env::var_os(FAST).is_some() {
        let doctor = Cli::parse_from(["bondmcp-server", "doctor", "--json"]);
        let code = common::fast_time::fast(doctor.run()).await;
        // At once, as the real binary: what does not answer would keep the runtime.
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    let (_sandbox, installation) = Installation::signed_in().await;
    assert_eq!(installation.examine_fast().await.check("vault").status, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_exists_nothing_is_created() {
    let (_sandbox, mut installation) = Installation::signed_out().await;
    installation.unset("BONDMCP_SEALING_KEY");
    let report = installation.examine().await;
    for name in ["data directory", "sealing key", "vault"] {
        assert_eq!(report.check(name).status, "ok", "{:#}", report.0);
    }
    assert!(common::files(&installation.home()).is_empty() && !installation.place.data_dir().exists());
    // A vault elsewhere whose data directory is gone.
    let vault = installation.home().join("vaults/vault.db");
    installation.set("BONDMCP_VAULT", &format!("sqlite://{}", vault.display()));
    installation.sign_in().await;
    std::fs::remove_dir_all(installation.place.data_dir()).unwrap();
    installation.examine().await.failed("sealing key", "gone");
    assert!(!installation.place.data_dir().exists());
}
