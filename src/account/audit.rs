//! The audit log: one JSON line per call of a tool, change of a key, or sign-in, consent and end of a grant on a hosted
//! server, with the caller, the time and the outcome, in a file that only its owner can read. It never holds arguments or
//! results. Several processes write to one file; a background thread writes a few times a second, so that no call waits
//! for the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use super::Account;
use crate::{clock::Timestamp, vault::files};

/// Size at which the file is rotated. One older file is kept.
const MAX_FILE_BYTES: u64 = 5 << 20;

/// Time for which lines are collected before they are written together.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Name of the tool in entries of `bondmcp-server keys`; no MCP tool has it.
pub const KEYS_COMMAND: &str = "keys";

/// The audit entry of one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub time: Timestamp,
    /// Name of the owner: that of the profile, or an opaque one of a hosted server.
    pub owner: String,
    /// The name that the host gave itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `ok`, the kind of failure, or another outcome such as `cancelled`.
    pub outcome: String,
    pub duration_ms: u64,
    /// Cost in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Whether the call may have been billed although no response arrived.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub possibly_billed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

impl AuditEntry {
    /// Returns an entry with nothing but what every one has.
    #[must_use]
    pub fn new(time: Timestamp, owner: impl Into<String>, tool: &str, outcome: &str) -> Self {
        Self {
            time,
            owner: owner.into(),
            host: None,
            tool: tool.to_owned(),
            action: None,
            outcome: outcome.to_owned(),
            duration_ms: 0,
            cost: None,
            possibly_billed: false,
            key_id: None,
        }
    }
}

/// The audit file of one data directory.
#[derive(Debug)]
pub(super) struct Audit {
    directory: PathBuf,
    writer: Mutex<Option<Writer>>,
}

#[derive(Debug)]
struct Writer {
    lines: Arc<Lines>,
    thread: JoinHandle<()>,
}

/// The lines that wait to be written.
#[derive(Debug, Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Set when no more lines follow.
    ended: bool,
}

impl Account {
    /// Records a call. BondMCP has chosen the key's id, and could have put a secret there.
    pub fn audit(&self, entry: AuditEntry) {
        let key_id = entry.key_id.map(|id| self.inner.redactor.redact(&id).into_owned());
        self.inner.audit.note(&AuditEntry { key_id, ..entry });
    }
}

impl Audit {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, writer: Mutex::new(None) }
    }

    /// Returns a reader of the entries of all owners and processes.
    pub fn reader(&self) -> AuditReader {
        AuditReader::new(self.directory.clone())
    }

    pub fn note(&self, entry: &AuditEntry) {
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        let mut writer = self.writer.lock();
        let writer = writer.get_or_insert_with(|| {
            let lines = Arc::new(Lines::default());
            let (directory, theirs) = (self.directory.clone(), Arc::clone(&lines));
            Writer { lines, thread: std::thread::spawn(move || write(&directory, &theirs)) }
        });
        let mut waiting = writer.lines.waiting.lock();
        if waiting.bytes.is_empty() {
            writer.lines.changed.notify_one();
        }
        waiting.bytes.extend(line);
    }

    /// Waits until everything is written.
    pub fn close(&self) {
        if let Some(Writer { lines, thread }) = self.writer.lock().take() {
            lines.waiting.lock().ended = true;
            lines.changed.notify_one();
            let _ = thread.join();
        }
    }
}

/// So that nothing is lost, and nothing is written any more when its directory goes.
impl Drop for Audit {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads the audit log, and follows it as other processes write it.
#[derive(Debug)]
pub struct AuditReader {
    directory: PathBuf,
    /// Whether the older file was read.
    started: bool,
    /// The file that is being written; `None` until there is one.
    file: Option<File>,
    /// Bytes of `file` that were read.
    position: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl AuditReader {
    fn new(directory: PathBuf) -> Self {
        Self { directory, started: false, file: None, position: 0, rest: Vec::new() }
    }

    /// Returns the entries that were added since the last call; the first call returns all. The oldest one is first.
    pub fn read(&mut self) -> io::Result<Vec<AuditEntry>> {
        let mut bytes = std::mem::take(&mut self.rest);
        if !std::mem::replace(&mut self.started, true)
            && let Some(mut file) = open(&older(&self.directory))?
        {
            file.read_to_end(&mut bytes)?;
        }
        self.read_file(&mut bytes)?;
        // A smaller file is a new one: the one that was read has been rotated.
        let size = std::fs::metadata(current(&self.directory)).map_or(0, |file| file.len());
        if self.file.is_none() || size < self.position {
            (self.file, self.position) = (open(&current(&self.directory))?, 0);
            self.read_file(&mut bytes)?;
        }
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes.split_off(end);
        // A line that was truncated by a crash is skipped.
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    fn read_file(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            self.position += file.read_to_end(bytes)? as u64;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn current(directory: &Path) -> PathBuf {
    directory.join("audit.jsonl")
}

fn older(directory: &Path) -> PathBuf {
    directory.join("audit.1.jsonl")
}

/// Writes the lines as they arrive, until no more follow.
fn write(directory: &Path, lines: &Lines) {
    let mut reported = false;
    while let Some(batch) = lines.take() {
        if let Err(error) = append(directory, &batch, MAX_FILE_BYTES)
            && !reported
        {
            reported = true;
            tracing::warn!(%error, "audit log unavailable; calls continue unaudited");
        }
    }
}

impl Lines {
    /// Waits for lines and takes what was collected; `None` at the end.
    fn take(&self) -> Option<Vec<u8>> {
        let nothing = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.ended;
        let gathering = |waiting: &mut Waiting| !waiting.ended;
        let mut waiting = self.waiting.lock();
        self.changed.wait_while(&mut waiting, nothing);
        self.changed.wait_while_for(&mut waiting, gathering, BATCH_INTERVAL);
        let batch = std::mem::take(&mut waiting.bytes);
        (!batch.is_empty()).then_some(batch)
    }
}

fn append(directory: &Path, batch: &[u8], largest: u64) -> Result<(), crate::vault::Error> {
    files::prepare_directory(directory)?;
    // Another process that shares the file may be rotating it.
    let _lock = files::lock(&directory.join("audit.lock"))?;
    let path = current(directory);
    let unusable = |error| files::unusable(&path, &error);
    if std::fs::metadata(&path).is_ok_and(|file| file.len() > 0 && file.len() + batch.len() as u64 > largest)
    {
        std::fs::rename(&path, older(directory)).map_err(unusable)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(unusable)?;
    files::refuse_exposed(&path, "600")?;
    if ends_in_a_torn_line(&mut file).map_err(unusable)? {
        file.write_all(b"\n").map_err(unusable)?;
    }
    file.write_all(batch).map_err(unusable)
}

/// Whether a crash has truncated the last line. The next line must not be appended to it.
fn ends_in_a_torn_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tool: &str) -> AuditEntry {
        AuditEntry {
            duration_ms: 7,
            cost: Some(0.05),
            ..AuditEntry::new(Timestamp::UNIX_EPOCH, "default", tool, "ok")
        }
    }

    fn newest(audit: &Audit, count: usize) -> Vec<AuditEntry> {
        let mut entries = AuditReader::new(audit.directory.clone()).read().unwrap();
        entries.split_off(entries.len().saturating_sub(count))
    }

    fn line(tool: &str) -> Vec<u8> {
        let mut line = serde_json::to_vec(&entry(tool)).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn a_reader_follows_the_log_over_halves_of_lines_and_a_rotation() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let mut reader = AuditReader::new(directory.clone());
        assert_eq!(reader.read().unwrap(), []);
        let size = line("a").len() as u64;
        append(&directory, &line("a"), 2 * size).unwrap();
        assert_eq!(reader.read().unwrap(), [entry("a")]);
        let (half, other_half) = (&line("b")[..9], &line("b")[9..]);
        let mut file = OpenOptions::new().append(true).open(current(&directory)).unwrap();
        file.write_all(half).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        file.write_all(other_half).unwrap();
        // The next one is written to a new file.
        append(&directory, &line("c"), 2 * size).unwrap();
        assert_eq!(reader.read().unwrap(), [entry("b"), entry("c")]);
        assert_eq!(reader.read().unwrap(), []);
    }

    #[test]
    fn entries_are_read_as_they_were_noted_newest_last() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::new(directory.path().join("data"));
        assert_eq!(newest(&audit, 9), []);
        for tool in ["a", "b", "c"] {
            audit.note(&entry(tool));
        }
        audit.close();
        std::fs::OpenOptions::new()
            .append(true)
            .open(current(&audit.directory))
            .unwrap()
            .write_all(b"{\"time\":\"20")
            .unwrap();
        assert_eq!(newest(&audit, 2), [entry("b"), entry("c")]);
    }

    #[test]
    fn a_torn_line_never_swallows_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::new(directory.path().join("data"));
        audit.note(&entry("a"));
        audit.close();
        let torn = |bytes: &[u8]| {
            let mut file = OpenOptions::new().append(true).open(current(&audit.directory)).unwrap();
            file.write_all(bytes).unwrap();
        };
        torn(b"{\"time\":\"20");
        audit.note(&entry("b"));
        audit.close();
        assert_eq!(newest(&audit, 9), [entry("a"), entry("b")]);
    }

    #[test]
    fn a_full_file_makes_room_and_one_older_one_is_kept() {
        let directory = tempfile::tempdir().unwrap().keep();
        #[cfg(unix)]
        std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for round in 0..5 {
            let mut line = serde_json::to_vec(&entry(&round.to_string())).unwrap();
            line.push(b'\n');
            append(&directory, &line, 2 * line.len() as u64).unwrap();
        }
        let left = AuditReader::new(directory.clone()).read().unwrap();
        let tools: Vec<&str> = left.iter().map(|entry| entry.tool.as_str()).collect();
        assert_eq!(tools, ["2", "3", "4"]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
