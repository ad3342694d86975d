//! Attacks over HTTP on a hosted server, as far as no other test has them: on access tokens, codes, redirect URIs, refresh
//! tokens, sessions, and on what belongs to somebody else. Those on the pages are in `tests/hosted/consent.rs` and
//! `tests/hosted/sign_in.rs`. Each names what it stands for: "MCP" is MCP authorization 2026-07-28, whose "Security
//! Considerations" also demand those of OAuth 2.1.

use crate::common::{
    EMAIL,
    hosted_server::{Authorization, HostedServer, Setup, parameter, status_and_json},
    raw, secrets, within,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bondmcp_server::{
    account::{NewGrant, Usd},
    bondmcp::wire::Permission,
    clock::Clock,
    oauth::{Grant, Scopes},
    sandbox::Plan,
    secret::SecretString,
};
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

const GRACE: &str = "grace@example.com";

const MODELS: &str = "GET /health-ai/models";

/// A grant of somebody, with an API key and a budget of its own, and its tokens.
struct Connection {
    grant: Grant,
    authorization: Authorization,
    code: String,
    access_token: String,
    refresh_token: String,
}

async fn at_a_time() -> HostedServer {
    HostedServer::start_with(Setup { clock: Clock::manual(chrono::Utc::now()), ..Setup::default() }).await
}

async fn client(server: &HostedServer) -> Authorization {
    Authorization::of(server.register(&["http://127.0.0.1/callback"]).await)
}

async fn connect(server: &HostedServer, email: &str, password: &SecretString, scopes: &str) -> Connection {
    let authorization = client(server).await;
    let request = server.server.authorization_request(&authorization.query()).await.unwrap();
    let signed_in =
        within(server.accounts.authenticator().with_password(email, password.clone())).await.unwrap();
    let subject = server.server.subject(signed_in.user_id().unwrap());
    let grant = server.server.create_grant(&subject, &request, Scopes::parse(scopes)).await.unwrap();
    let new = NewGrant {
        issuer: server.origin.clone(),
        key_name: format!("key of {}", grant.reference),
        permissions: vec![Permission::Read, Permission::Write],
        daily_limit: Usd::cents(5),
    };
    within(server.accounts.open(&grant.owner()).open_grant(signed_in, new)).await.unwrap();
    let answer = server.server.authorization_response(&request, &grant).await.unwrap();
    let code = parameter(&answer, "code");
    let (status, tokens) = server.redeem(&authorization, &code).await;
    assert_eq!(status, 200, "{tokens}");
    let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
    let (access_token, refresh_token) = (text("access_token"), text("refresh_token"));
    Connection { grant, authorization, code, access_token, refresh_token }
}

async fn adas(server: &HostedServer, scopes: &str) -> Connection {
    connect(server, EMAIL, &server.place.password, scopes).await
}

/// Grace has an account of her own at BondMCP.
async fn graces(server: &HostedServer, scopes: &str) -> Connection {
    let password = crate::common::random_password();
    server.sandbox.add_account(GRACE, &password, Plan::Unlimited, true);
    connect(server, GRACE, &password, scopes).await
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn tools() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_models", "arguments": {}}})
}

async fn is_accepted(server: &HostedServer, token: &str) -> bool {
    let response = server.send(server.mcp(token, &tools())).await;
    match response.status() {
        StatusCode::OK => true,
        StatusCode::UNAUTHORIZED => {
            let challenge = header(&response, "www-authenticate");
            assert!(
                challenge.starts_with(r#"Bearer error="invalid_token", resource_metadata=""#),
                "{challenge}"
            );
            let told = format!("{challenge} {}", within(response.text()).await.unwrap());
            assert!(!told.contains("canary") && (token.len() < 40 || !told.contains(token)), "{told}");
            false
        }
        status => panic!("{status}"),
    }
}

async fn refresh(server: &HostedServer, client_id: &str, token: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", client_id)];
    server.post_form("/token", &[&form, more].concat()).await
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// RFC 9700, section 4.10.2 (audience); MCP, "Token Audience Binding and Validation" and "Access Token Privilege Restriction";
/// RFC 8725, sections 2.1, 3.1 and 3.10 (algorithm confusion, keys in the header); RFC 9068, section 4.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_somebody_else_made_opens_nothing() {
    let server = HostedServer::start().await;
    let ada = adas(&server, "models").await;
    let token = &ada.access_token;
    let [head, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let (header, body) = (decoded(head), decoded(claims));
    let with = |changes: &Value| {
        let mut header = header.clone();
        header.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        header
    };
    let mut forged = vec![
        format!("{head}.{claims}"),
        format!("{head}.{claims}."),
        format!("{head}.{claims}.{}", "A".repeat(signature.len())),
        format!("{token}."),
        format!("{token}.canary"),
        format!("{token}{token}"),
        signature.to_owned(),
    ];
    // Unsigned, or with the signature of the real token.
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "PS256"] {
        let message = format!("{}.{claims}", encoded(&with(&json!({ "alg": alg }))));
        forged.extend([format!("{message}."), format!("{message}.{signature}")]);
    }
    // Another key or type, or more than the person agreed to, under the real signature.
    for changes in [
        json!({"kid": "canary"}),
        json!({"kid": null}),
        json!({"kid": ""}),
        json!({"kid": "../../../../dev/null"}),
        json!({"typ": "JWT"}),
        json!({"typ": "at+jwt", "crit": ["b64"], "b64": false}),
    ] {
        forged.push(format!("{}.{claims}.{signature}", encoded(&with(&changes))));
    }
    for (name, value) in [
        ("scope", json!("models health keys")),
        ("sub", json!("somebody")),
        ("grant_id", json!("somebody")),
        ("exp", json!(9_999_999_999_i64)),
    ] {
        let mut claims = body.clone();
        claims[name] = value;
        forged.push(format!("{head}.{}.{signature}", encoded(&claims)));
    }
    // Symmetric, with the public key as the secret, in each form in which it is published or commonly kept.
    let jwk = server.json("/jwks").await["keys"][0].clone();
    let x = jwk["x"].as_str().unwrap();
    let public = URL_SAFE_NO_PAD.decode(x).unwrap();
    // RFC 8410, section 4.
    let spki =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &public[..]].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&spki));
    for secret in [x.as_bytes(), &public, &spki, pem.as_bytes(), jwk.to_string().as_bytes(), b""] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut confused = Header::new(algorithm);
            (confused.typ, confused.kid) = (Some("at+jwt".into()), jwk["kid"].as_str().map(str::to_owned));
            forged.push(jsonwebtoken::encode(&confused, &body, &EncodingKey::from_secret(secret)).unwrap());
        }
    }
    // With a key of the attacker, under our key's name, and brought along in the header.
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = EncodingKey::from_ed_der(&pair.serialize_der());
    let mut own = jwk.clone();
    own["x"] = URL_SAFE_NO_PAD.encode(pair.public_key_raw()).into();
    let own: Jwk = serde_json::from_value(own).unwrap();
    for (kid, brought) in
        [(jwk["kid"].as_str(), false), (jwk["kid"].as_str(), true), (Some("mine"), true), (None, true)]
    {
        let mut theirs = Header::new(Algorithm::EdDSA);
        (theirs.typ, theirs.kid) = (Some("at+jwt".into()), kid.map(str::to_owned));
        if brought {
            (theirs.jwk, theirs.jku) = (Some(own.clone()), Some("https://evil.test/jwks".into()));
        }
        forged.push(jsonwebtoken::encode(&theirs, &body, &key).unwrap());
    }
    // Another issuer, for another resource.
    let elsewhere = HostedServer::start().await;
    forged.push(adas(&elsewhere, "models").await.access_token);
    // BondMCP's tokens and keys: nothing is passed through (MCP, "Access Token Privilege Restriction").
    forged.extend(server.sandbox.secrets_issued().iter().map(|secret| secrets::text(secret).to_owned()));
    forged.extend([ada.refresh_token.clone(), ada.code.clone(), ada.authorization.client_id.clone()]);

    for token in &forged {
        assert!(!is_accepted(&server, token).await, "{token}");
    }
    assert_eq!(server.sandbox.count(MODELS), 0, "nothing was asked of BondMCP");
    assert!(is_accepted(&server, token).await);
}

/// RFC 9068, section 4; MCP, "Access Token Usage": the times of a token, by the server's clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_nothing_before_and_after_its_time() {
    let server = at_a_time().await;
    let ada = adas(&server, "models").await;
    server.clock.advance(TimeDelta::minutes(-1));
    assert!(!is_accepted(&server, &ada.access_token).await, "not yet valid");
    server.clock.advance(TimeDelta::minutes(1));
    assert!(is_accepted(&server, &ada.access_token).await);
    server.clock.advance(TimeDelta::minutes(15) + TimeDelta::seconds(5));
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let request = server.http.request(method, server.at("/mcp")).bearer_auth(&ada.access_token);
        assert_eq!(server.send(request.body(tools().to_string())).await.status(), 401);
    }
    // Nor is it good for anything else.
    let id = &ada.authorization.client_id;
    assert_eq!(refresh(&server, id, &ada.access_token, &[]).await.0, 400);
    assert_eq!(server.redeem(&ada.authorization, &ada.access_token).await.0, 400);
    assert_eq!(server.get(&format!("/connections?access_token={}", ada.access_token)).await.status(), 303);
}

/// RFC 6750, section 2: one way, one token. RFC 9700, section 4.3.2, and MCP, "Access Token Usage": never in the query.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_elsewhere_than_in_the_one_header_is_none() {
    let server = HostedServer::start().await;
    let ada = adas(&server, "models").await;
    let token = &ada.access_token;
    let post = |path: &str| {
        server
            .http
            .post(server.at(path))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
    };
    for request in [
        post(&format!("/mcp?access_token={token}")),
        post(&format!("/mcp?authorization=Bearer%20{token}")),
        post("/mcp").header("cookie", format!("access_token={token}; authorization=Bearer {token}")),
        post("/mcp").header("x-authorization", format!("Bearer {token}")),
        post("/mcp").header("proxy-authorization", format!("Bearer {token}")),
        post("/mcp").header("authorization", token.as_str()),
        post("/mcp").header("authorization", format!("Basic {token}")),
        post("/mcp").header("authorization", format!("DPoP {token}")),
        post("/mcp").basic_auth("bearer", Some(token)),
        post("/mcp")
            .header("authorization", "Bearer canary")
            .header("authorization", format!("Bearer {token}")),
    ] {
        let response = server.send(request.body(tools().to_string())).await;
        assert_eq!(response.status(), 401, "{response:?}");
    }
    assert_eq!(server.sandbox.count(MODELS), 0);
}

/// RFC 7009, sections 2 and 2.1; RFC 9700, section 4.14.2: what is revoked on one replica is noticed on the others within half
/// a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_opens_nothing_on_any_replica() {
    let server = at_a_time().await;
    let other = server.replica().await;
    let (ada, same_person) = (adas(&server, "models").await, adas(&server, "models").await);
    assert!(is_accepted(&other, &ada.access_token).await);
    // Somebody else's client ends nothing.
    let stranger = client(&server).await.client_id;
    for token in [&ada.access_token, &ada.refresh_token] {
        server.post_form("/revoke", &[("token", token), ("client_id", &stranger)]).await;
        assert!(is_accepted(&server, &ada.access_token).await);
    }
    let form = [("token", &*ada.access_token), ("client_id", &ada.authorization.client_id)];
    assert_eq!(server.post_form("/revoke", &form).await.0, 200);
    assert!(!is_accepted(&server, &ada.access_token).await);
    other.clock.advance(TimeDelta::seconds(30));
    assert!(!is_accepted(&other, &ada.access_token).await);
    let (status, refused) = refresh(&other, &ada.authorization.client_id, &ada.refresh_token, &[]).await;
    assert_eq!((status, &refused["error"]), (400, &json!("invalid_grant")));
    assert!(is_accepted(&other, &same_person.access_token).await, "grants end one by one");
}

/// Makes a grant whose code is not redeemed yet.
async fn unredeemed(server: &HostedServer) -> (Authorization, String) {
    let authorization = client(server).await;
    let (_, answer) = server.agree(&authorization, Scopes::all()).await;
    (authorization, parameter(&answer, "code"))
}

/// RFC 9700, sections 2.1.1, 4.5 (code injection) and 4.8 (PKCE downgrade); MCP, "Authorization Code Protection"; RFC 7636,
/// section 4.6; RFC 6749, section 4.1.3.
#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_code_is_good_for_nothing_and_not_used_up() {
    let server = HostedServer::start().await;
    let (authorization, code) = unredeemed(&server).await;
    let thief = client(&server).await;
    let challenge = {
        let query: Url = format!("http://x/?{}", authorization.query()).parse().unwrap();
        parameter(&query, "code_challenge")
    };
    let form = |changes: &[(&'static str, &str)]| {
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.clone()),
            ("client_id", authorization.client_id.clone()),
            ("redirect_uri", authorization.redirect_uri.clone()),
            ("code_verifier", authorization.verifier.clone()),
        ];
        for (name, value) in changes {
            form.iter_mut().find(|(other, _)| other == name).unwrap().1 = (*value).to_owned();
        }
        form
    };
    for (changes, error) in [
        (&[("client_id", &*thief.client_id)][..], "invalid_grant"),
        (&[("client_id", &thief.client_id), ("code_verifier", &thief.verifier)], "invalid_grant"),
        (&[("redirect_uri", "http://127.0.0.1:3118/callback/")], "invalid_grant"),
        (&[("redirect_uri", "http://127.0.0.1:3119/callback")], "invalid_grant"),
        (&[("redirect_uri", "https://evil.test/callback")], "invalid_grant"),
        (&[("code_verifier", "")], "invalid_request"),
        (&[("code_verifier", &thief.verifier)], "invalid_grant"),
        // As if the method had been `plain`.
        (&[("code_verifier", &challenge)], "invalid_grant"),
        (&[("code_verifier", &authorization.verifier.to_lowercase())], "invalid_grant"),
    ] {
        let form = form(changes);
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, refused) = server.post_form("/token", &form).await;
        assert_eq!((status, &refused["error"]), (400, &json!(error)), "{changes:?}");
    }
    // RFC 6749, section 3.2: by POST, in the body, each parameter once.
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form(&[])).finish();
    assert_eq!(server.get(&format!("/token?{query}")).await.status(), 405);
    assert_eq!(server.post_form(&format!("/token?{query}"), &[]).await.0, 400);
    let twice = format!("{query}&code_verifier=x");
    let request =
        server.http.post(server.at("/token")).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(server.send(request.body(twice)).await.status(), 400);
    assert_eq!(server.redeem(&authorization, &code).await.0, 200, "its client still can");
}

/// RFC 9700, section 4.5: the second use of a code ends what the first one got, on whichever replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_used_twice_ends_what_it_allowed() {
    let server = at_a_time().await;
    let other = server.replica().await;
    let ada = adas(&server, "models").await;
    assert!(is_accepted(&other, &ada.access_token).await);
    let keys = server.sandbox.live_keys(EMAIL).len();
    // Even with everything else wrong.
    let thief = client(&other).await;
    let (status, refused) = other.redeem(&thief, &ada.code).await;
    assert_eq!((status, &refused["error"]), (400, &json!("invalid_grant")));
    server.clock.advance(TimeDelta::seconds(30));
    for replica in [&server, &other] {
        assert!(!is_accepted(replica, &ada.access_token).await);
        assert_eq!(refresh(replica, &ada.authorization.client_id, &ada.refresh_token, &[]).await.0, 400);
    }
    within(async {
        while server.sandbox.live_keys(EMAIL).len() == keys {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// RFC 9700, sections 2.1 and 4.1 (redirect URI validation), 4.11 (open redirect); RFC 8252, section 7.3.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_and_an_error_go_to_registered_addresses_alone() {
    let server = HostedServer::start().await;
    let registered =
        ["https://client.example/callback", "http://127.0.0.1/callback", "http://localhost/callback"];
    let client_id = server.register(&registered).await;
    for wrong in [
        // Prefix, suffix, other case, path, query.
        "https://client.example/callback/",
        "https://client.example/callback/../evil",
        "https://client.example/callback2",
        "https://client.example/callbac",
        "https://client.example/Callback",
        "https://CLIENT.example/callback",
        "HTTPS://client.example/callback",
        "https://client.example/callback?x=1",
        "https://client.example/callback?",
        "https://client.example/x/../callback",
        "https://client.example//callback",
        "http://client.example/callback",
        "https://client.example:443/callback",
        "https://client.example:8443/callback",
        // Another host that looks like it.
        "https://client.example.evil.test/callback",
        "https://evil.test/client.example/callback",
        "https://evil.test?https://client.example/callback",
        "https://sub.client.example/callback",
        // User name, fragment, back slash, encodings, control characters.
        "https://client.example@evil.test/callback",
        "https://user:password@client.example/callback",
        "https://client.example/callback#x",
        "https://client.example/callback#@evil.test/",
        "https://client.example\\@evil.test/callback",
        "https://evil.test\\client.example/callback",
        "https://client.example%2fcallback",
        "https://client.example/%63allback",
        "https://client%2eexample/callback",
        " https://client.example/callback",
        "https://client.example/callback\r\nset-cookie: canary=1",
        "https://client.example/callback\0",
        "//client.example/callback",
        "/callback",
        "callback",
        // Loopback: the port alone may differ.
        "http://127.0.0.1:3118/other",
        "http://127.0.0.1:3118/callback/",
        "http://127.0.0.1:3118/callback?x=1",
        "http://127.0.0.1:3118/callback#x",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:3118@evil.test/callback",
        "http://127.0.0.1:@evil.test/callback",
        "http://127.0.0.2:3118/callback",
        "http://127.1:3118/callback",
        "http://2130706433:3118/callback",
        "http://0x7f000001/callback",
        "http://[::1]:3118/callback",
        "http://[::ffff:127.0.0.1]:3118/callback",
        "https://127.0.0.1:3118/callback",
        "http://localhost.evil.test:3118/callback",
        "http://localhost.:3118/callback",
        "http://localhost@evil.test/callback",
        "http://evil.localhost:3118/callback",
        "http://LOCALHOST:3118/callback",
        // Not an address of a client at all.
        "javascript:alert(1)//https://client.example/callback",
        "data:text/html,canary",
        "file:///callback",
        "vbscript:canary",
        "blob:https://client.example/callback",
    ] {
        let sound =
            Authorization { redirect_uri: wrong.to_owned(), ..Authorization::of(client_id.clone()) }.query();
        // An error of the request is not taken there either.
        let unsound = sound.replace("response_type=code", "response_type=token");
        for query in [sound, unsound] {
            let response = server.get(&format!("/authorize?{query}")).await;
            assert_eq!(response.status(), 400, "{wrong}");
            assert!(
                response.headers().get("location").is_none() && response.headers().get("refresh").is_none()
            );
            let html = within(response.text()).await.unwrap();
            assert!(html.starts_with("<!doctype html>"), "{html}");
            assert!(
                !html.contains("evil") && !html.contains("canary") && !html.contains("alert(1)"),
                "{html}"
            );
        }
    }
    // Of two, neither counts.
    let once =
        Authorization { redirect_uri: registered[0].to_owned(), ..Authorization::of(client_id) }.query();
    for query in
        [format!("{once}&redirect_uri=https://evil.test/"), format!("redirect_uri=https://evil.test/&{once}")]
    {
        let response = server.get(&format!("/authorize?{query}")).await;
        assert_eq!((response.status().as_u16(), response.headers().get("location")), (400, None));
    }
    assert_eq!(server.get(&format!("/authorize?{once}")).await.status(), 303);
}

/// RFC 9700, section 4.11 (open redirect): no page leads elsewhere because an address says so.
#[tokio::test(flavor = "multi_thread")]
async fn no_address_makes_a_page_lead_elsewhere() {
    let server = HostedServer::start().await;
    for path in [
        "/connections?next=https://evil.test/",
        "/connections?redirect_uri=https://evil.test/&return_to=//evil.test",
        "/sign-in/x?next=https://evil.test/",
        "/authorize/x/done?redirect_uri=https://evil.test/",
        "/authorize?next=https://evil.test/&redirect_uri=https://evil.test/",
        "//evil.test/connections",
        "/\\evil.test",
        "/%2f%2fevil.test",
        "/connections/..//evil.test",
    ] {
        let response = server.get(path).await;
        let to = header(&response, "location");
        assert!(!to.contains("evil") && !to.starts_with("//") && !to.contains(':'), "{path}: {to}");
        assert!(!within(response.text()).await.unwrap().contains("evil"), "{path}");
    }
}

/// RFC 9207, section 2; RFC 9700, section 4.4 (mix-up): each answer to a client says who gives it, and the metadata says
/// that it does.
#[tokio::test(flavor = "multi_thread")]
async fn each_answer_to_a_client_names_the_issuer_once() {
    let server = HostedServer::start().await;
    let metadata = server.json("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    let authorization = client(&server).await;
    let query = authorization.query();
    for (wrong, error) in [
        (query.replace("response_type=code", "response_type=token"), "unsupported_response_type"),
        (query.replace("response_type=code", "response_type=code+token"), "unsupported_response_type"),
        (query.replace("S256", "plain"), "invalid_request"),
        (query.replace("code_challenge_method=S256", "x=y"), "invalid_request"),
        (format!("{query}&resource=https://evil.test/mcp"), "invalid_target"),
        (format!("{query}&iss=https://evil.test&resource=https://evil.test/mcp"), "invalid_target"),
    ] {
        let response = server.get(&format!("/authorize?{wrong}")).await;
        let answer: Url = header(&response, "location").parse().unwrap();
        assert_eq!(answer.host_str(), Some("127.0.0.1"));
        assert_eq!(parameter(&answer, "error"), error, "{wrong}");
        assert_eq!(parameter(&answer, "state"), "the-state");
        let issuers: Vec<_> = answer.query_pairs().filter(|(name, _)| name == "iss").collect();
        assert_eq!(issuers.len(), 1, "{answer}");
        assert_eq!(issuers[0].1, metadata["issuer"].as_str().unwrap());
        assert!(!answer.as_str().contains("evil") && answer.fragment().is_none(), "{answer}");
    }
}

/// RFC 6749, sections 6 and 10.4; RFC 9700, section 4.14.2.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_for_its_client_its_scopes_and_its_turn() {
    let server = at_a_time().await;
    let ada = adas(&server, "models").await;
    let (id, first) = (ada.authorization.client_id.as_str(), ada.refresh_token.as_str());
    let stranger = client(&server).await.client_id;
    for (client_id, token, more, error) in [
        (stranger.as_str(), first, &[][..], "invalid_grant"),
        (id, first, &[("scope", "models keys")], "invalid_scope"),
        (id, first, &[("resource", "https://evil.test/mcp")], "invalid_target"),
        (id, &first[..first.len() - 1], &[], "invalid_grant"),
        (id, &first.replacen(".1.", ".2.", 1), &[], "invalid_grant"),
        (id, &first.replacen(".1.", ".0.", 1), &[], "invalid_grant"),
        (id, &first.replacen(".1.", ".18446744073709551615.", 1), &[], "invalid_grant"),
    ] {
        let (status, refused) = refresh(&server, client_id, token, more).await;
        assert_eq!((status, &refused["error"]), (400, &json!(error)), "{token} {more:?}");
        assert!(is_accepted(&server, &ada.access_token).await, "nothing has ended");
    }
    let (_, second) = refresh(&server, id, first, &[]).await;
    let (_, third) = refresh(&server, id, second["refresh_token"].as_str().unwrap(), &[]).await;
    assert_eq!(third["scope"], "models");
    server.clock.advance(TimeDelta::minutes(10));
    let (status, replayed) = refresh(&server, id, first, &[]).await;
    assert_eq!((status, &replayed["error"]), (400, &json!("invalid_grant")));
    assert!(!is_accepted(&server, third["access_token"].as_str().unwrap()).await);
    let (status, ended) = refresh(&server, id, third["refresh_token"].as_str().unwrap(), &[]).await;
    assert_eq!((status, &ended["error"]), (400, &json!("invalid_grant")));
}

/// MCP "Security Best Practices" 2025-11-25, "Session Hijacking": a session is used with a token of its grant, as long
/// as there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_no_credential_and_ends_with_its_grant() {
    let server = HostedServer::start().await;
    let (ada, grace) = (adas(&server, "models").await, graces(&server, "models").await);
    let initialize = raw::initialize("2025-11-25", json!({}));
    let opened = server.send(server.mcp(&ada.access_token, &initialize)).await;
    let session = header(&opened, "mcp-session-id");
    let request = |method: Method, session: &str| {
        let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
        server
            .http
            .request(method, server.at("/mcp"))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-session-id", session)
            .body(ping.to_string())
    };
    let unknown = "00000000-0000-4000-8000-000000000000";
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let theirs = server.send(request(method.clone(), &session).bearer_auth(&grace.access_token)).await;
        let none = server.send(request(method.clone(), unknown).bearer_auth(&grace.access_token)).await;
        assert_eq!((theirs.status().as_u16(), none.status().as_u16()), (404, 404), "{method}");
        assert_eq!(within(theirs.text()).await.unwrap(), within(none.text()).await.unwrap());
        // Another one of Grace's tokens in the second header, or the session twice, changes nothing.
        let two = request(method.clone(), &session).header("mcp-session-id", unknown);
        assert_eq!(server.send(two.bearer_auth(&grace.access_token)).await.status(), 404);
        assert_eq!(server.send(request(method, &session)).await.status(), 401, "without a token");
    }
    // A refreshed token of the grant is as good as the one that opened it.
    let id = &ada.authorization.client_id;
    let (_, refreshed) = refresh(&server, id, &ada.refresh_token, &[]).await;
    let newer = refreshed["access_token"].as_str().unwrap();
    assert_eq!(server.send(request(Method::POST, &session).bearer_auth(newer)).await.status(), 200);
    server.post_form("/revoke", &[("token", newer), ("client_id", id)]).await;
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let response = server.send(request(method, &session).bearer_auth(newer)).await;
        assert_eq!(response.status(), 401);
    }
}

/// A call of `manage_api_keys` by a host that can show forms.
fn revoke(server: &HostedServer, token: &str, key: &str, more: &Value) -> reqwest::RequestBuilder {
    let mut params = json!({"name": "manage_api_keys", "arguments": {"action": "revoke", "key_id": key}});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = raw::modern_as(1, "tools/call", params, json!({"elicitation": {"form": {}}}));
    server
        .mcp(token, &message)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "manage_api_keys")
}

/// MCP "Security Best Practices", "State Handle Hijacking"; MCP 2026-07-28, multi round-trip requests: a `requestState` and
/// the confirmation in it are its owner's. An owner is a grant: the same person's other app is somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_of_another_owner_confirms_nothing() {
    let server = HostedServer::start().await;
    let ada = adas(&server, "models health keys").await;
    let others = [graces(&server, "models health keys").await, adas(&server, "models health keys").await];
    let made =
        server.call(&ada.access_token, "manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    let key = made["keys"][0]["id"].as_str().unwrap_or_else(|| panic!("{made}"));
    let is_live = || server.sandbox.live_keys(EMAIL).iter().any(|(id, _)| id == key);
    let (_, asked) =
        status_and_json(server.send(revoke(&server, &ada.access_token, key, &json!({}))).await).await;
    let state = &asked["result"]["requestState"];
    assert!(state.is_string(), "{asked}");
    let yes = json!({"person": {"action": "accept", "content": {"confirm": true}}});
    let confirmed = json!({"requestState": state, "inputResponses": yes});
    for other in &others {
        let request = revoke(&server, &other.access_token, key, &confirmed);
        let (_, refused) = status_and_json(server.send(request).await).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
        assert!(is_live());
    }
    let (_, done) =
        status_and_json(server.send(revoke(&server, &ada.access_token, key, &confirmed)).await).await;
    assert_ne!(done["result"]["isError"], true, "{done}");
    assert!(!is_live(), "the refused attempts have not used it up: {done}");
}

/// RFC 9700, section 2.3 (what an access token is good for); OWASP ASVS 5.0, 8.2.2: what one grant spends, no other pays for,
/// not even one of the same person.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_spends_the_budget_of_another_owner() {
    let server = HostedServer::start().await;
    let ada = adas(&server, "health").await;
    let others = [graces(&server, "health").await, adas(&server, "health").await];
    let check = async |connection: &Connection| {
        let arguments = json!({"medications": [{"name": "aspirin"}]});
        server.call(&connection.access_token, "medication_check", arguments).await
    };
    assert_eq!(check(&ada).await["cost"], 0.03);
    assert!(check(&ada).await.is_null(), "a second one does not fit into five cents");
    for other in &others {
        assert_eq!(check(other).await["cost"], 0.03);
    }
    for (connection, spent) in std::iter::once(&ada).chain(&others).zip([Usd::cents(3); 3]) {
        let totals = server.accounts.open(&connection.grant.owner()).usage_totals().await.unwrap();
        assert_eq!(totals.spent, spent);
    }
    assert_eq!(server.sandbox.count("POST /health-ai/medication-check"), 3);
}

/// MCP, "Scope Challenge Handling": what is read in two ways is allowed in neither.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_call_goes_beyond_the_scopes() {
    let server = HostedServer::start().await;
    let ada = adas(&server, "models").await;
    // Or the budget would refuse what the scopes should.
    server.accounts.open(&ada.grant.owner()).set_daily_limit(Usd::cents(500)).await.unwrap();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"health_analyze","arguments":{"prompt":"x","analysis_type":"general"}}}"#;
    let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    for body in [
        call.to_owned(),
        format!("[{call}]"),
        format!("[{ping},{call}]"),
        format!("{ping}\n{call}"),
        format!("\u{feff}{call}"),
        format!(" \r\n\t{call}"),
        call.replace("health_analyze", r"health\u005fanalyze"),
        call.replace("tools/call", r"tools\/call"),
        call.replace(r#""method""#, r#""\u006dethod""#),
        call.replace(r#""params":{"#, r#""params":{"name":"list_models","#),
        call.replace(r#""name":"health_analyze""#, r#""name":"health_analyze","name":"list_models""#),
        call.replace(r#""params":{"#, r#""params":{"name":"list_models"},"params":{"#),
        call.replace(r#""id":1"#, r#""id":null"#),
        call.replace(r#""id":1,"#, ""),
        call.replace("health_analyze", "HEALTH_ANALYZE"),
        call.replace("health_analyze", "health_analyze "),
    ] {
        for modern in [false, true] {
            let mut request = server.mcp(&ada.access_token, &Value::Null).body(body.clone());
            if modern {
                request = request
                    .header("mcp-protocol-version", "2026-07-28")
                    .header("mcp-method", "tools/call")
                    .header("mcp-name", "list_models");
            }
            let (_, answer) = status_and_json(server.send(request).await).await;
            assert!(answer["result"].get("structuredContent").is_none(), "{body}: {answer}");
        }
    }
    assert_eq!(server.sandbox.count("POST /health-ai/analyze"), 0);
}
