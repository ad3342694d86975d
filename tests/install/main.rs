//! `install` and `uninstall` as a person runs them: the real binary, in a home directory of its own.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod golden;
mod options;
mod terminal;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bondmcp_server::hosts::{Environment, HOSTS, Host, Os};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bondmcp-server");

/// What must never be printed or written: it stands for the token of another server.
const SECRET: &str = "s3cret-of-another-server";

/// A person's home directory.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn environment(&self) -> Environment {
        Environment::new(Os::current(), self.path().to_owned(), std::iter::empty::<(OsString, OsString)>())
    }

    /// Returns the file that `host` reads in this home.
    fn file(&self, host: &str) -> PathBuf {
        Host::named(host).unwrap().path(&self.environment())
    }

    fn write(&self, host: &str, text: &str) -> PathBuf {
        let file = self.file(host);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("HOME", self.path()).args(arguments).current_dir(self.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Returns all files below the home directory with their content.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path.clone(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        files
    }

    /// Returns `text` without what differs from run to run.
    fn stable(&self, text: &str) -> String {
        text.replace(PROGRAM, "/usr/bin/bondmcp-server").replace(self.path().to_str().unwrap(), "~")
    }
}

/// What a command did.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn names() -> Vec<&'static str> {
    HOSTS.iter().map(|host| host.name).collect()
}
