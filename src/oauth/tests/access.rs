//! Access tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

/// Splits a token into its header, its claims and its signature.
fn parts(token: &SecretString) -> (Value, Value, String) {
    let parts: Vec<_> = token.expose_secret().split('.').collect();
    let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(parts[0]), json(parts[1]), parts[2].to_owned())
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

async fn reason(server: &AuthorizationServer, token: &str) -> &'static str {
    match server.verify(&token.into()).await {
        Err(AccessError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// RFC 9068, section 2.
#[tokio::test]
async fn a_token_is_for_this_server_and_says_whose_it_is() {
    let hosting = Hosting::new().await;
    let (tokens, grant) = hosting.tokens().await;
    let (header, claims, _) = parts(&tokens.access_token);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("EdDSA")));
    let now = hosting.clock.now().timestamp();
    let (jti, kid) = (claims["jti"].as_str().unwrap(), header["kid"].as_str().unwrap());
    assert!(jti.len() == 32 && kid.len() == 43);
    assert_eq!(
        claims,
        json!({
            "iss": "https://bond.example.com",
            "aud": "https://bond.example.com/mcp",
            "sub": grant.subject.as_str(),
            "client_id": hosting.client,
            "grant_id": grant.id.as_str(),
            "scope": "models health keys",
            "jti": jti,
            "iat": now,
            "exp": now + 900,
        })
    );
    assert!(!format!("{tokens:?}").contains(tokens.access_token.expose_secret()));
}

/// MCP authorization, "Access Token Privilege Restriction"; RFC 8725, sections 3.1 and 3.2; RFC 9068, section 4: the key says
/// the algorithm, and every token is signed.
#[tokio::test]
async fn a_token_without_our_signature_is_refused() {
    let hosting = Hosting::new().await;
    let (tokens, _) = hosting.tokens().await;
    // What is remembered of the token itself is no help to those that look like it.
    hosting.server.verify(&tokens.access_token).await.unwrap();
    let (header, claims, signature) = parts(&tokens.access_token);
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    for alg in ["none", "None", "HS256", "ES256", "RS256"] {
        let message = unsigned(&with("alg", json!(alg)), &claims);
        for token in [format!("{message}."), format!("{message}.{signature}")] {
            reason(&hosting.server, &token).await;
        }
    }
    // HS256 with the public key as secret.
    let jwks = hosting.server.jwks().await.unwrap();
    let public = jwks["keys"][0]["x"].as_str().unwrap();
    let mut confused = Header::new(Algorithm::HS256);
    (confused.typ, confused.kid) = (Some("at+jwt".into()), header["kid"].as_str().map(str::to_owned));
    for secret in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(public).unwrap()] {
        let token = jsonwebtoken::encode(&confused, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        reason(&hosting.server, &token).await;
    }
    let mut wider = claims.clone();
    wider["sub"] = json!("somebody else");
    let (message, _) = tokens.access_token.expose_secret().rsplit_once('.').unwrap();
    for (token, why) in [
        (format!("{message}.{}", URL_SAFE_NO_PAD.encode([7; 64])), "bad signature or claims"),
        (format!("{}.{signature}", unsigned(&header, &wider)), "bad signature or claims"),
        (unsigned(&header, &claims), "malformed"),
        (format!("{}.", unsigned(&header, &claims)), "bad signature or claims"),
        (format!("{}.{signature}", unsigned(&with("kid", json!("unknown")), &claims)), "unknown key"),
        (format!("{}.{signature}", unsigned(&with("typ", json!("JWT")), &claims)), "another type"),
        (String::new(), "malformed"),
        ("a.b.c".to_owned(), "malformed"),
        ("a".repeat(9000), "too long"),
        (tokens.refresh().expose_secret().to_owned(), "malformed"),
    ] {
        assert_eq!(reason(&hosting.server, &token).await, why, "{token}");
    }
}

/// RFC 9700, section 4.10.2; RFC 9068, section 4; MCP authorization, "Token Audience Binding and Validation" and "Access Token
/// Privilege Restriction": other issuers and audiences,
/// even with the same keys; a token of BondMCP.
#[tokio::test]
async fn a_token_for_somebody_else_is_refused() {
    let hosting = Hosting::new().await;
    let (tokens, _) = hosting.tokens().await;
    let (_, claims, _) = parts(&tokens.access_token);
    for (name, value, why) in [
        ("iss", json!("https://other.example"), "another issuer"),
        ("iss", json!("https://bond.example.com/"), "another issuer"),
        ("aud", json!("https://bond.example.com"), "another audience"),
        ("aud", json!(["https://bond.example.com/mcp"]), "bad signature or claims"),
        ("exp", json!("soon"), "bad signature or claims"),
        ("exp", json!(i64::MAX), "a time out of range"),
        ("grant_id", json!("none"), "the grant has ended"),
        ("jti", json!(null), "bad signature or claims"),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        let token = hosting.server.inner.signing_keys.sign("at+jwt", &claims).await.unwrap();
        assert_eq!(reason(&hosting.server, token.expose_secret()).await, why, "{name}");
    }
    let id_token = hosting.server.inner.signing_keys.sign("JWT", &claims).await.unwrap();
    assert_eq!(reason(&hosting.server, id_token.expose_secret()).await, "another type");

    let bondmcp = json!({ "userId": "usr_1", "exp": hosting.clock.now().timestamp() + 900 });
    let key = EncodingKey::from_secret(b"BondMCP's");
    let bondmcp = jsonwebtoken::encode(&Header::default(), &bondmcp, &key).unwrap();
    assert_eq!(reason(&hosting.server, &bondmcp).await, "another type");

    let elsewhere = Hosting::new().await;
    let (foreign, _) = elsewhere.tokens().await;
    assert_eq!(reason(&hosting.server, foreign.access_token.expose_secret()).await, "unknown key");
}

/// MCP authorization, "Token Theft" (short-lived tokens); RFC 9068, section 4.
#[tokio::test]
async fn a_token_is_good_from_its_issue_to_its_expiry() {
    let hosting = Hosting::new().await;
    let (tokens, _) = hosting.tokens().await;
    hosting.wait(TimeDelta::seconds(-6));
    assert_eq!(reason(&hosting.server, tokens.access_token.expose_secret()).await, "not yet valid");
    hosting.wait(TimeDelta::seconds(6 + 904));
    assert!(hosting.server.verify(&tokens.access_token).await.is_ok());
    hosting.wait(TimeDelta::seconds(1));
    assert_eq!(reason(&hosting.server, tokens.access_token.expose_secret()).await, "expired");

    let long =
        hosting.replica_with(|settings| settings.access_token_lifetime = Duration::from_hours(24)).await;
    let (code, _) = hosting.code().await;
    let tokens = long.ask(&hosting.redemption(&code, &[])).await.unwrap();
    hosting.wait(TimeDelta::hours(23));
    assert!(hosting.server.verify(&tokens.access_token).await.is_ok());
}

#[tokio::test]
async fn a_grant_that_has_ended_is_noticed_at_once_here_and_within_half_a_minute_elsewhere() {
    let hosting = Hosting::new().await;
    let (tokens, grant) = hosting.tokens().await;
    let replica = hosting.replica().await;
    for server in [&hosting.server, &replica] {
        assert!(server.verify(&tokens.access_token).await.is_ok());
    }
    hosting.server.end_grant(&grant.id, EndReason::Person).await.unwrap();
    assert_eq!(reason(&hosting.server, tokens.access_token.expose_secret()).await, "the grant has ended");
    hosting.wait(TimeDelta::seconds(30));
    assert_eq!(reason(&replica, tokens.access_token.expose_secret()).await, "the grant has ended");
    let third = hosting.replica().await;
    hosting.server.forget_grant(&hosting.server.grant(&grant.id).await.unwrap().unwrap()).await.unwrap();
    assert_eq!(reason(&third, tokens.access_token.expose_secret()).await, "the grant has ended");
}
