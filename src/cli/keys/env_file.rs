//! `keys write`: a key in a file of environment variables. The file is readable by its owner alone, it is replaced as a
//! whole, and one that git would add to a commit is refused.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::anyhow;
use zeroize::Zeroizing;

use super::Error;
use crate::{
    config::{self, BaseUrl, DEFAULT_BASE_URL},
    secret::{ExposeSecret as _, SecretString},
};

/// Largest file that is changed.
const MAX_BYTES: u64 = 1 << 20;

/// A file that may hold a key.
#[derive(Debug)]
pub(super) struct EnvFile {
    /// The file itself; a link is followed.
    path: PathBuf,
    directory: PathBuf,
    /// The git work tree that it is in.
    tree: Option<PathBuf>,
}

impl EnvFile {
    /// Checks that a key may be written to `given`.
    pub fn open(given: &Path) -> Result<Self, Error> {
        let unusable = |error: io::Error| cannot(given, &error);
        let path = match fs::canonicalize(given) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let name = given.file_name().ok_or_else(|| unusable(error))?;
                let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty());
                fs::canonicalize(parent.unwrap_or(Path::new("."))).map_err(unusable)?.join(name)
            }
            path => path.map_err(unusable)?,
        };
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let tree = directory.ancestors().find(|directory| directory.join(".git").exists());
        let file = Self { tree: tree.map(ToOwned::to_owned), path, directory };
        file.refuse_commits()?;
        Ok(file)
    }

    /// Sets `BONDMCP_API_KEY` and, if it is not the default or another one is set, `BONDMCP_BASE_URL`: the key is for no
    /// other server. Other lines stay.
    pub fn write(&self, key: &SecretString, base_url: &BaseUrl) -> Result<(), Error> {
        let key = key.expose_secret();
        if !is_plain(key) {
            return Err(Error::Failed(anyhow!(
                "The key holds characters that programs read differently from such a file. Use `keys run` instead."
            )));
        }
        let before = self.content().map_err(|error| cannot(&self.path, &error))?;
        let has_lone_returns = |line: &str| line.strip_suffix('\r').unwrap_or(line).contains('\r');
        if before.split('\n').any(has_lone_returns) {
            return Err(Error::Failed(anyhow!(
                "{} has carriage returns that some programs read as line breaks. Remove them, or choose another file.",
                self.path.display()
            )));
        }
        let mut content = with_line(&before, "BONDMCP_API_KEY", key);
        let is_set = before.lines().any(|line| setting(line, "BONDMCP_BASE_URL").is_some());
        if is_set || base_url.as_str() != DEFAULT_BASE_URL {
            content = with_line(&content, "BONDMCP_BASE_URL", base_url.as_str());
        }
        self.replace(content.as_bytes()).map_err(|error| cannot(&self.path, &error))
    }

    fn content(&self) -> io::Result<Zeroizing<String>> {
        match fs::metadata(&self.path) {
            Ok(file) if !file.is_file() => Err(io::Error::other("it is not a file")),
            Ok(file) if file.len() > MAX_BYTES => Err(io::Error::other("it is larger than 1 MiB")),
            Ok(_) => fs::read_to_string(&self.path).map(Zeroizing::new),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Zeroizing::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole. Its temporary copy is readable by its owner alone, and where git could add that to a
    /// commit, it is not in the work tree, unless git keeps its own files on another device: a crash would leave it behind.
    fn replace(&self, content: &[u8]) -> io::Result<()> {
        let outside = self.tree.as_deref().and_then(git_directory);
        match outside.map(|directory| self.replace_from(&directory, content)) {
            Some(Err(error)) if error.kind() == ErrorKind::CrossesDevices => {}
            Some(outcome) => return outcome,
            None => {}
        }
        self.replace_from(&self.directory, content)
    }

    /// Replaces the file with one that is written in `directory`.
    fn replace_from(&self, directory: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".env.").tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    /// Refuses a file in a git work tree, unless git ignores it.
    fn refuse_commits(&self) -> Result<(), Error> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let mut git = Command::new("git");
        config::remove_variables(&mut git);
        for (name, _) in std::env::vars_os() {
            // They could name another repository.
            if name.to_string_lossy().to_ascii_uppercase().starts_with("GIT_") {
                git.env_remove(name);
            }
        }
        // Whoever made the work tree may have configured a program for git to start: to look for changes, or to fetch what
        // is missing.
        git.current_dir(&self.directory).args(["-c", "core.fsmonitor=false"]);
        git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_ALLOW_PROTOCOL", "");
        git.args(["check-ignore", "--quiet", "--"]).arg(&self.path);
        git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (file, tree) = (self.path.display(), tree.display());
        match git.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(Error::Failed(anyhow!(
                "{file} is in the git work tree {tree} and not ignored, so the key could be committed. \
                 Add it to .gitignore, or choose a file elsewhere."
            ))),
            Err(_) => Err(Error::Failed(anyhow!(
                "{file} is in the git work tree {tree}, and git cannot be asked whether it is ignored. \
                 Install git, or choose a file elsewhere."
            ))),
        }
    }
}

/// Returns the directory in which git keeps what belongs to the work tree `tree`. In a linked work tree and in a
/// submodule `.git` is a file that names it.
fn git_directory(tree: &Path) -> Option<PathBuf> {
    let git = tree.join(".git");
    let directory = if git.is_file() {
        tree.join(fs::read_to_string(git).ok()?.strip_prefix("gitdir:")?.trim())
    } else {
        git
    };
    directory.is_dir().then_some(directory)
}

fn cannot(path: &Path, error: &io::Error) -> Error {
    Error::Failed(anyhow!("{} cannot be used: {error}.", path.display()))
}

/// Whether every reader of such files takes `value` literally without quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=:".contains(&byte))
}

/// Returns `content` with `name` set to `value`: in place of the first line that sets it, or at the end. Further lines
/// that set it are removed, as readers disagree on which one counts.
fn with_line(content: &str, name: &str, value: &str) -> Zeroizing<String> {
    // Reserved at once: a growing buffer would leave copies of the key behind.
    let mut changed = Zeroizing::new(String::with_capacity(
        content.len() + name.len() + value.len() + "export =\r\n\n".len(),
    ));
    let mut is_set = false;
    for line in content.split_inclusive('\n') {
        let Some(prefix) = setting(line, name) else {
            changed.push_str(line);
            continue;
        };
        if !is_set {
            is_set = true;
            let end = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
            for part in [prefix, name, "=", value, end] {
                changed.push_str(part);
            }
        }
    }
    if !is_set {
        if !changed.is_empty() && !changed.ends_with('\n') {
            changed.push('\n');
        }
        for part in [name, "=", value, "\n"] {
            changed.push_str(part);
        }
    }
    changed
}

/// Returns what precedes the name in a line that sets `name`: nothing or `export `. Node.js' dotenv takes `NAME: value` too.
fn setting<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let trimmed = line.trim_start();
    let (prefix, rest) = match trimmed.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => ("export ", rest.trim_start()),
        _ => ("", trimmed),
    };
    let rest = rest.strip_prefix(name)?;
    let with_colon = rest.strip_prefix(':').is_some_and(|value| value.starts_with(char::is_whitespace));
    (with_colon || rest.trim_start().starts_with('=')).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_replaced_where_it_stands_and_others_stay() {
        let set = |content: &str| with_line(content, "KEY", "new").to_string();
        assert_eq!(set(""), "KEY=new\n");
        assert_eq!(set("A=1"), "A=1\nKEY=new\n");
        assert_eq!(set("# KEY=x\nKEY=old\nKEYS=1\n"), "# KEY=x\nKEY=new\nKEYS=1\n");
        assert_eq!(set("export KEY = 'old'\r\nB=2\r\nKEY=older"), "export KEY=new\r\nB=2\r\n");
        assert_eq!(set("export\tKEY=old\nexported=1\n"), "export KEY=new\nexported=1\n");
    }

    /// Whoever wrote the file, such as the template of a repository, does not choose where the key goes.
    #[test]
    fn another_base_url_does_not_stay_beside_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        let file = EnvFile { path: path.clone(), directory: directory.path().to_owned(), tree: None };
        let write = |before: &str, base_url: &str| {
            fs::write(&path, before).unwrap();
            file.write(&"bcp_1".into(), &base_url.parse().unwrap()).unwrap();
            fs::read_to_string(&path).unwrap()
        };
        let written = write("BONDMCP_BASE_URL=https://evil.example/mcp\n", DEFAULT_BASE_URL);
        assert_eq!(written, format!("BONDMCP_BASE_URL={DEFAULT_BASE_URL}\nBONDMCP_API_KEY=bcp_1\n"));
        assert_eq!(write("BONDMCP_BASE_URL: https://evil.example/mcp\n", DEFAULT_BASE_URL), written);
        assert_eq!(write("A=1\n", DEFAULT_BASE_URL), "A=1\nBONDMCP_API_KEY=bcp_1\n");
        fs::write(&path, "A=1\rBONDMCP_BASE_URL=https://evil.example/mcp\r\n").unwrap();
        file.write(&"bcp_1".into(), &DEFAULT_BASE_URL.parse().unwrap()).unwrap_err();
    }

    #[test]
    fn gits_directory_is_found_in_every_kind_of_work_tree() {
        let place = tempfile::tempdir().unwrap();
        let (main, linked) = (place.path().join("main"), place.path().join("linked"));
        let kept = main.join(".git/worktrees/linked");
        fs::create_dir_all(&kept).unwrap();
        fs::create_dir(&linked).unwrap();
        assert_eq!(git_directory(&main), Some(main.join(".git")));
        assert_eq!(git_directory(&linked), None);
        for named in [kept.display().to_string(), "../main/.git/worktrees/linked".to_owned()] {
            fs::write(linked.join(".git"), format!("gitdir: {named}\n")).unwrap();
            let found = git_directory(&linked).unwrap().canonicalize().unwrap();
            assert_eq!(found, kept.canonicalize().unwrap());
        }
    }

    #[test]
    fn a_value_that_would_need_quotes_is_not_plain() {
        assert!(is_plain("bcp_aZ-09=="));
        for value in ["", "a b", "a#b", "a$b", "a'b", "a\nb", "ä"] {
            assert!(!is_plain(value), "{value}");
        }
    }
}
