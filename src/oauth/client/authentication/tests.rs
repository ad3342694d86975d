//! Assertions. How secrets authenticate is tested with the clients that have some.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    super::testing::{ISSUER, Server, SigningKey, World, form},
    *,
};

/// A client whose document and keys are published.
struct Signer {
    server: Server,
    world: World,
    id: String,
    key: SigningKey,
}

impl Signer {
    async fn new(algorithm: Algorithm) -> Self {
        let server = Server::start().await;
        let world = World::new(server.network()).await;
        let (id, key) = (server.url("/oauth/abc/client.json"), SigningKey::new("one", algorithm));
        let signer = Self { server, world, id, key };
        // As ChatGPT publishes it.
        signer.publish(&json!({
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "jwks_uri": signer.server.url("/oauth/jwks.json"),
        }));
        signer.publish_keys(&[&signer.key]);
        signer
    }

    fn publish(&self, metadata: &Value) {
        let mut document = metadata.clone();
        document["client_id"] = self.id.as_str().into();
        document["redirect_uris"] = json!(["https://chatgpt.com/connector/oauth/abc"]);
        self.server.publish("/oauth/abc/client.json", "cache-control: max-age=86400", &document);
    }

    fn publish_keys(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
        self.server.publish("/oauth/jwks.json", "cache-control: max-age=86400", &json!({ "keys": keys }));
    }

    /// Claims that are accepted, with a new `jti`.
    fn claims(&self) -> Value {
        let now = self.world.clock.now().timestamp();
        let jti = uuid::Uuid::new_v4().to_string();
        json!({"iss": self.id, "sub": self.id, "aud": ISSUER, "iat": now, "exp": now + 300, "jti": jti})
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    async fn send(&self, assertion: &str) -> Result<Client, OAuthError> {
        self.send_to(&self.world.clients, assertion).await
    }

    async fn send_to(&self, clients: &Clients, assertion: &str) -> Result<Client, OAuthError> {
        let parameters = [
            ("client_id", &*self.id),
            ("client_assertion_type", assertion::TYPE),
            ("client_assertion", assertion),
        ];
        clients.authenticate(None, &form(&parameters)).await
    }

    async fn is_refused(&self, assertion: &str) -> bool {
        self.send(assertion).await.is_err_and(|error| (error.status, error.code) == (401, "invalid_client"))
    }
}

#[tokio::test]
async fn a_client_authenticates_with_what_it_has_signed() {
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm).await;
        let token_endpoint = json!(format!("{ISSUER}/token"));
        for audience in [json!(ISSUER), token_endpoint.clone(), json!([ISSUER, token_endpoint])] {
            let assertion = signer.key.sign(&signer.claims_with("aud", audience.clone()));
            let client = signer.send(&assertion).await;
            assert_eq!(client.unwrap().id, signer.id, "{algorithm:?} {audience}");
        }
        // RFC 7521, section 4.2: the client id may be left to the assertion.
        let assertion = signer.key.sign(&signer.claims());
        let parameters = [("client_assertion_type", assertion::TYPE), ("client_assertion", &*assertion)];
        assert!(signer.world.clients.authenticate(None, &form(&parameters)).await.is_ok());
        // The document and the keys were fetched once each.
        assert_eq!(signer.server.requests(), 2);
    }
}

#[tokio::test]
async fn an_assertion_is_needed_only_where_none_is_not_listed_but_is_always_verified() {
    let signer = Signer::new(Algorithm::ES256).await;
    let without = form(&[("client_id", &signer.id)]);
    assert!(signer.world.clients.authenticate(None, &without).await.is_ok());
    assert!(signer.is_refused("x.y.z").await);
    let by_another = SigningKey::new("one", Algorithm::ES256).sign(&signer.claims());
    assert!(signer.is_refused(&by_another).await);

    let signer = Signer::new(Algorithm::ES256).await;
    signer.publish(&json!({
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [signer.key.jwk]},
    }));
    let without = form(&[("client_id", &signer.id)]);
    let error = signer.world.clients.authenticate(None, &without).await.unwrap_err();
    assert_eq!((error.status, error.code), (401, "invalid_client"));
    assert!(signer.send(&signer.key.sign(&signer.claims())).await.is_ok());
}

// RFC 9700, section 2.5 (client authentication); RFC 7523, section 3, item 7.
#[tokio::test]
async fn an_assertion_is_accepted_once_by_all_replicas() {
    let signer = Signer::new(Algorithm::ES256).await;
    let replica = signer.world.replica().await;
    let assertion = signer.key.sign(&signer.claims());
    assert!(signer.send(&assertion).await.is_ok());
    assert!(signer.is_refused(&assertion).await);
    assert!(signer.send_to(&replica, &assertion).await.is_err());

    // Also at the same time.
    let assertion = signer.key.sign(&signer.claims());
    let sent = (0..10).map(|_| signer.send_to(&replica, &assertion));
    let sent = futures_util::future::join_all(sent).await;
    assert_eq!(sent.iter().filter(|sent| sent.is_ok()).count(), 1);
}

/// Its id is kept for twelve minutes at most.
#[tokio::test]
async fn an_assertion_that_is_valid_for_long_is_not_accepted_for_long() {
    let signer = Signer::new(Algorithm::ES256).await;
    let now = signer.world.clock.now().timestamp();
    let assertion = signer.key.sign(&signer.claims_with("exp", json!(now + 3600)));
    signer.world.clock.advance(TimeDelta::seconds(360));
    assert!(signer.is_refused(&assertion).await);
    signer.world.clock.advance(TimeDelta::seconds(-1));
    assert!(signer.send(&assertion).await.is_ok());
}

#[tokio::test]
async fn what_is_refused_does_not_use_up_an_id() {
    let signer = Signer::new(Algorithm::ES256).await;
    let claims = signer.claims();
    let mut for_another = claims.clone();
    for_another["aud"] = json!("https://evil.test");
    assert!(signer.is_refused(&signer.key.sign(&for_another)).await);
    assert!(signer.is_refused(&SigningKey::new("one", Algorithm::ES256).sign(&claims)).await);
    assert!(signer.send(&signer.key.sign(&claims)).await.is_ok());
}

// RFC 9700, section 2.5; RFC 7523, section 3.
#[tokio::test]
async fn an_assertion_with_wrong_claims_is_refused() {
    let signer = Signer::new(Algorithm::ES256).await;
    let now = signer.world.clock.now().timestamp();
    for (name, value) in [
        ("aud", json!("https://evil.test")),
        ("aud", json!([ISSUER, "https://evil.test"])),
        ("aud", json!([])),
        ("aud", json!(format!("{ISSUER}/"))),
        ("aud", json!(format!("{ISSUER}/mcp"))),
        ("aud", Value::Null),
        ("iss", json!("https://evil.test/client.json")),
        ("iss", Value::Null),
        ("exp", json!(now - 61)),
        ("exp", json!(i64::MIN)),
        ("exp", json!("soon")),
        ("exp", Value::Null),
        ("nbf", json!(now + 61)),
        ("iat", json!(now + 61)),
        ("iat", json!(now - 361)),
        ("iat", json!(i64::MIN)),
        ("jti", json!("")),
        ("jti", Value::Null),
    ] {
        let assertion = signer.key.sign(&signer.claims_with(name, value.clone()));
        assert!(signer.is_refused(&assertion).await, "{name} {value}");
    }
    for (name, value) in [("exp", now - 59), ("exp", i64::MAX), ("nbf", now + 59), ("iat", now - 359)] {
        let assertion = signer.key.sign(&signer.claims_with(name, json!(value)));
        assert!(signer.send(&assertion).await.is_ok(), "{name} {}", value - now);
    }
    // Without the time at which it was made, its end is soon.
    for (after, is_accepted) in [(360, true), (361, false), (i64::MAX - now, false)] {
        let mut claims = signer.claims_with("exp", json!(now + after));
        claims["iat"] = Value::Null;
        assert_eq!(signer.send(&signer.key.sign(&claims)).await.is_ok(), is_accepted, "{after}");
    }
    // Of another client than the request names.
    let assertion = signer.key.sign(&signer.claims_with("sub", json!("https://evil.test/client.json")));
    assert_eq!(signer.send(&assertion).await.unwrap_err().code, "invalid_request");
}

// RFC 9700, section 2.5; RFC 8725, sections 3.1 and 3.2.
#[tokio::test]
async fn an_assertion_with_a_wrong_algorithm_is_refused() {
    let signer = Signer::new(Algorithm::RS256).await;
    let claims = signer.claims();
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let [_, payload, signature] =
        <[String; 3]>::try_from(signer.key.sign(&claims).split('.').map(str::to_owned).collect::<Vec<_>>())
            .unwrap();
    for algorithm in ["none", "None", "HS256", "RS512", "ES384", "x"] {
        let header = encoded(&json!({"alg": algorithm, "kid": "one"}));
        assert!(signer.is_refused(&format!("{header}.{payload}.")).await);
        assert!(signer.is_refused(&format!("{header}.{payload}.{signature}")).await);
    }
    // With the public key as the secret.
    let public = signer.key.jwk["n"].as_str().unwrap();
    for secret in [public.as_bytes(), &URL_SAFE_NO_PAD.decode(public).unwrap()] {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert!(signer.is_refused(&forged).await);
    }
    // An extension that must be understood.
    let header = Header {
        kid: Some("one".to_owned()),
        crit: Some(vec!["exp".to_owned()]),
        ..Header::new(Algorithm::RS256)
    };
    assert!(signer.is_refused(&signer.key.sign_with(&header, &claims)).await);
    for broken in ["", ".", "..", "x", "x.y", "x.y.z.w"] {
        let sent = signer.send(broken).await;
        // An empty one counts as absent.
        assert_eq!(sent.is_ok(), broken.is_empty(), "{broken}");
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_forgotten() {
    let signer = Signer::new(Algorithm::ES256).await;
    assert!(signer.send(&signer.key.sign(&signer.claims())).await.is_ok());
    let new = SigningKey::new("two", Algorithm::ES256);
    signer.publish_keys(&[&new]);
    // Not at once, so that unknown key ids cannot make this server flood the host.
    assert!(signer.is_refused(&new.sign(&signer.claims())).await);
    signer.world.clock.advance(TimeDelta::seconds(30));
    assert!(signer.send(&new.sign(&signer.claims())).await.is_ok());
    assert!(signer.is_refused(&signer.key.sign(&signer.claims())).await);
    // The same for keys in the document.
    signer.publish(&json!({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [new.jwk]}}));
    signer.world.clock.advance(TimeDelta::days(1));
    assert!(signer.send(&new.sign(&signer.claims())).await.is_ok());
    let newer = SigningKey::new("three", Algorithm::EdDSA);
    signer.publish(&json!({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [newer.jwk]}}));
    signer.world.clock.advance(TimeDelta::seconds(30));
    assert!(signer.send(&newer.sign(&signer.claims())).await.is_ok());
}

#[tokio::test]
async fn a_key_signs_as_it_says_and_without_a_key_id_each_is_tried() {
    let signer = Signer::new(Algorithm::RS256).await;
    let mut other = SigningKey::new("two", Algorithm::RS256);
    other.jwk["use"] = json!("enc");
    let mut for_pss = SigningKey::new("three", Algorithm::RS256);
    for_pss.jwk["alg"] = json!("PS256");
    let odd = json!({"kty": "x"});
    let keys = json!({"keys": [odd, other.jwk, for_pss.jwk, signer.key.jwk]});
    signer.server.publish("/oauth/jwks.json", "", &keys);
    let unnamed = Header::new(Algorithm::RS256);
    assert!(signer.send(&signer.key.sign_with(&unnamed, &signer.claims())).await.is_ok());
    for wrong in [&other, &for_pss] {
        assert!(signer.is_refused(&wrong.sign(&signer.claims())).await, "{}", wrong.kid);
        assert!(signer.is_refused(&wrong.sign_with(&unnamed, &signer.claims())).await, "{}", wrong.kid);
    }
}

#[tokio::test]
async fn trouble_with_the_keys_passes() {
    let signer = Signer::new(Algorithm::ES256).await;
    signer.server.withdraw("/oauth/jwks.json");
    let error = signer.send(&signer.key.sign(&signer.claims())).await.unwrap_err();
    assert_eq!((error.status, error.code), (503, "temporarily_unavailable"));
    signer.publish_keys(&[&signer.key]);
    signer.world.clock.advance(TimeDelta::minutes(1));
    assert!(signer.send(&signer.key.sign(&signer.claims())).await.is_ok());
}

// MCP authorization, "Client ID Metadata Document Security", "Authorization Server Abuse Protection": strangers who publish
// documents, and then make this server wait for them.
#[tokio::test]
async fn strangers_who_published_a_document_once_keep_out_no_client() {
    let signer = Signer::new(Algorithm::ES256).await;
    assert!(signer.send(&signer.key.sign(&signer.claims())).await.is_ok());
    let ids: Vec<_> = (0..100).map(|n| signer.server.url(&format!("/{n}.json"))).collect();
    for (n, id) in ids.iter().enumerate() {
        let document = json!({"client_id": id, "redirect_uris": ["https://client.example/"]});
        signer.server.publish(&format!("/{n}.json"), "cache-control: no-store", &document);
        signer.world.clients.find(id, None).await.unwrap();
        signer.server.hang(&format!("/{n}.json"));
    }
    // The client's document and its keys have to be fetched again, too.
    signer.world.clock.advance(TimeDelta::days(1));
    let before = signer.server.requests();
    let mut strangers =
        futures_util::future::join_all(ids.iter().map(|id| signer.world.clients.find(id, None)));
    while signer.server.requests() < before + 16 {
        assert!((&mut strangers).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!(signer.send(&signer.key.sign(&signer.claims())).await.is_ok());
    assert!(strangers.now_or_never().is_none());
}

// draft-ietf-oauth-client-id-metadata-document, "Server Side Request Forgery (SSRF) Attacks": who wrote the document chose
// this address too.
#[tokio::test]
async fn keys_are_fetched_under_the_same_rules_as_documents() {
    let signer = Signer::new(Algorithm::ES256).await;
    let elsewhere = signer.server.url("/oauth/jwks.json");
    signer.server.answer("/moved", &format!("302 Found\r\nlocation: {elsewhere}"), "");
    let port = signer.server.address.port();
    for (uri, connections) in [
        ("https://10.0.0.1/jwks.json".to_owned(), 1),
        // This address would lead to the server.
        (format!("https://0.0.0.0:{port}/oauth/jwks.json"), 1),
        (format!("http://127.0.0.1:{port}/oauth/jwks.json"), 1),
        (signer.server.url("/moved"), 2),
    ] {
        signer.publish(&json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": uri}));
        // With an empty cache.
        let world = World::new(signer.server.network()).await;
        let before = signer.server.connections();
        let error = signer.send_to(&world.clients, &signer.key.sign(&signer.claims())).await.unwrap_err();
        assert_eq!((error.status, error.code), (503, "temporarily_unavailable"), "{uri}");
        // One is for the document.
        assert_eq!(signer.server.connections() - before, connections, "{uri}");
    }
}

#[tokio::test]
async fn other_clients_and_other_types_of_assertion_are_refused() {
    let signer = Signer::new(Algorithm::ES256).await;
    let assertion = signer.key.sign(&signer.claims());
    for kind in ["", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"] {
        let parameters =
            [("client_id", &*signer.id), ("client_assertion_type", kind), ("client_assertion", &*assertion)];
        let error = signer.world.clients.authenticate(None, &form(&parameters)).await.unwrap_err();
        assert_eq!((error.status, error.code), (401, "invalid_client"), "{kind}");
    }
    // A client without keys.
    let registered = json!({"redirect_uris": ["https://client.example/"]}).to_string();
    let registered = signer.world.clients.register(registered.as_bytes()).unwrap();
    let id = registered["client_id"].as_str().unwrap();
    let mut claims = signer.claims();
    (claims["iss"], claims["sub"]) = (id.into(), id.into());
    let assertion = signer.key.sign(&claims);
    let parameters =
        [("client_assertion_type", assertion::TYPE), ("client_assertion", &*assertion), ("client_id", id)];
    let error = signer.world.clients.authenticate(None, &form(&parameters)).await.unwrap_err();
    assert_eq!((error.status, error.code), (401, "invalid_client"));
    // RFC 6749, section 2.3: one way only.
    let parameters = [
        ("client_id", &*signer.id),
        ("client_secret", "x"),
        ("client_assertion_type", assertion::TYPE),
        ("client_assertion", &*assertion),
    ];
    let error = signer.world.clients.authenticate(None, &form(&parameters)).await.unwrap_err();
    assert_eq!((error.status, error.code), (400, "invalid_request"));
}
