//! `keys write`: a key in a file of environment variables. The file is readable by its owner alone, it is replaced as a
//! whole, and one that git would add to a commit is refused. Programs read such files in many ways, so nothing else in it
//! may be a setting of the key or the base URL to any of them.

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
    error::reason,
    secret::{ExposeSecret as _, SecretString},
};

/// Largest file that is changed.
const MAX_BYTES: u64 = 1 << 20;

/// The variables that are set.
const API_KEY: &str = "BONDMCP_API_KEY";
const BASE_URL: &str = "BONDMCP_BASE_URL";

/// They may surround a value.
const QUOTES: [char; 3] = ['"', '\'', '`'];

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
                let parent = parent.unwrap_or(Path::new("."));
                let parent = fs::canonicalize(parent).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => Error::Failed(anyhow!(
                        "The directory {} does not exist. Create it, or name another file.",
                        parent.display()
                    )),
                    _ => unusable(error),
                })?;
                parent.join(name)
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
    /// other server. Other lines stay. A file that a program could read differently is refused.
    pub fn write(&self, key: &SecretString, base_url: &BaseUrl) -> Result<(), Error> {
        let key = key.expose_secret();
        if !is_plain(key) {
            return Err(Error::Failed(anyhow!(
                "The key holds characters that programs read differently from such a file. Use `keys run` instead."
            )));
        }
        let before = self.content().map_err(|error| cannot(&self.path, &error))?;
        for (line, number) in before.split('\n').zip(1..) {
            if let Some(reason) = unclear(line) {
                return Err(Error::Failed(anyhow!(
                    "Line {number} of {} {reason}, or choose another file.",
                    self.path.display()
                )));
            }
        }
        let mut settings = vec![(API_KEY, key)];
        if base_url.as_str() != DEFAULT_BASE_URL
            || before.lines().any(|line| setting(line, BASE_URL).is_some())
        {
            settings.push((BASE_URL, base_url.as_str()));
        }
        let content = with_settings(&before, &settings);
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
    let reason = match error.raw_os_error() {
        Some(_) => reason(error.kind()),
        None => error.to_string(),
    };
    Error::Failed(anyhow!("{} cannot be used: {reason}.", path.display()))
}

/// Whether every reader of such files takes `value` literally without quotes.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=:".contains(&byte))
}

/// Returns why programs may read `line` differently, and what to do about it.
fn unclear(line: &str) -> Option<&'static str> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().any(is_special) {
        return Some(
            "has a control character or another one that some programs read as a line break or leave out. Remove it",
        );
    }
    // A variable in a comment could be replaced by its value where the comment is part of a text of several lines.
    let is_comment = line.trim_start().starts_with('#') && !line.contains('$');
    let is_clear = |name| is_comment || !mentions(line, name) || setting(line, name).is_some();
    match (is_clear(API_KEY), is_clear(BASE_URL)) {
        (true, true) => None,
        (false, _) => {
            Some("mentions BONDMCP_API_KEY in another way than BONDMCP_API_KEY=value. Remove that line")
        }
        (_, false) => {
            Some("mentions BONDMCP_BASE_URL in another way than BONDMCP_BASE_URL=value. Remove that line")
        }
    }
}

/// Whether some program takes `character` for a line break, or ignores it: control characters, the line and paragraph
/// separators, and the byte order mark.
fn is_special(character: char) -> bool {
    character != '\t' && character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Whether `line` contains `name`: in upper or lower case, which some programs do not distinguish, and with backslashes
/// in it, which some remove.
fn mentions(line: &str, name: &str) -> bool {
    let is_kept = |character: char| character != '\\';
    line.char_indices().filter(|(_, first)| is_kept(*first)).any(|(start, _)| {
        let rest = line[start..].chars().filter(|character| is_kept(*character));
        let mut rest = rest.flat_map(char::to_uppercase);
        name.chars().all(|character| rest.next() == Some(character))
    })
}

/// Returns `content` with `settings` before everything else, as a quote that is open in a line above could make them
/// part of another value. Lines that set the same names are removed.
fn with_settings(content: &str, settings: &[(&str, &str)]) -> Zeroizing<String> {
    let end = if content.contains("\r\n") { "\r\n" } else { "\n" };
    let parts = settings.iter().flat_map(|(name, value)| {
        let prefix = content.lines().find_map(|line| setting(line, name)).unwrap_or_default();
        [prefix, name, "=", value, end]
    });
    let is_other = |line: &&str| settings.iter().all(|(name, _)| setting(line, name).is_none());
    let parts = parts.chain(content.split_inclusive('\n').filter(is_other));
    // Reserved at once: a growing buffer would leave copies of the key behind.
    let mut changed = Zeroizing::new(String::with_capacity(parts.clone().map(str::len).sum()));
    parts.for_each(|part| changed.push_str(part));
    changed
}

/// Returns what precedes the name in a line that sets `name`: nothing or `export `.
fn setting(line: &str, name: &str) -> Option<&'static str> {
    let line = line.trim();
    let (prefix, rest) = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => ("export ", rest.trim_start()),
        _ => ("", line),
    };
    let value = rest.strip_prefix(name)?.trim_start().strip_prefix('=')?;
    let value = match value.trim_start() {
        comment if comment.starts_with('#') && comment.len() < value.len() => "",
        value => after_quoted(value),
    };
    // Some programs begin a comment at every `#`, others, as shells do, only after white space.
    let shorter = value.split('#').next().unwrap_or_default();
    let longer = before_comment(value);
    // A value that goes on in the next line is not removed in part.
    let is_closed =
        |quote: char| [shorter, longer].iter().all(|value| value.matches(quote).count().is_multiple_of(2));
    // Another variable or command on the line is not removed with it.
    let is_alone = !longer.contains(|character: char| character.is_whitespace() || ";&|".contains(character));
    (is_alone && QUOTES.into_iter().all(is_closed) && !line.ends_with('\\')).then_some(prefix)
}

/// Returns what precedes a `#` after white space, without the white space.
fn before_comment(value: &str) -> &str {
    let comment = value.match_indices('#').find(|(at, _)| value[..*at].ends_with(char::is_whitespace));
    comment.map_or(value, |(at, _)| &value[..at]).trim_end()
}

/// Returns what follows the quoted text at the start of `value`, in which a `#` begins no comment. A text that programs may
/// end elsewhere is not taken for one.
fn after_quoted(value: &str) -> &str {
    let quoted = QUOTES.into_iter().find_map(|quote| value.strip_prefix(quote)?.split_once(quote));
    match quoted {
        Some((text, rest)) if !text.contains(QUOTES) && !text.contains('\\') => rest,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: &str = "https://evil.example/mcp";

    /// Writes the key to a file with the content `before` and returns its content then.
    fn write(before: &str, base_url: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        let file = EnvFile { path: path.clone(), directory: directory.path().to_owned(), tree: None };
        fs::write(&path, before).unwrap();
        let outcome = file.write(&"bcp_1".into(), &base_url.parse().unwrap());
        let after = fs::read_to_string(&path).unwrap();
        match outcome {
            Ok(()) => Ok(after),
            Err(Error::Failed(error)) => {
                assert_eq!(after, before, "a file that is refused is not touched");
                Err(error.to_string())
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn settings_come_first_and_other_lines_stay() {
        let set = |content: &str| with_settings(content, &[("KEY", "new")]).to_string();
        assert_eq!(set(""), "KEY=new\n");
        assert_eq!(set("A=1"), "KEY=new\nA=1");
        assert_eq!(set("# KEY=x\nKEY=old # don't\nKEYS=1\n"), "KEY=new\n# KEY=x\nKEYS=1\n");
        assert_eq!(set("export KEY = 'old'\r\nB=2\r\nKEY=older"), "export KEY=new\r\nB=2\r\n");
        assert_eq!(set("export\tKEY=old\nexported=1\n"), "export KEY=new\nexported=1\n");
        assert_eq!(set("KEY=\"a#b\"\nKEY = 'a#b' # don't\nA=1\n"), "KEY=new\nA=1\n");
        for open in ["KEY=\"a#b", "KEY='a\"#b'", "KEY=a\"#b\"", "KEY=\"a\" 'b#c'"] {
            assert_eq!(set(&format!("{open}\n")), format!("KEY=new\n{open}\n"));
        }
        let parts = [("KEY", "new"), ("URL", "here")];
        assert_eq!(*with_settings("URL=there\nA=1\n", &parts), "KEY=new\nURL=here\nA=1\n");
    }

    #[test]
    fn the_base_url_is_written_if_the_file_names_one_or_it_is_not_the_default() {
        let of_default = format!("BONDMCP_API_KEY=bcp_1\nBONDMCP_BASE_URL={DEFAULT_BASE_URL}\n");
        let of_file = format!("BONDMCP_BASE_URL={ELSEWHERE}\n");
        assert_eq!(write(&of_file, DEFAULT_BASE_URL).unwrap(), of_default);
        assert_eq!(write("A=1\n", DEFAULT_BASE_URL).unwrap(), "BONDMCP_API_KEY=bcp_1\nA=1\n");
        assert_eq!(
            write("# BONDMCP_BASE_URL=x\n", "https://staging.example/mcp").unwrap(),
            "BONDMCP_API_KEY=bcp_1\nBONDMCP_BASE_URL=https://staging.example/mcp\n# BONDMCP_BASE_URL=x\n"
        );
    }

    /// Whoever wrote the file, such as the template of a repository, does not choose where the key goes. The settings are
    /// such that dotenv of Node.js, python-dotenv, godotenv, pydantic or a program that reads lines takes them.
    #[test]
    fn what_a_program_could_read_as_another_base_url_does_not_stay_beside_the_key() {
        for setting in [
            "BONDMCP_BASE_URL\n=URL",
            "BONDMCP_BASE_URL:\nURL",
            "BONDMCP_BASE_URL: URL",
            "BONDMCP_BASE_URL",
            "bondmcp_base_url=URL",
            "\u{feff}BONDMCP_BASE_URL=URL",
            "# note\u{2028}BONDMCP_BASE_URL=URL",
            "# note\u{2029}BONDMCP_BASE_URL=URL",
            "# note\u{85}BONDMCP_BASE_URL=URL",
            "# note\u{b}BONDMCP_BASE_URL=URL",
            "# note\rBONDMCP_BASE_URL=URL\r\n",
            "\u{1c}BONDMCP_BASE_URL=URL",
            "\u{a0}export 'BONDMCP_BASE_URL'=URL",
            "'BONDMCP_BASE_URL'=URL",
            "\"BONDMCP_BASE_URL\"=URL",
            "export A=1 BONDMCP_BASE_URL=URL",
            "BONDMCP_BASE_\\URL=URL",
            "BONDMCP_BASE_URL=\"\nURL\"",
            "BONDMCP_BASE_URL=\\\nURL",
        ] {
            let before = format!("A=1\n{}\nB=2\n", setting.replace("URL=URL", &format!("URL={ELSEWHERE}")));
            let refused = write(&before, DEFAULT_BASE_URL).unwrap_err();
            assert!(refused.starts_with("Line 2 of ") && !refused.contains("evil"), "{before:?}: {refused}");
        }
    }

    /// Nor may another variable contain the key.
    #[test]
    fn the_key_does_not_become_part_of_another_value() {
        let within_quotes = format!("A=\"{ELSEWHERE}/\nBONDMCP_API_KEY=x\n\"\n");
        assert_eq!(
            write(&within_quotes, DEFAULT_BASE_URL).unwrap(),
            format!("BONDMCP_API_KEY=bcp_1\nA=\"{ELSEWHERE}/\n\"\n")
        );
        for setting in [
            "A=https://evil.example/${BONDMCP_API_KEY}",
            "A=\"https://evil.example/$BONDMCP\\_API_KEY\"",
            "A=\"https://evil.example/\n#${BONDMCP_API_KEY}\"",
            "'BONDMCP_API_KEY'=another",
        ] {
            write(setting, DEFAULT_BASE_URL).unwrap_err();
        }
    }

    #[test]
    fn a_line_that_sets_something_else_too_is_refused() {
        for line in [
            "export BONDMCP_API_KEY=x OTHER=1",
            "BONDMCP_API_KEY=x OTHER=1",
            "BONDMCP_API_KEY=\"x\" OTHER=1",
            "BONDMCP_API_KEY=\"x\";OTHER=1",
            "BONDMCP_API_KEY=x; A=1",
            "BONDMCP_API_KEY=x; export OTHER=1",
            "BONDMCP_API_KEY=x&&OTHER=1",
            "BONDMCP_API_KEY=x||OTHER=1",
            // To a shell this is no comment.
            "BONDMCP_API_KEY=x#y OTHER=1",
            "BONDMCP_API_KEY=# OTHER=1",
            "BONDMCP_BASE_URL=https://staging.example/mcp OTHER=1",
        ] {
            let refused = write(&format!("A=1\n{line}\n"), DEFAULT_BASE_URL).unwrap_err();
            assert!(refused.starts_with("Line 2 of "), "{line}: {refused}");
        }
        for line in
            ["BONDMCP_API_KEY= # OTHER=1", "BONDMCP_API_KEY='a b;c' # OTHER=1; &", "BONDMCP_API_KEY=x#y"]
        {
            assert_eq!(write(line, DEFAULT_BASE_URL).unwrap(), "BONDMCP_API_KEY=bcp_1\n", "{line}");
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("nodir");
        let Err(Error::Failed(error)) = EnvFile::open(&directory.join(".env")) else { panic!("no failure") };
        let wanted = format!("The directory {} does not exist.", directory.display());
        assert!(error.to_string().starts_with(&wanted), "{error}");
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
