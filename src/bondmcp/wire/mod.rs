//! The requests and responses of BondMCP's public reference, as `Serialize`/`Deserialize` types. Unknown fields of
//! responses are kept where the agent may see them, and dropped where the response contains secrets.

pub mod health;
mod id;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::id::id;
pub use self::id::is_id;
use crate::secret::{ExposeSecret as _, SecretString};

/// Fields that this version does not know.
pub type Extra = Map<String, Value>;

/// Answer to `POST /auth/register`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Registered {
    #[serde(default)]
    pub message: Option<String>,
    #[serde(deserialize_with = "id")]
    pub user_id: String,
    pub email: String,
}

/// Answer to `POST /auth/login` and `POST /auth/refresh`.
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    #[serde(deserialize_with = "credential")]
    pub access_token: SecretString,
    /// Lifetime of the access token in seconds, if the upstream gives a plausible one.
    #[serde(default, deserialize_with = "lifetime")]
    pub expires_in: Option<u64>,
    #[serde(default, deserialize_with = "refresh_token")]
    pub refresh_token: Option<SecretString>,
    #[serde(default)]
    pub user: Option<User>,
}

/// Reads what is sent as a bearer token. No call could be made with anything else.
fn credential<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    let credential = SecretString::deserialize(deserializer)?;
    if is_bearer_token(&credential) {
        Ok(credential)
    } else {
        Err(serde::de::Error::custom("not a credential"))
    }
}

/// Reads a refresh token. One that cannot be sent is ignored, so that the session is renewed in another way; the access
/// token is valid all the same.
fn refresh_token<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::deserialize(deserializer)?.filter(is_bearer_token))
}

/// Whether this can be sent as a bearer token: it is visible ASCII (RFC 6750, 2.1), and not nothing.
fn is_bearer_token(credential: &SecretString) -> bool {
    let text = credential.expose_secret();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads a positive number of seconds, also as a string or with a fraction. Anything else is ignored, since the token
/// is valid all the same.
fn lifetime<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let seconds = match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; it is at least 1"
    )]
    Ok(seconds.filter(|seconds| *seconds >= 1.0).map(|seconds: f64| seconds as u64))
}

/// The user who logged in, if the upstream reports it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct User {
    #[serde(deserialize_with = "id")]
    pub id: String,
    #[serde(default)]
    pub email: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
}

/// Answer to `GET /auth/me`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Me {
    #[serde(deserialize_with = "id")]
    pub id: String,
    pub email: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub created_at: Option<String>,
    #[serde(default)]
    pub updated_at: Option<String>,
    #[serde(default)]
    pub subscription: Option<Subscription>,
}

/// The plan of an account.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Subscription {
    pub plan: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// One model of `GET /health-ai/models`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Model {
    pub id: String,
    pub name: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// An API key as it is listed, without its value.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ApiKey {
    #[serde(deserialize_with = "id")]
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_preview: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    #[serde(default = "active")]
    pub is_active: bool,
    /// Permissions of the key, if the upstream reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
}

/// A listed key without `is_active` is active.
const fn active() -> bool {
    true
}

/// Answer to `GET /auth/api-keys`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ApiKeyList {
    pub api_keys: Vec<ApiKey>,
}

/// Answer to creating or regenerating a key: the only time that its value is shown.
#[derive(Clone, Debug, Deserialize)]
pub struct NewApiKey {
    #[serde(deserialize_with = "id")]
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(deserialize_with = "credential")]
    pub api_key: SecretString,
    #[serde(default)]
    pub key_preview: Option<String>,
    #[serde(default)]
    pub created_at: Option<String>,
    /// When a regenerated key got its present value.
    #[serde(default)]
    pub regenerated_at: Option<String>,
    #[serde(default)]
    pub permissions: Option<Vec<Permission>>,
}

/// A permission of an API key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    Write,
    /// A permission that this version does not know; a rotated key keeps it.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(String),
}

/// Body of `POST /auth/api-keys`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CreateApiKey {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
}

/// Answer to `GET /api/v1/api-keys/usage/{id}`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct KeyUsage {
    #[serde(deserialize_with = "id")]
    pub key_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub usage_stats: UsageStats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    #[serde(default)]
    pub endpoints_used: Vec<EndpointUsage>,
}

/// Requests made with a key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct UsageStats {
    pub total_requests: u64,
    #[serde(default)]
    pub requests_today: u64,
    #[serde(default)]
    pub requests_this_month: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_used: Option<String>,
}

/// Requests per minute that the plan allows, and those that are left.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RateLimit {
    pub limit: u64,
    pub remaining: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<String>,
}

/// Requests to one endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct EndpointUsage {
    pub endpoint: String,
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Tokens: Serialize, std::fmt::Display);
    assert_not_impl_any!(NewApiKey: Serialize, std::fmt::Display);

    #[test]
    fn a_lifetime_in_any_writing_is_understood_and_none_refuses_the_login() {
        let expires_in = |written: &str| {
            let answer = format!(r#"{{"access_token":"t"{written}}}"#);
            serde_json::from_str::<Tokens>(&answer).unwrap().expires_in
        };
        for written in ["3600", "\"3600\"", "3600.0", "\" 3600.5 \""] {
            assert_eq!(expires_in(&format!(r#","expires_in":{written}"#)), Some(3600), "{written}");
        }
        assert_eq!(expires_in(r#","expires_in":1e300"#), Some(u64::MAX));
        for written in ["0", "-1", "null", "\"soon\"", "\"NaN\"", "[]", "{}", "true"] {
            assert_eq!(expires_in(&format!(r#","expires_in":{written}"#)), None, "{written}");
        }
        assert_eq!(expires_in(""), None);
    }

    #[test]
    fn a_credential_that_cannot_be_sent_is_refused() {
        let are_read = |value: &str| {
            let key = serde_json::json!({"id": "k", "name": "n", "api_key": value});
            let tokens = serde_json::json!({ "access_token": value });
            [
                serde_json::from_value::<NewApiKey>(key).is_ok(),
                serde_json::from_value::<Tokens>(tokens).is_ok(),
            ]
        };
        assert_eq!(are_read("bcp_a-b~1.=/+!"), [true, true]);
        for value in ["", " ", "bcp_a b", "bcp_a\n", "bcp_\0", "bcp_\u{1b}]0;a\u{7}", "bcp_\u{202e}é"] {
            assert_eq!(are_read(value), [false, false], "{value:?}");
        }
    }

    #[test]
    fn a_refresh_token_that_cannot_be_sent_is_ignored() {
        let is_read = |value: serde_json::Value| {
            let tokens = serde_json::json!({ "access_token": "t", "refresh_token": value });
            serde_json::from_value::<Tokens>(tokens).unwrap().refresh_token.is_some()
        };
        assert!(is_read("r-1".into()));
        for value in [Value::Null, "".into(), "a\nb".into(), "a b".into(), "é".into()] {
            assert!(!is_read(value.clone()), "{value}");
        }
    }

    #[test]
    fn answers_with_secrets_do_not_show_them_in_debug() {
        let tokens: Tokens = serde_json::from_str(
            r#"{"access_token":"canary-jwt","token_type":"bearer","expires_in":3600,"refresh_token":"canary-refresh"}"#,
        )
        .unwrap();
        let key: NewApiKey = serde_json::from_str(r#"{"id":"k","name":"n","api_key":"canary-key"}"#).unwrap();
        assert!(!format!("{tokens:?} {key:?}").contains("canary"));
    }
}
