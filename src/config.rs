//! The operator's configuration, checked once at startup: the upstream, the profile, the data directory and the
//! credentials in the environment. Nothing in it comes from an agent.

mod postgres_url;
mod public_origin;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use directories::ProjectDirs;
use url::{Host, Url};

pub use self::{
    postgres_url::PostgresUrl,
    public_origin::{PublicOrigin, PublicOriginError},
};
use crate::secret::{ExposeSecret as _, SecretString};

/// The base URL that BondMCP documents.
pub const DEFAULT_BASE_URL: &str = "https://t9xbkyb7mg.us-east-1.awsapprunner.com/mcp";

/// Name of the vault's file in the data directory.
pub const SQLITE_FILE: &str = "vault.db";

/// Removes the variables of this program from the environment of another one: some of them hold secrets.
pub fn remove_variables(command: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        // Windows does not tell upper from lower case.
        if name.to_string_lossy().to_ascii_uppercase().starts_with("BONDMCP_") {
            command.env_remove(name);
        }
    }
}

/// Errors in the configuration; every message says how to correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "the base URL is not a valid URL ({0}); give one such as {DEFAULT_BASE_URL} with --base-url or BONDMCP_BASE_URL"
    )]
    BaseUrlSyntax(url::ParseError),
    #[error(
        "the base URL must begin with https:// because credentials travel to it; http:// is allowed for loopback only"
    )]
    BaseUrlInsecure,
    #[error(
        "the base URL must not carry a user name, password, query or fragment; leave only scheme, host and path"
    )]
    BaseUrlExtra,
    #[error("a profile name has 1 to 64 letters, digits, '-', '_' or '.', and does not begin with '.'")]
    Profile,
    #[error(
        "there is no home directory to store data in; name a directory with --data-dir or BONDMCP_DATA_DIR"
    )]
    NoHome,
    #[error(
        "BONDMCP_VAULT must be sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE; write special characters in the password as %XX"
    )]
    Vault,
    #[error(
        "BONDMCP_VAULT has a parameter that is not known; these are: host, port, dbname, user, password, sslmode, sslrootcert, sslcert, sslkey"
    )]
    VaultParameter,
    #[error(
        "BONDMCP_VAULT would let the connection fall back to clear text; give sslmode=verify-full (the default), verify-ca or require, or sslmode=disable where the network itself is protected"
    )]
    VaultClearText,
    #[error("{0} is not valid UTF-8")]
    NotUnicode(&'static str),
    #[error("BONDMCP_EMAIL and BONDMCP_PASSWORD go together; {0} is missing")]
    HalfCredentials(&'static str),
    /// Credentials are sent to no other base URL than the one they were configured for.
    #[error(
        "the credentials in the environment (BONDMCP_EMAIL, BONDMCP_PASSWORD, BONDMCP_API_KEY) are for {own}, but --base-url names {given}; unset them, or set BONDMCP_BASE_URL to {given}"
    )]
    CredentialsForOther { own: String, given: String },
    #[error("BONDMCP_SEALING_KEY and BONDMCP_SEALING_KEY_FILE exclude each other; unset one")]
    TwoSealingKeys,
}

/// The upstream's base URL: HTTPS, or HTTP to a loopback host. Every request goes below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Returns the URL of the endpoint at `segments` below the base. Each segment is escaped, so that none can leave
    /// the base path.
    #[must_use]
    pub fn endpoint(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // The URL parser drops these characters, and looks for dots before and after that.
            let plain = segments.iter().map(|segment| segment.replace(['\t', '\n', '\r'], ""));
            path.pop_if_empty().extend(plain);
        }
        url
    }

    /// Whether requests are protected by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Returns the host, with the port if the URL has one, for messages.
    #[must_use]
    pub fn host(&self) -> String {
        self.0.authority().to_owned()
    }

    /// Returns the URL without a trailing slash, as it is shown to people and bound to vault records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let url = Url::parse(text).map_err(ConfigError::BaseUrlSyntax)?;
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(ConfigError::BaseUrlInsecure),
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(ConfigError::BaseUrlExtra);
        }
        Ok(Self(url))
    }
}

/// Name of a local account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile(String);

impl Profile {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Profile {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let fits = (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if fits { Ok(Self(name.to_owned())) } else { Err(ConfigError::Profile) }
    }
}

/// Where accounts are stored.
#[derive(Clone, Debug)]
pub enum VaultLocation {
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

impl VaultLocation {
    /// Whether the vault exists. A server must be asked, and what a broken link led to may be on a volume that is not
    /// mounted.
    #[must_use]
    pub fn exists(&self) -> bool {
        let is_broken_link = |path: &Path| path.is_symlink() && !path.exists();
        match self {
            Self::Sqlite(path) => {
                path.exists() || is_broken_link(path) || path.parent().is_some_and(is_broken_link)
            }
            Self::Postgres(_) => true,
        }
    }

    /// Returns the secrets in it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        let url = match self {
            Self::Sqlite(_) => None,
            Self::Postgres(url) => Some(url),
        };
        url.into_iter().flat_map(|url| std::iter::once(&url.url).chain(&url.password))
    }
}

impl fmt::Display for VaultLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => f.write_str(&url.shown),
        }
    }
}

/// The source of the sealing keys.
#[derive(Clone, Debug)]
pub enum SealingKeySource {
    /// The keys themselves, base64 or hex, of 32 bytes; the first one is the newest.
    Given(SecretString),
    /// A file that holds the keys.
    File(PathBuf),
    /// The OS keychain, or a key file in the data directory where no keychain answers.
    KeychainOrFile,
}

impl SealingKeySource {
    /// Returns the keys, as they are written, that the source itself contains.
    pub fn secrets(&self) -> impl Iterator<Item = SecretString> {
        let given = match self {
            Self::Given(text) => text.expose_secret(),
            Self::File(_) | Self::KeychainOrFile => "",
        };
        keys_in(given).map(SecretString::from)
    }
}

/// Splits the text of several sealing keys, which are separated by commas or white space.
pub fn keys_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|key| !key.is_empty())
}

/// Credentials from the environment; used and never stored.
#[derive(Clone, Debug, Default)]
pub struct EnvironmentCredentials {
    pub api_key: Option<SecretString>,
    pub login: Option<EnvironmentLogin>,
}

impl EnvironmentCredentials {
    /// Returns the secrets among them.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretString> {
        self.api_key.iter().chain(self.login.iter().map(|login| &login.password))
    }
}

/// `BONDMCP_EMAIL` and `BONDMCP_PASSWORD`.
#[derive(Clone, Debug)]
pub struct EnvironmentLogin {
    pub email: String,
    pub password: SecretString,
}

/// Settings from the command line; they override the environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub base_url: Option<String>,
    pub profile: Option<String>,
    pub data_dir: Option<PathBuf>,
}

/// The operator's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub base_url: BaseUrl,
    pub profile: Profile,
    pub data_dir: PathBuf,
    pub vault: VaultLocation,
    pub sealing_key: SealingKeySource,
    pub environment: EnvironmentCredentials,
}

impl Settings {
    /// Reads the settings from the flags and `environment`, a lookup of variables by name; `default_data_dir` is used
    /// when neither names a data directory.
    ///
    /// # Errors
    /// When a value is missing or wrong, or when credentials from the environment would be sent to another base URL than
    /// theirs: `BONDMCP_BASE_URL` or, without it, the default.
    pub fn load(
        flags: Flags,
        default_data_dir: Option<PathBuf>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let environment = Environment(environment);
        let credentials = environment.credentials()?;
        let base_url = match flags.base_url {
            Some(url) => {
                let given: BaseUrl = url.parse()?;
                // A user who passes the flag may not know which credentials the environment contains.
                if credentials.secrets().next().is_some() {
                    let own = environment.base_url()?;
                    if own.as_str() != given.as_str() {
                        return Err(ConfigError::CredentialsForOther {
                            own: own.to_string(),
                            given: given.to_string(),
                        });
                    }
                }
                given
            }
            None => environment.base_url()?,
        };
        let profile = match flags.profile {
            Some(name) => Some(name),
            None => environment.text("BONDMCP_PROFILE")?,
        };
        let data_dir = flags
            .data_dir
            .or_else(|| environment.path("BONDMCP_DATA_DIR"))
            .or(default_data_dir)
            .ok_or(ConfigError::NoHome)?;
        Ok(Self {
            base_url,
            profile: profile.map_or_else(|| Ok(Profile::default()), |name| name.parse())?,
            vault: environment.vault(&data_dir)?,
            sealing_key: environment.sealing_key()?,
            environment: credentials,
            data_dir,
        })
    }
}

/// Returns the platform's directory for this program's data; `None` without a home directory.
#[must_use]
pub fn default_data_dir() -> Option<PathBuf> {
    Some(ProjectDirs::from("com", "BondMCP", "bondmcp-server")?.data_dir().into())
}

/// Looks up variables by name; an empty one counts as unset, as hosts pass unset fields that way.
struct Environment<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        match (self.0)(name) {
            None => Ok(None),
            Some(value) => match value.into_string() {
                Ok(text) if text.is_empty() => Ok(None),
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(ConfigError::NotUnicode(name)),
            },
        }
    }

    /// Returns the base URL that the credentials in this environment belong to.
    fn base_url(&self) -> Result<BaseUrl, ConfigError> {
        self.text("BONDMCP_BASE_URL")?.as_deref().unwrap_or(DEFAULT_BASE_URL).parse()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|v| !v.is_empty()).map(PathBuf::from)
    }

    fn vault(&self, data_dir: &Path) -> Result<VaultLocation, ConfigError> {
        match self.text("BONDMCP_VAULT")? {
            None => Ok(VaultLocation::Sqlite(data_dir.join(SQLITE_FILE))),
            Some(url) => match url.strip_prefix("sqlite://") {
                Some("") => Err(ConfigError::Vault),
                Some(path) => Ok(VaultLocation::Sqlite(path.into())),
                None => Ok(VaultLocation::Postgres(url.parse()?)),
            },
        }
    }

    fn sealing_key(&self) -> Result<SealingKeySource, ConfigError> {
        match (self.text("BONDMCP_SEALING_KEY")?, self.path("BONDMCP_SEALING_KEY_FILE")) {
            (Some(_), Some(_)) => Err(ConfigError::TwoSealingKeys),
            (Some(key), None) => Ok(SealingKeySource::Given(key.into())),
            (None, Some(path)) => Ok(SealingKeySource::File(path)),
            (None, None) => Ok(SealingKeySource::KeychainOrFile),
        }
    }

    fn credentials(&self) -> Result<EnvironmentCredentials, ConfigError> {
        let login = match (self.text("BONDMCP_EMAIL")?, self.text("BONDMCP_PASSWORD")?) {
            (Some(email), Some(password)) => Some(EnvironmentLogin { email, password: password.into() }),
            (None, None) => None,
            (None, Some(_)) => return Err(ConfigError::HalfCredentials("BONDMCP_EMAIL")),
            (Some(_), None) => return Err(ConfigError::HalfCredentials("BONDMCP_PASSWORD")),
        };
        Ok(EnvironmentCredentials { api_key: self.text("BONDMCP_API_KEY")?.map(SecretString::from), login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(EnvironmentLogin: serde::Serialize, fmt::Display);
    assert_not_impl_any!(SealingKeySource: serde::Serialize, fmt::Display);
    assert_not_impl_any!(Settings: serde::Serialize, fmt::Display);

    fn load(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let flags = Flags { data_dir: Some("/data".into()), ..Flags::default() };
        Settings::load(flags, None, |name| {
            let (_, value) = variables.iter().find(|(n, _)| *n == name)?;
            Some(OsString::from(value))
        })
    }

    #[test]
    fn the_documented_base_url_is_the_default() {
        assert_eq!(load(&[]).unwrap().base_url.as_str(), DEFAULT_BASE_URL);
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for url in ["http://127.0.0.1:9/mcp", "http://[::1]:9", "http://localhost/x"] {
            assert!(url.parse::<BaseUrl>().is_ok(), "{url}");
        }
        for url in [
            "http://api.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
        ] {
            assert_eq!(url.parse::<BaseUrl>(), Err(ConfigError::BaseUrlInsecure), "{url}");
        }
    }

    #[test]
    fn no_segment_leaves_the_base_path() {
        let url: BaseUrl = "https://api.example/mcp".parse().unwrap();
        for segment in ["..", ".", ".\t.", "\n..", "%2e%2e", "../..", "..\\..", "?x", "#x", "//evil.example"]
        {
            let endpoint = url.endpoint(&[segment, "admin"]);
            assert!(endpoint.as_str().starts_with("https://api.example/mcp/"), "{segment:?}: {endpoint}");
        }
    }

    #[test]
    fn a_base_url_carries_nothing_but_scheme_host_and_path() {
        for url in ["https://u@h/", "https://u:p@h/", "https://h/?k=v", "https://h/#f"] {
            assert_eq!(url.parse::<BaseUrl>(), Err(ConfigError::BaseUrlExtra), "{url}");
        }
    }

    #[test]
    fn an_endpoint_cannot_climb_out_of_the_base() {
        let base: BaseUrl = "https://h/mcp/".parse().unwrap();
        assert_eq!(
            base.endpoint(&["auth", "api-keys", "../../x?y#z"]).as_str(),
            "https://h/mcp/auth/api-keys/..%2F..%2Fx%3Fy%23z"
        );
    }

    #[test]
    fn profile_names_are_plain() {
        assert!("work-2".parse::<Profile>().is_ok());
        for name in ["", "..", "a/b", "ä", &"x".repeat(65)] {
            assert_eq!(name.parse::<Profile>(), Err(ConfigError::Profile), "{name}");
        }
    }

    #[test]
    fn an_e_mail_without_its_password_is_an_error() {
        assert_eq!(
            load(&[("BONDMCP_EMAIL", "a@b.c")]).unwrap_err(),
            ConfigError::HalfCredentials("BONDMCP_PASSWORD")
        );
    }

    #[test]
    fn without_a_home_a_data_directory_must_be_named() {
        let error = Settings::load(Flags::default(), None, |_| None).unwrap_err();
        assert!(error == ConfigError::NoHome && error.to_string().contains("--data-dir"));
    }

    #[test]
    fn credentials_are_for_the_base_url_of_their_environment() {
        let load = |flag: &str, variables: &[(&str, &str)]| {
            let flags =
                Flags { data_dir: Some("/data".into()), base_url: Some(flag.into()), ..Flags::default() };
            Settings::load(flags, None, |name| {
                let (_, value) = variables.iter().find(|(n, _)| *n == name)?;
                Some(OsString::from(value))
            })
        };
        let (own, key) = (("BONDMCP_BASE_URL", "https://own.example/mcp"), ("BONDMCP_API_KEY", "k"));
        assert!(load("https://own.example/mcp/", &[own, key]).is_ok());
        assert!(load(DEFAULT_BASE_URL, &[key]).is_ok());
        assert!(load("https://other.example", &[own]).is_ok());
        for (flag, variables) in [
            ("https://other.example", &[own, key][..]),
            ("https://own.example/other", &[own, key]),
            (DEFAULT_BASE_URL, &[own, key]),
            ("https://other.example", &[key]),
        ] {
            let error = load(flag, variables).unwrap_err();
            assert!(matches!(error, ConfigError::CredentialsForOther { .. }), "{flag}: {error}");
        }
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert!(load(&[("BONDMCP_API_KEY", "")]).unwrap().environment.api_key.is_none());
    }

    #[test]
    fn each_given_sealing_key_is_a_secret_of_its_own() {
        let settings = load(&[("BONDMCP_SEALING_KEY", "one, two\n")]).unwrap();
        let secrets: Vec<_> = settings.sealing_key.secrets().collect();
        assert_eq!(
            secrets.iter().map(crate::secret::ExposeSecret::expose_secret).collect::<Vec<_>>(),
            ["one", "two"]
        );
        assert_eq!(load(&[]).unwrap().sealing_key.secrets().count(), 0);
    }

    #[test]
    fn settings_do_not_show_the_secrets_they_hold() {
        let settings = load(&[
            ("BONDMCP_API_KEY", "canary-key"),
            ("BONDMCP_EMAIL", "a@b.c"),
            ("BONDMCP_PASSWORD", "canary-password"),
            ("BONDMCP_SEALING_KEY", "canary-sealing"),
        ])
        .unwrap();
        assert_eq!(settings.environment.login.as_ref().unwrap().password.expose_secret(), "canary-password");
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
