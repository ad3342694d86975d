//! The URL of the vault in PostgreSQL. It may have a password, and so it is shown in part only.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;
use url::{Host, Url};

use super::ConfigError;
use crate::secret::{ExposeSecret as _, SecretString};

/// What the URL can say after `?`. Others are refused, since a misplaced password looks like one.
const PARAMETERS: [&str; 9] =
    ["host", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey"];

/// The URL of a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresUrl {
    pub(super) url: SecretString,
    pub(super) password: Option<SecretString>,
    /// Host, port and database.
    pub(super) shown: String,
}

impl PostgresUrl {
    /// Returns the whole URL.
    #[must_use]
    pub fn expose(&self) -> &SecretString {
        &self.url
    }
}

impl FromStr for PostgresUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut url = Url::parse(text).map_err(|_| ConfigError::Vault)?;
        let parameter = |name: &str| {
            let given = url.query_pairs().filter(|(key, _)| key == name);
            given.last().map(|(_, value)| value.into_owned())
        };
        let is_database = matches!(url.scheme(), "postgres" | "postgresql") && url.fragment().is_none();
        let host = parameter("host").or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default();
        if !is_database || host.is_empty() {
            return Err(ConfigError::Vault);
        }
        if url.query_pairs().any(|(key, _)| !PARAMETERS.contains(&&*key)) {
            return Err(ConfigError::VaultParameter);
        }
        let password = parameter("password").or_else(|| {
            let password = percent_decode_str(url.password()?).decode_utf8();
            password.ok().map(std::borrow::Cow::into_owned)
        });
        // Like sqlx, which takes either case.
        match parameter("sslmode").map(|mode| mode.to_ascii_lowercase()).as_deref() {
            None if !is_local(&host) => {
                url.query_pairs_mut().append_pair("sslmode", "verify-full");
            }
            Some("allow" | "prefer") if !is_local(&host) => return Err(ConfigError::VaultClearText),
            _ => {}
        }
        let options = PgConnectOptions::from_str(url.as_str()).map_err(|_| ConfigError::Vault)?;
        // What has these in it is a part of a password that was not encoded.
        let database = options.get_database().filter(|name| !name.contains(['/', '@']));
        let database = database.ok_or(ConfigError::Vault)?;
        let shown = match options.get_socket() {
            Some(directory) => format!("postgres:///{database}?host={}", directory.display()),
            None => format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()),
        };
        Ok(Self { url: String::from(url).into(), password: password.map(SecretString::from), shown })
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.url.expose_secret() == other.url.expose_secret()
    }
}

/// Whether a connection to the host stays on this machine.
fn is_local(host: &str) -> bool {
    if host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f") {
        return true;
    }
    match Host::parse(host) {
        Ok(Host::Domain(name)) => name == "localhost",
        Ok(Host::Ipv4(address)) => address.is_loopback(),
        Ok(Host::Ipv6(address)) => address.is_loopback(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresUrl, ConfigError> {
        text.parse()
    }

    #[test]
    fn a_url_is_shown_without_user_and_password() {
        for (url, shown) in [
            ("postgres://ada:canary@127.0.0.1/vault", "postgres://127.0.0.1:5432/vault"),
            ("postgresql://ada@db.example:5433/vault?password=canary", "postgres://db.example:5433/vault"),
            (
                "postgres:///vault?host=/run/postgresql&password=canary",
                "postgres:///vault?host=/run/postgresql",
            ),
            ("postgres://ada:canary@%2Frun%2Fpostgresql/vault", "postgres:///vault?host=/run/postgresql"),
        ] {
            let parsed = parse(url).unwrap();
            assert_eq!(parsed.shown, shown);
            assert_eq!(parsed.password.as_ref().unwrap().expose_secret(), "canary");
            assert!(!format!("{parsed:?}").contains("canary"));
        }
    }

    #[test]
    fn without_a_mode_the_connection_over_a_network_is_encrypted_and_the_server_verified() {
        let mode = |url: &str| {
            let url = Url::parse(parse(url).unwrap().url.expose_secret()).unwrap();
            url.query_pairs().find(|(key, _)| key == "sslmode").map(|(_, mode)| mode.into_owned())
        };
        assert_eq!(mode("postgres://u@db.example/vault").as_deref(), Some("verify-full"));
        assert_eq!(mode("postgres://u@localhost.example/vault").as_deref(), Some("verify-full"));
        assert_eq!(mode("postgres://u@127.0.0.1/vault?host=10.0.0.1").as_deref(), Some("verify-full"));
        for stated in ["require", "verify-ca", "verify-full", "disable"] {
            assert_eq!(
                mode(&format!("postgres://u@db.example/vault?sslmode={stated}")).as_deref(),
                Some(stated)
            );
        }
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(mode(&format!("postgres://u@{local}/vault")), None, "{local}");
        }
        for fallback in ["allow", "prefer", "Prefer", "ALLOW"] {
            let url = format!("postgres://u@db.example/vault?sslmode={fallback}");
            assert_eq!(parse(&url), Err(ConfigError::VaultClearText));
        }
    }

    #[test]
    fn a_password_in_the_wrong_place_is_refused_and_not_repeated() {
        for url in [
            "postgres://ada:can?ary@db.example/vault",
            "postgres://ada:12?ary=canary@db.example/vault",
            "postgres://ada:12#canary@db.example/vault",
            "postgres://ada:12/canary@db.example/vault",
            "postgres://db.example/vault?passwort=canary",
            "postgres://db.example/vault?sslmode=canary",
            "postgres://db.example",
            "postgres:///vault",
            "mysql://ada:canary@db.example/vault",
            "vault.db",
        ] {
            let error = parse(url).unwrap_err();
            assert!(matches!(error, ConfigError::Vault | ConfigError::VaultParameter), "{url}: {error}");
            assert!(!error.to_string().contains("canary"));
        }
    }
}
