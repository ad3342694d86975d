//! Dynamic client registration (RFC 7591). Nothing is stored: the id of a client is its registration, encrypted and
//! authenticated. So registrations cannot flood the vault, every replica knows every client, and no id expires.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{AeadInOut as _, KeyInit as _},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Client, ClientKind, display_name, metadata, redirect_uri};
use crate::{
    clock::Timestamp,
    oauth::{
        OAuthError,
        server_keys::{Purpose, ServerKeys},
    },
};

/// Start of the ids of these clients.
pub const PREFIX: &str = "dcr-";

/// Longest registration that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Longest id, in bytes: it goes into URLs.
const MAX_ID_BYTES: usize = 2048;

/// Largest number of redirect URIs that is looked at.
const MAX_REDIRECT_URIS: usize = 32;

const NONCE_BYTES: usize = 24;

/// Seals and opens registrations.
pub struct Registrations {
    cipher: XChaCha20Poly1305,
}

/// What is in an id: when it was issued (in seconds since the epoch), the name, the redirect URIs.
type Sealed = (i64, Option<String>, Vec<String>);

/// Client metadata (RFC 7591, section 2), as far as they count here.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    redirect_uris: Vec<Value>,
    #[serde(default)]
    client_name: Value,
}

impl Registrations {
    /// The key comes from the server's secret, so that ids survive a change of the sealing key.
    pub fn new(keys: &ServerKeys) -> Self {
        let key = keys.mac(Purpose::Registration, &[]);
        Self { cipher: XChaCha20Poly1305::new((&*key).into()) }
    }

    /// Answers a registration request (RFC 7591, section 3). Every client becomes a public one, whatever it asked for:
    /// the server may replace what a client asks for, and says so in the answer (section 3.2.1). A secret would have to
    /// be stored or be in the id, and PKCE protects the code without one.
    pub fn register(&self, body: &[u8], now: Timestamp) -> Result<Value, OAuthError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(invalid_metadata("The registration is too large."));
        }
        let metadata: Metadata = metadata(body)
            .ok_or_else(|| invalid_metadata("The registration must be a JSON object with redirect_uris."))?;
        let given = metadata.redirect_uris.iter().take(MAX_REDIRECT_URIS).filter_map(Value::as_str);
        let redirect_uris = redirect_uri::acceptable(given);
        if redirect_uris.is_empty() {
            return Err(OAuthError::bad_request(
                "invalid_redirect_uri",
                "Register at least one redirect URI: https, http on loopback, or a private-use scheme with a dot, without a \
                 user name and a fragment.",
            ));
        }
        let name = metadata.client_name.as_str().and_then(display_name);
        let registration: Sealed = (now.timestamp(), name, redirect_uris);
        let id = self.seal(&registration).ok_or_else(|| {
            invalid_metadata("The registration is too large. Register fewer or shorter redirect URIs.")
        })?;
        let (issued_at, name, redirect_uris) = registration;
        let mut answer = json!({
            "client_id": id,
            "client_id_issued_at": issued_at,
            "redirect_uris": redirect_uris,
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        });
        if let Some(name) = name {
            answer["client_name"] = name.into();
        }
        Ok(answer)
    }

    /// Returns the client whose registration the id is.
    pub fn client(&self, id: &str) -> Option<Client> {
        let (_, name, redirect_uris) = self.open_id(id)?;
        Some(Client { id: id.to_owned(), kind: ClientKind::Dynamic, name, redirect_uris })
    }

    /// Returns the id; `None` if it would be too long.
    fn seal(&self, registration: &Sealed) -> Option<String> {
        let mut buffer = serde_json::to_vec(registration).ok()?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        self.cipher.encrypt_in_place(&nonce.into(), &[], &mut buffer).ok()?;
        let id = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&nonce[..], &buffer].concat()));
        (id.len() <= MAX_ID_BYTES).then_some(id)
    }

    fn open_id(&self, id: &str) -> Option<Sealed> {
        let encoded = id.strip_prefix(PREFIX).filter(|_| id.len() <= MAX_ID_BYTES)?;
        let sealed = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let mut buffer = ciphertext.to_vec();
        self.cipher.decrypt_in_place(nonce.into(), &[], &mut buffer).ok()?;
        serde_json::from_slice(&buffer).ok()
    }
}

impl fmt::Debug for Registrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registrations")
    }
}

fn invalid_metadata(description: &'static str) -> OAuthError {
    OAuthError::bad_request("invalid_client_metadata", description)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            ClientError, Network,
            testing::{World, form},
        },
        *,
    };

    async fn world() -> World {
        World::new(Network::public()).await
    }

    fn register(world: &World, metadata: &Value) -> Result<Value, OAuthError> {
        world.clients.register(metadata.to_string().as_bytes())
    }

    fn id(answer: &Value) -> &str {
        answer["client_id"].as_str().unwrap()
    }

    #[tokio::test]
    async fn an_id_is_the_registration_and_every_replica_knows_it() {
        let world = world().await;
        // As Visual Studio Code registers.
        let redirect_uris = [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://localhost/",
            "http://127.0.0.1/",
            "http://localhost:33418/",
            "http://127.0.0.1:33418/",
        ];
        let answer = register(
            &world,
            &json!({
                "client_name": "Visual Studio Code",
                "client_uri": "https://code.visualstudio.com",
                "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
                "response_types": ["code"],
                "redirect_uris": redirect_uris,
                "scope": "models health",
                "token_endpoint_auth_method": "none",
                "application_type": "native",
            }),
        );
        let answer = answer.unwrap();
        assert!(id(&answer).len() < 600);
        let expected = json!({
            "client_id": id(&answer),
            "client_id_issued_at": world.clock.now().timestamp(),
            "client_name": "Visual Studio Code",
            "redirect_uris": redirect_uris,
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        });
        assert_eq!(answer, expected);

        let replica = world.replica().await;
        let client = replica.find(id(&answer), None).await.unwrap();
        assert_eq!((client.kind, client.name.as_deref()), (ClientKind::Dynamic, Some("Visual Studio Code")));
        assert!(client.allows_redirect("http://127.0.0.1:61234/"));
        assert!(!client.allows_redirect("http://127.0.0.1:61234/other"));
        let authenticated = replica.authenticate(None, &form(&[("client_id", id(&answer))])).await.unwrap();
        assert_eq!(authenticated, client);
    }

    #[tokio::test]
    async fn hosts_are_registered_as_they_ask() {
        let world = world().await;
        for (name, registered, method, used) in [
            (
                "Claude",
                "https://claude.ai/api/mcp/auth_callback",
                "client_secret_post",
                "https://claude.ai/api/mcp/auth_callback",
            ),
            (
                "Claude Code (bond)",
                "http://localhost:54545/callback",
                "none",
                "http://localhost:61000/callback",
            ),
            (
                "ChatGPT",
                "https://chatgpt.com/connector_platform_oauth_redirect",
                "client_secret_basic",
                "https://chatgpt.com/connector_platform_oauth_redirect",
            ),
            ("Codex", "http://127.0.0.1:41234/callback", "none", "http://127.0.0.1:41234/callback"),
            (
                "MCP CLI Proxy",
                "http://localhost:3334/oauth/callback",
                "none",
                "http://localhost:40000/oauth/callback",
            ),
            (
                "MCP Inspector",
                "http://localhost:6274/oauth/callback/debug",
                "none",
                "http://localhost:6274/oauth/callback/debug",
            ),
        ] {
            let metadata = json!({
                "client_name": name,
                "redirect_uris": [registered],
                "token_endpoint_auth_method": method,
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "scope": " models health keys offline_access",
                "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d",
                "contacts": [],
            });
            let answer = register(&world, &metadata).unwrap();
            let client = world.clients.find(id(&answer), Some(used)).await.unwrap();
            assert_eq!(client.name.as_deref(), Some(name));
            assert!(client.allows_redirect(used), "{name}");
        }
    }

    #[tokio::test]
    async fn a_strange_redirect_uri_is_left_out() {
        let world = world().await;
        // As Cursor registers, with something strange among them.
        let answer = register(
            &world,
            &json!({"redirect_uris": [
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "javascript:alert(1)",
                7,
                "https://www.cursor.com/agents/mcp/oauth/callback",
                "http://localhost:8787/callback",
                "http://localhost:8787/callback",
            ]}),
        );
        let kept = json!([
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ]);
        assert_eq!(answer.unwrap()["redirect_uris"], kept);
    }

    // RFC 9700, section 4.1; MCP authorization, "Open Redirection"; RFC 7591, section 5.
    #[tokio::test]
    async fn a_registration_without_a_usable_redirect_uri_is_refused() {
        let world = world().await;
        for uris in [
            json!([]),
            json!(["javascript:alert(1)", "http://client.example/cb", "https://client.example/cb#x"]),
            json!([null, {}, 7]),
        ] {
            let error = register(&world, &json!({"redirect_uris": uris})).unwrap_err();
            assert_eq!((error.status, error.code), (400, "invalid_redirect_uri"), "{uris}");
        }
        for body in [
            &b""[..],
            b"{",
            b"[]",
            br#"[["https://client.example/"]]"#,
            b"null",
            b"\xff",
            br#"{"redirect_uris": "https://client.example/"}"#,
        ] {
            let error = world.clients.register(body).unwrap_err();
            assert_eq!((error.status, error.code), (400, "invalid_client_metadata"));
        }
    }

    // MCP authorization, "Dynamic Client Registration", and so RFC 7591, section 5: registration open to everybody must not
    // exhaust the server.
    #[tokio::test]
    async fn an_id_fits_into_a_url_and_megabytes_are_refused() {
        let world = world().await;
        let uri = |n: usize| format!("https://client.example/{n}/{}", "a".repeat(460));
        let fitting: Vec<_> = (0..2).map(uri).collect();
        assert!(id(&register(&world, &json!({"redirect_uris": fitting})).unwrap()).len() <= MAX_ID_BYTES);
        let many: Vec<_> = (0..5).map(uri).collect();
        let error = register(&world, &json!({"redirect_uris": many})).unwrap_err();
        assert_eq!((error.status, error.code), (400, "invalid_client_metadata"));

        let huge = json!({"redirect_uris": ["https://client.example/"], "client_name": "x".repeat(5 << 20)});
        assert_eq!(register(&world, &huge).unwrap_err().code, "invalid_client_metadata");
        let endless: Vec<_> = (0..2000).map(|n| format!("javascript:{n}")).collect();
        assert_eq!(
            register(&world, &json!({"redirect_uris": endless})).unwrap_err().code,
            "invalid_redirect_uri"
        );
    }

    #[tokio::test]
    async fn a_name_is_made_safe_to_display() {
        let world = world().await;
        for (claimed, shown) in [
            (json!("  Claude\u{202e}\u{200b}\r\n Code\u{1b}[31m "), json!("Claude Code[31m")),
            (json!("x".repeat(65)), json!("x".repeat(63) + "…")),
            (json!("\u{200b}\u{202e}"), Value::Null),
            (json!(" "), Value::Null),
            (json!(7), Value::Null),
            (Value::Null, Value::Null),
        ] {
            let metadata = json!({"redirect_uris": ["https://client.example/"], "client_name": claimed});
            assert_eq!(register(&world, &metadata).unwrap()["client_name"], shown, "{claimed}");
        }
    }

    // Whatever a client asks for, it becomes a public one, and the answer says so (RFC 7591, section 3.2.1).
    #[tokio::test]
    async fn nobody_gets_a_secret() {
        let world = world().await;
        for method in ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] {
            let metadata =
                json!({"redirect_uris": ["https://client.example/"], "token_endpoint_auth_method": method});
            let answer = register(&world, &metadata).unwrap();
            assert_eq!(answer["token_endpoint_auth_method"], "none");
            assert_eq!(answer.get("client_secret"), None);
        }
    }

    #[tokio::test]
    async fn an_id_that_was_changed_or_made_elsewhere_is_unknown() {
        let world = world().await;
        let registration = json!({"redirect_uris": ["https://client.example/"]});
        let answer = register(&world, &registration).unwrap();
        let id = id(&answer);
        let of_another_server = register(&self::world().await, &registration).unwrap();
        let mut ids: Vec<String> = (PREFIX.len()..id.len())
            .map(|at| {
                let other = if &id[at..=at] == "A" { "B" } else { "A" };
                format!("{}{other}{}", &id[..at], &id[at + 1..])
            })
            .filter(|changed| changed != id)
            .collect();
        ids.extend([
            PREFIX.to_owned(),
            format!("{PREFIX}AAAA"),
            format!("{PREFIX}!"),
            format!("{id}A"),
            format!("{id}="),
            id.to_uppercase(),
            id[..id.len() - 1].to_owned(),
            "x".repeat(1 << 20),
            String::new(),
            self::id(&of_another_server).to_owned(),
        ]);
        for changed in &ids {
            let found = world.clients.find(changed, None).await;
            assert!(matches!(found, Err(ClientError::Unknown(_))), "{changed}");
        }
        for changed in ids.iter().filter(|id| !id.is_empty()).rev().take(20) {
            let refused =
                world.clients.authenticate(None, &form(&[("client_id", changed)])).await.unwrap_err();
            assert_eq!((refused.status, refused.code), (401, "invalid_client"));
        }
        assert!(world.clients.find(id, None).await.is_ok());
    }
}
