//! A vault's records in one file, encrypted with a key that Argon2id derives from a passphrase, for moving them to another
//! vault.
//!
//! The file begins with a header in plain text: what it is, the cost and the salt of Argon2id. Chunks follow, each with its
//! length, encrypted like a record: an empty one that tells the right passphrase, one for each record, and an empty last
//! one. The number of a chunk and whether it is the last are authenticated, so that chunks can neither be left out nor
//! moved.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    pin::pin,
};

use argon2::{Algorithm, Argon2, Params, Version};
use futures_util::TryStreamExt as _;
use zeroize::Zeroizing;

use super::{
    Error, RecordId, SealingKey, Vault,
    database::Row,
    files,
    seal::{self, RecordKey},
};
use crate::{
    clock::Timestamp,
    error::{Kind, UserFacingError, sentence},
    secret::{ExposeSecret as _, SecretBytes, SecretString},
};

const MAGIC: &[u8; 22] = b"bondmcp-server export\n";
const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;

/// What RFC 9106 recommends where memory is limited: 64 MiB, 3 passes; here with one lane.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

/// The highest cost that a file may ask for, since nobody has vouched for it yet.
const MAX_COST: Cost = Cost { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };

/// Longest chunk.
const MAX_CHUNK_BYTES: u32 = 64 * 1024 * 1024;

/// The expiry of a record that does not expire.
const NEVER: i64 = i64::MAX;

/// The kinds of chunk, in the place of a record's id.
const START: RecordKey = [0; 32];
const RECORD: RecordKey = [1; 32];
const END: RecordKey = [2; 32];

/// Reasons why a vault cannot be exported or imported. Nothing is written then, except where it is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Vault(#[from] Error),
    #[error("cannot {action} {path}: {}", crate::error::reason(*.reason))]
    File { path: PathBuf, action: &'static str, reason: io::ErrorKind },
    #[error("the file is not an export of bondmcp-server")]
    NotAnExport,
    #[error("the file was written by a newer version of bondmcp-server")]
    Newer,
    #[error("the passphrase is wrong, or the file was changed")]
    WrongPassphrase,
    #[error("the file is incomplete or was changed")]
    Damaged,
    #[error("the vault has {0} of the file's records already; nothing was imported")]
    Exists(u64),
    #[error("the vault's PostgreSQL server did not say whether the records were imported")]
    Uncertain,
}

impl From<&TransferError> for UserFacingError {
    fn from(error: &TransferError) -> Self {
        let (kind, solution) = match error {
            TransferError::Vault(error) => return error.into(),
            TransferError::File { reason: io::ErrorKind::AlreadyExists, .. } => {
                (Kind::Conflict, "Name a file that does not exist yet.")
            }
            TransferError::File { .. } => (Kind::Internal, "Check the path and its permissions."),
            TransferError::NotAnExport => (Kind::InvalidInput, "Name a file that `vault export` wrote."),
            TransferError::Newer => (Kind::InvalidInput, "Upgrade bondmcp-server."),
            TransferError::WrongPassphrase => {
                (Kind::InvalidInput, "Try again with the passphrase of the export.")
            }
            TransferError::Damaged => (Kind::InvalidInput, "Copy the file again, or export the vault again."),
            TransferError::Exists(_) => {
                (Kind::Conflict, "Import into a new vault: name one with --data-dir or BONDMCP_VAULT.")
            }
            TransferError::Uncertain => (
                Kind::Internal,
                "Import into the same vault again when the server can be reached. If it then has all of the file's \
                 records already, they were imported.",
            ),
        };
        Self::new(kind, sentence(&error.to_string()), solution)
    }
}

/// Whether the file is an exported vault, complete or not.
#[must_use]
pub fn is_export(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == *MAGIC
}

/// An exported file that was opened with its passphrase.
#[derive(Debug)]
pub struct ExportFile(ExportReader<BufReader<File>>);

impl ExportFile {
    pub fn open(path: &Path, passphrase: &SecretString) -> Result<Self, TransferError> {
        let file = File::open(path).map_err(|error| file_error(path, "read", &error))?;
        Ok(Self(ExportReader::new(BufReader::new(file), passphrase)?))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Vault {
    /// Writes all records into a new file and returns their number. Leases and what has expired are not exported.
    /// `candidates` are identities of records of this program's first version, which do not contain it.
    pub async fn export(
        &self,
        path: &Path,
        passphrase: &SecretString,
        candidates: &[RecordId],
    ) -> Result<u64, TransferError> {
        let failed = |error: &io::Error| file_error(path, "write", error);
        // Only its owner can read a temporary file, and it is deleted unless it is completed.
        let file =
            tempfile::NamedTempFile::new_in(files::directory_of(path)).map_err(|error| failed(&error))?;
        let mut writer =
            ExportWriter::new(BufWriter::new(file), passphrase, COST).map_err(|error| failed(&error))?;
        self.purge_expired().await?;
        let mut rows = pin!(self.database.rows(None));
        while let Some(row) = rows.try_next().await? {
            let (id, plaintext) = self.open_row(&row, candidates).await?;
            let expires = row.expires.map_or(NEVER, |expires| expires.timestamp_millis()).to_be_bytes();
            let parts: [&[u8]; 3] = [&expires, &seal::identity_part(&id), &plaintext];
            writer.write(&parts).map_err(|error| failed(&error))?;
        }
        let (file, records) = writer.finish().map_err(|error| failed(&error))?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| {
                file.as_file().sync_all()?;
                file.persist_noclobber(path).map_err(|error| error.error)?;
                files::sync_directory(path)
            })
            .map_err(|error| failed(&error))?;
        Ok(records)
    }

    /// Adds all records of an exported file and returns their number; adds none if the vault has one of them already, or
    /// if the file is incomplete.
    pub async fn import(&self, mut file: ExportFile) -> Result<u64, TransferError> {
        let sealer = self.refreshed_keys().await?;
        self.purge_expired().await?;
        let mut import = self.database.import().await?;
        let (mut records, mut existing, mut last) = (0, 0, None);
        while let Some(chunk) = file.0.next()? {
            let (expires, record) = split_expiry(chunk).ok_or(TransferError::Damaged)?;
            let (id, plaintext) = seal::split_identity(record).ok_or(TransferError::Damaged)?;
            let (key, kind) = (sealer.record_key(&id), id.kind.as_str().to_owned());
            let row = Row { key, kind, version: 1, sealed: sealer.seal(&id, 1, &plaintext)?, expires };
            existing += u64::from(!import.insert(&row).await?);
            records += 1;
            last = Some(row);
        }
        if existing > 0 {
            return Err(TransferError::Exists(existing));
        }
        match (import.commit().await, last) {
            // The server may have done it although its answer was lost.
            (Err(error @ Error::Server(_)), Some(last)) => match self.has_imported(&last).await {
                Ok(true) => Ok(records),
                Ok(false) => Err(error.into()),
                Err(_) => Err(TransferError::Uncertain),
            },
            (committed, _) => committed.map(|()| records).map_err(TransferError::from),
        }
    }

    /// Whether a row was imported, over another connection.
    async fn has_imported(&self, row: &Row) -> Result<bool, Error> {
        self.database.import().await?.has(row).await
    }

    /// Opens a row of the table; returns its identity too.
    pub(super) async fn open_row(
        &self,
        row: &Row,
        candidates: &[RecordId],
    ) -> Result<(RecordId, SecretBytes), Error> {
        match self.sealer().open_row(&row.key, row.version, &row.sealed, candidates) {
            Err(Error::UnknownKey) => {
                let sealer = self.refreshed_keys().await?;
                sealer.open_row(&row.key, row.version, &row.sealed, candidates)
            }
            opened => opened,
        }
    }
}

struct ExportWriter<W> {
    file: W,
    key: SealingKey,
    chunks: u64,
}

impl<W: Write> ExportWriter<W> {
    fn new(mut file: W, passphrase: &SecretString, cost: Cost) -> io::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        file.write_all(&[&MAGIC[..], &[FORMAT]].concat())?;
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            file.write_all(&number.to_be_bytes())?;
        }
        file.write_all(&salt)?;
        let key = derive(passphrase, cost, &salt).ok_or_else(|| io::Error::other("argon2"))?;
        let mut writer = Self { file, key, chunks: 0 };
        writer.chunk(&START, &[])?;
        Ok(writer)
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.chunk(&RECORD, parts)
    }

    /// Returns the file and the number of its records.
    fn finish(mut self) -> io::Result<(W, u64)> {
        let records = self.chunks - 1;
        self.chunk(&END, &[])?;
        self.file.flush()?;
        Ok((self.file, records))
    }

    fn chunk(&mut self, kind: &RecordKey, parts: &[&[u8]]) -> io::Result<()> {
        let sealed = seal::seal(&self.key, kind, self.chunks, parts).map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= MAX_CHUNK_BYTES);
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.file.write_all(&length.to_be_bytes())?;
        self.file.write_all(&sealed)?;
        self.chunks += 1;
        Ok(())
    }
}

#[derive(Debug)]
struct ExportReader<R> {
    file: R,
    key: SealingKey,
    chunks: u64,
}

impl<R: Read> ExportReader<R> {
    fn new(mut file: R, passphrase: &SecretString) -> Result<Self, TransferError> {
        let head: [u8; MAGIC.len()] = bytes(&mut file).map_err(|_| TransferError::NotAnExport)?;
        if head != *MAGIC {
            return Err(TransferError::NotAnExport);
        }
        if bytes(&mut file)? != [FORMAT] {
            return Err(TransferError::Newer);
        }
        let mut number = || Ok::<_, TransferError>(u32::from_be_bytes(bytes(&mut file)?));
        let cost = Cost { memory_kib: number()?, passes: number()?, lanes: number()? };
        if cost.memory_kib > MAX_COST.memory_kib
            || cost.passes > MAX_COST.passes
            || cost.lanes > MAX_COST.lanes
        {
            return Err(TransferError::Damaged);
        }
        let salt = bytes(&mut file)?;
        let key = derive(passphrase, cost, &salt).ok_or(TransferError::Damaged)?;
        let mut reader = Self { file, key, chunks: 0 };
        let start = reader.chunk()?;
        reader.open(&START, &start).ok_or(TransferError::WrongPassphrase)?;
        Ok(reader)
    }

    /// Returns the next record; `None` after the last one, if the file is complete.
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, TransferError> {
        let chunk = self.chunk()?;
        if let Some(record) = self.open(&RECORD, &chunk) {
            return Ok(Some(record));
        }
        self.open(&END, &chunk).ok_or(TransferError::Damaged)?;
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(None),
            _ => Err(TransferError::Damaged),
        }
    }

    fn chunk(&mut self) -> Result<Vec<u8>, TransferError> {
        let length = u32::from_be_bytes(bytes(&mut self.file)?);
        // Before it is read: nobody has vouched for the length yet.
        if length > MAX_CHUNK_BYTES {
            return Err(TransferError::Damaged);
        }
        let mut chunk = Vec::new();
        let read = self.file.by_ref().take(length.into()).read_to_end(&mut chunk);
        if read.is_ok_and(|read| read == length as usize) { Ok(chunk) } else { Err(TransferError::Damaged) }
    }

    fn open(&mut self, kind: &RecordKey, chunk: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let opened = seal::open(&self.key, kind, self.chunks, chunk).ok()?;
        self.chunks += 1;
        Some(opened)
    }
}

fn bytes<const LENGTH: usize>(file: &mut impl Read) -> Result<[u8; LENGTH], TransferError> {
    let mut bytes = [0; LENGTH];
    file.read_exact(&mut bytes).map_err(|_| TransferError::Damaged)?;
    Ok(bytes)
}

/// Derives the file's key; `None` if Argon2 does not take these parameters.
fn derive(passphrase: &SecretString, cost: Cost, salt: &[u8; SALT_BYTES]) -> Option<SealingKey> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    argon2.hash_password_into(passphrase.expose_secret().as_bytes(), salt, &mut *key).ok()?;
    Some(SealingKey::from_bytes(*key))
}

/// Splits off the time, in milliseconds since the epoch, from which on there is no record.
fn split_expiry(mut chunk: Zeroizing<Vec<u8>>) -> Option<(Option<Timestamp>, Zeroizing<Vec<u8>>)> {
    let millis = i64::from_be_bytes(*chunk.first_chunk()?);
    chunk.drain(..size_of_val(&millis));
    if millis == NEVER {
        Some((None, chunk))
    } else {
        Some((Some(Timestamp::from_timestamp_millis(millis)?), chunk))
    }
}

fn file_error(path: &Path, action: &'static str, error: &io::Error) -> TransferError {
    TransferError::File { path: path.to_owned(), action, reason: error.kind() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, RecordKind},
    };

    /// A cost that tests can pay often.
    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn passphrase(text: &str) -> SecretString {
        text.into()
    }

    fn id(number: u64) -> RecordId {
        RecordId {
            kind: RecordKind::ACCOUNT,
            owner: format!("profile:{number}"),
            origin: "https://api.example".into(),
        }
    }

    async fn vault(directory: &Path, key: u8, records: std::ops::Range<u64>) -> Vault {
        let location = VaultLocation::Sqlite(directory.join(format!("{key}/vault.db")));
        let vault = Vault::open(&location, Keyring::of(&[key])).await.unwrap();
        for number in records {
            vault.write(&id(number), None, number.to_string().as_bytes(), None).await.unwrap();
        }
        vault
    }

    async fn count(vault: &Vault) -> usize {
        vault.database.rows_after(None, 1000).await.unwrap().len()
    }

    fn exported(records: &[&[u8]]) -> Vec<u8> {
        let mut writer = ExportWriter::new(Vec::new(), &passphrase("right"), CHEAP).unwrap();
        for record in records {
            writer.write(&[record]).unwrap();
        }
        writer.finish().unwrap().0
    }

    fn imported(file: &[u8], text: &str) -> Result<Vec<Vec<u8>>, TransferError> {
        let mut reader = ExportReader::new(file, &passphrase(text))?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record.to_vec());
        }
        Ok(records)
    }

    #[test]
    fn records_come_out_as_they_went_in_with_the_right_passphrase_alone() {
        let records: [&[u8]; 3] = [b"one", b"", b"canary"];
        for records in [&records[..0], &records[..1], &records[..]] {
            let file = exported(records);
            assert_eq!(imported(&file, "right").unwrap(), records);
            assert_eq!(imported(&file, "wrong").unwrap_err(), TransferError::WrongPassphrase);
            assert!(!file.windows(6).any(|window| window == b"canary"));
        }
        assert_ne!(exported(&[b"one"]), exported(&[b"one"]));
    }

    #[test]
    fn a_file_that_was_cut_extended_or_changed_in_any_byte_is_refused() {
        let file = exported(&[b"one", b"two"]);
        for length in 0..file.len() {
            imported(&file[..length], "right").unwrap_err();
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            imported(&changed, "right").unwrap_err();
        }
        assert_eq!(imported(&[&file[..], b"x"].concat(), "right").unwrap_err(), TransferError::Damaged);
        assert_eq!(imported(b"something else altogether", "right").unwrap_err(), TransferError::NotAnExport);
    }

    #[test]
    fn chunks_cannot_be_left_out_repeated_or_moved() {
        let file = exported(&[b"one", b"two"]);
        let (header, mut rest) = file.split_at(MAGIC.len() + 1 + 12 + SALT_BYTES);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            chunks.push(&rest[..4 + length]);
            rest = &rest[4 + length..];
        }
        for order in
            [&[0, 1, 2, 3][..], &[0, 2, 1, 3], &[0, 1, 3], &[0, 3], &[0, 1, 1, 3], &[0, 1, 2], &[1, 2, 3]]
        {
            let moved: Vec<_> = order.iter().map(|index| chunks[*index]).collect();
            let outcome = imported(&[header, &moved.concat()].concat(), "right");
            assert_eq!(outcome.is_ok(), order == [0, 1, 2, 3], "{order:?}");
        }
    }

    async fn import(to: &Vault, file: &Path) -> Result<u64, TransferError> {
        to.import(ExportFile::open(file, &passphrase("right"))?).await
    }

    #[tokio::test]
    async fn a_vault_moves_to_another_one_with_another_key_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("export");
        let from = vault(directory.path(), 1, 0..130).await;
        from.write(&id(7), Some(1), b"7", None).await.unwrap();
        assert_eq!(from.export(&file, &passphrase("right"), &[]).await.unwrap(), 130);
        #[cfg(unix)]
        crate::vault::files::refuse_exposed(&file, "600").unwrap();

        let to = vault(directory.path(), 2, 200..201).await;
        let wrong = ExportFile::open(&file, &passphrase("wrong")).unwrap_err();
        assert_eq!((wrong, count(&to).await), (TransferError::WrongPassphrase, 1));
        assert_eq!(import(&to, &file).await.unwrap(), 130);
        for number in 0..130 {
            let record = to.read(&id(number)).await.unwrap().unwrap();
            assert_eq!((record.version, &record.plaintext[..]), (1, number.to_string().as_bytes()));
        }
        let again = import(&to, &file).await.unwrap_err();
        assert_eq!((again, count(&to).await), (TransferError::Exists(130), 131));
    }

    #[tokio::test]
    async fn an_import_adds_all_records_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("export");
        vault(directory.path(), 1, 0..5).await.export(&file, &passphrase("right"), &[]).await.unwrap();
        let to = vault(directory.path(), 2, 4..5).await;
        let error = import(&to, &file).await.unwrap_err();
        assert_eq!((error, count(&to).await), (TransferError::Exists(1), 1));

        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        let to = vault(directory.path(), 3, 0..0).await;
        let error = import(&to, &file).await.unwrap_err();
        assert_eq!((error, count(&to).await), (TransferError::Damaged, 0));
    }

    #[test]
    fn a_chunk_that_claims_to_be_too_long_is_not_read() {
        let mut file = Vec::new();
        ExportWriter::new(&mut file, &passphrase("right"), CHEAP).unwrap();
        let header = MAGIC.len() + 1 + 3 * size_of::<u32>() + SALT_BYTES;
        file.truncate(header);
        file.extend_from_slice(&u32::MAX.to_be_bytes());
        // All that it claims is there.
        let mut rest = io::repeat(0).take(u32::MAX.into());
        let long = io::Cursor::new(file).chain(&mut rest);
        let error = ExportReader::new(long, &passphrase("right")).map(|_| ()).unwrap_err();
        assert_eq!((error, rest.limit()), (TransferError::Damaged, u32::MAX.into()));
    }

    #[tokio::test]
    async fn an_export_replaces_no_file_and_leaves_no_partial_one() {
        let directory = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("export");
        std::fs::write(&file, "dear").unwrap();
        let from = vault(directory.path(), 1, 0..1).await;
        let error = from.export(&file, &passphrase("right"), &[]).await.unwrap_err();
        assert!(matches!(error, TransferError::File { reason: io::ErrorKind::AlreadyExists, .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), b"dear");
        let other = vault(directory.path(), 2, 0..0).await;
        let row = from.database.rows_after(None, 1).await.unwrap().remove(0);
        let mut import = other.database.import().await.unwrap();
        let sealed = other.sealer().seal(&id(9), 1, b"9").unwrap();
        assert!(import.insert(&Row { sealed, ..row }).await.unwrap());
        import.commit().await.unwrap();
        let error = other.export(&out.path().join("other"), &passphrase("right"), &[]).await.unwrap_err();
        assert_eq!(error, TransferError::Vault(Error::Tampered));
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
    }
}
