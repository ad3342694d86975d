//! Accounts, servers and vaults that are open in the process of the tests.

use std::path::Path;

use bondmcp_server::{
    account::{Account, Accounts},
    bondmcp::{Client, Timing},
    clock::Clock,
    config::{Flags, SealingKeySource, Settings, VaultLocation},
    mcp::{BondMcp, Limits, Selection},
    redact::Redactor,
    secret::SecretString,
    sign_in::Options,
    vault::{Error, Keyring, Vault},
};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use super::{EMAIL, Place, secrets};

/// Starts the server of `place` in this process, signed in by its environment; the token ends it.
pub fn in_process(place: &Place, timing: Timing) -> (BondMcp, CancellationToken) {
    in_process_within(place, timing, Limits::default())
}

pub fn in_process_within(place: &Place, timing: Timing, limits: Limits) -> (BondMcp, CancellationToken) {
    let login = [("BONDMCP_EMAIL", EMAIL), ("BONDMCP_PASSWORD", secrets::text(&place.password))];
    let (accounts, _) = open(&settings(place, &login), Clock::system(), timing);
    in_process_of(accounts, None, limits)
}

/// Starts the server of `place` in this process with a sign-in page, not signed in; the token ends it.
pub fn in_process_with_page(place: &Place, limits: Limits) -> (BondMcp, CancellationToken) {
    let (accounts, _) = accounts(place);
    in_process_of(accounts, Some(Options::default()), limits)
}

fn in_process_of(accounts: Accounts, page: Option<Options>, limits: Limits) -> (BondMcp, CancellationToken) {
    let stopping = CancellationToken::new();
    let server = BondMcp::new(accounts, page, &Selection::default(), limits, stopping.clone()).unwrap();
    (server, stopping)
}

/// Serves `server` to the owner of the default profile, over a pipe in this process.
pub async fn serve(server: BondMcp, pipe: DuplexStream) -> std::io::Result<()> {
    let (input, output) = tokio::io::split(pipe);
    let owner = server.local_owner();
    bondmcp_server::transport::stdio::serve(server, owner, input, output, CancellationToken::new()).await
}

/// Returns the settings of `place`; variables in `more` come before its own.
pub fn settings(place: &Place, more: &[(&str, &str)]) -> Settings {
    let data_dir = place.data_dir();
    let own = [
        ("BONDMCP_BASE_URL", place.base_url.as_str()),
        ("BONDMCP_DATA_DIR", data_dir.to_str().unwrap()),
        ("BONDMCP_SEALING_KEY", secrets::text(&place.sealing_key)),
    ];
    Settings::load(Flags::default(), None, |name| {
        let mut variables = more.iter().chain(&own);
        variables.find(|(known, _)| *known == name).map(|(_, value)| value.into())
    })
    .unwrap()
}

/// Creates the accounts of a process with these settings, with the redactor of the process.
pub fn open(settings: &Settings, clock: Clock, timing: Timing) -> (Accounts, Redactor) {
    let redactor = Redactor::default();
    let client = Client::new(settings.base_url.clone(), redactor.clone(), clock.clone(), timing);
    (Accounts::new(settings, "bondmcp-server".to_owned(), client, clock, redactor.clone()), redactor)
}

/// Creates the account of `place` in this process, not signed in, with its redactor.
pub fn account(place: &Place) -> (Account, Redactor) {
    let (accounts, redactor) = accounts(place);
    (accounts.local(), redactor)
}

/// Creates the accounts of `place` in this process, with the redactor of the process.
pub fn accounts(place: &Place) -> (Accounts, Redactor) {
    accounts_in(place, None)
}

/// The same with a vault at this URL; `None` for SQLite in the place's directory.
pub fn accounts_in(place: &Place, vault: Option<&str>) -> (Accounts, Redactor) {
    let vault = vault.map(|url| ("BONDMCP_VAULT", url));
    open(&settings(place, vault.as_slice()), Clock::system(), Timing::default())
}

/// Opens a vault as a process does that has these keys, each of one byte.
pub async fn vault(location: &VaultLocation, keys: &[u8]) -> Result<Vault, Error> {
    let keys: Vec<_> = keys.iter().map(|key| format!("{key:02x}").repeat(32)).collect();
    open_vault(location, keys.join(",").into()).await
}

pub async fn open_vault(location: &VaultLocation, keys: SecretString) -> Result<Vault, Error> {
    let (keyring, _) = Keyring::load(&SealingKeySource::Given(keys), Path::new(""), location).await?;
    Vault::open(location, keyring).await
}
