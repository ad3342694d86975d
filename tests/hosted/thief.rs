//! A thief has the database of a hosted server, its files or a dump, and not the sealing key: nothing in it is an e-mail
//! address, a token, a key, a code or a secret of anybody, in any usual encoding (OWASP ASVS 5.0, 11.4 and 14.2;
//! RFC 9700, section 4.14; RFC 6819, section 5.1.4.1).

#[cfg(unix)]
use std::fmt::Write as _;
use std::path::Path;

#[cfg(unix)]
use crate::common::postgres;
use crate::common::{
    EMAIL, files,
    hosted::{Visitor, form_token},
    hosted_server::{Authorization, HostedServer, Setup, parameter},
    secrets,
};
use bondmcp_server::{
    clock::Clock,
    config::VaultLocation,
    oauth::{NewClient, Scopes},
    secret::SecretString,
    vault::Error,
};
use chrono::TimeDelta;
use reqwest::Response;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use url::Url;

/// Somebody who mistypes both.
const MISTYPED: [&str; 2] = ["mallory.canary@example.com", "canary-wrong-password"];

/// What an agent says about somebody's health.
const PROMPT: &str = "canary: what explains a ferritin of 8?";

fn location(response: &Response) -> String {
    let to = response.headers().get("location").unwrap_or_else(|| panic!("{response:?}"));
    to.to_str().unwrap().to_owned()
}

fn field(html: &str, name: &str) -> String {
    let (_, rest) =
        html.split_once(&format!(r#"name="{name}" value=""#)).unwrap_or_else(|| panic!("{name} in {html}"));
    rest.split_once('"').unwrap().0.to_owned()
}

/// What must not be found.
#[derive(Default)]
struct Canaries(Vec<SecretString>);

impl Canaries {
    fn add(&mut self, secret: &str) {
        assert!(secret.len() >= 12, "long enough to be found by design only");
        self.0.push(secret.into());
    }

    fn add_tokens(&mut self, tokens: &Value) {
        for name in ["access_token", "refresh_token"] {
            self.add(tokens[name].as_str().unwrap_or_else(|| panic!("{tokens}")));
        }
        let refresh_token = tokens["refresh_token"].as_str().unwrap();
        self.add(refresh_token.rsplit('.').next().unwrap());
    }

    /// The two halves of a browser's cookie.
    fn add_cookie(&mut self, visitor: &Visitor) {
        let cookie = visitor.cookie().unwrap();
        cookie.split_once('=').unwrap().1.split('.').for_each(|half| self.add(half));
    }
}

/// Goes from the page of an authorization to the sign-in, which it leads to.
async fn sign_in_page(
    server: &HostedServer,
    visitor: &Visitor,
    authorization: &Authorization,
) -> (String, String) {
    let begun = visitor.get(&format!("{}/authorize?{}", server.origin, authorization.query())).await;
    let page = format!("{}{}", server.origin, location(&begun));
    let sign_in = format!("{}{}", server.origin, location(&visitor.get(&page).await));
    (page, sign_in)
}

/// Has everything happen that leaves something behind, in each state in which it can be left.
async fn lived_in(server: &HostedServer) -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add(EMAIL);
    canaries.add(secrets::text(&server.place.password));
    canaries.add(secrets::text(&server.place.sealing_key));
    canaries.add(PROMPT);
    for mistyped in MISTYPED {
        canaries.add(mistyped);
    }

    // A browser that signs in, agrees and gets its client a code; the grant has a key of its own, and calls.
    let asked = Authorization::of(server.register(&["http://127.0.0.1/callback"]).await);
    canaries.add(&asked.verifier);
    let visitor = Visitor::before(server.address);
    let (page, sign_in) = sign_in_page(server, &visitor, &asked).await;
    canaries.add_cookie(&visitor);
    visitor.sign_in(&sign_in, MISTYPED[0], &MISTYPED[1].into()).await;
    let signed_in = visitor.sign_in(&sign_in, EMAIL, &server.place.password).await;
    assert_eq!(format!("{}{}", server.origin, location(&signed_in)), page);
    canaries.add_cookie(&visitor);
    let html = visitor.page(&page).await;
    let (form_token, shown) = (form_token(&html), field(&html, "shown"));
    let fields = [
        ("form_token", &*form_token),
        ("shown", &shown),
        ("scope", "models"),
        ("scope", "health"),
        ("scope", "keys"),
        ("daily_limit", "0.50"),
        ("decision", "allow"),
    ];
    let (parent, id) = page.rsplit_once('/').unwrap();
    let form =
        visitor.form(parent, id, &fields).header("sec-fetch-site", "same-origin").header("origin", "null");
    let done = format!("{}{}", server.origin, location(&visitor.send(form).await));
    let answer: Url = location(&visitor.get(&done).await).parse().unwrap();
    let code = parameter(&answer, "code");
    canaries.add(&code);
    let (status, mut tokens) = server.redeem(&asked, &code).await;
    assert_eq!(status, 200, "{tokens}");
    canaries.add_tokens(&tokens);
    for _ in 0..2 {
        let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", &refresh), ("client_id", &asked.client_id)];
        tokens = server.post_form("/token", &form).await.1;
        canaries.add_tokens(&tokens);
    }
    let token = tokens["access_token"].as_str().unwrap();
    server.call(token, "health_analyze", json!({"prompt": PROMPT, "analysis_type": "general"})).await;
    let made = server.call(token, "manage_api_keys", json!({"action": "create", "name": "ci"})).await;
    assert!(made["keys"][0]["id"].is_string(), "{made}");

    // A browser that has signed in and not decided yet, and one that has not signed in.
    for signs_in in [true, false] {
        let waiting = Visitor::before(server.address);
        let (_, sign_in) = sign_in_page(server, &waiting, &asked).await;
        canaries.add_cookie(&waiting);
        if signs_in {
            waiting.sign_in(&sign_in, EMAIL, &server.place.password).await;
            canaries.add_cookie(&waiting);
        }
    }

    // A client with a secret, whose first code is redeemed and second is not.
    let uri = "https://confidential.example/callback";
    let new =
        NewClient { name: "Confidential".into(), redirect_uris: vec![uri.into()], is_confidential: true };
    let added = server.server.clients().add(new).await.unwrap();
    let client_secret = secrets::text(&added.secret.unwrap()).to_owned();
    canaries.add(&client_secret);
    let asked = Authorization { redirect_uri: uri.into(), ..Authorization::of(added.client.id) };
    for is_redeemed in [true, false] {
        let (_, answer) = server.agree(&asked, Scopes::all()).await;
        let code = parameter(&answer, "code");
        canaries.add(&code);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("client_id", &asked.client_id),
            ("client_secret", &client_secret),
            ("redirect_uri", uri),
            ("code_verifier", &asked.verifier),
        ];
        if is_redeemed {
            let (status, tokens) = server.post_form("/token", &form).await;
            assert_eq!(status, 200, "{tokens}");
            canaries.add_tokens(&tokens);
        }
    }
    // Everything that BondMCP has given out: its tokens, and the keys of the grants.
    let issued = server.sandbox.secrets_issued();
    assert!(issued.len() >= 5, "{}", issued.len());
    canaries.0.extend(issued);
    canaries
}

/// Returns all values of all rows of an SQLite database, and the number of records.
async fn sqlite_dump(path: &Path) -> (Vec<u8>, usize) {
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}?mode=ro", path.display())).await.unwrap();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table'";
    let tables = sqlx::query_scalar::<_, String>(tables).fetch_all(&mut connection).await.unwrap();
    let (mut dump, mut records) = (Vec::new(), 0);
    for table in tables {
        let select = AssertSqlSafe(format!(r#"SELECT * FROM "{table}""#));
        for row in sqlx::raw_sql(select).fetch_all(&mut connection).await.unwrap() {
            records += usize::from(table == "records");
            for column in 0..row.len() {
                dump.extend(row.try_get_unchecked::<Vec<u8>, _>(column).unwrap_or_default());
                dump.push(b'\n');
            }
        }
    }
    connection.close().await.unwrap();
    (dump, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_sqlite_tell_a_thief_nothing() {
    let server = HostedServer::start().await;
    let canaries = lived_in(&server).await;
    let directory = server.place.data_dir();
    let check = || {
        for (path, bytes) in files(&directory) {
            secrets::assert_absent(&canaries.0, &bytes, &path.display().to_string());
        }
    };
    check();
    let vault = directory.join("vault.db");
    let (dump, records) = sqlite_dump(&vault).await;
    assert!(records > 10, "{records}");
    secrets::assert_absent(&canaries.0, &dump, "the rows");
    // Nor what stands in freed pages and in the log when the server has stopped.
    server.accounts.close().await;
    check();

    // Another key opens none of it.
    let location = VaultLocation::Sqlite(vault);
    assert_eq!(crate::common::vault(&location, &[1]).await.unwrap_err(), Error::WrongKey);
}

/// Whoever registers clients by the thousand fills no disk, as the id is the registration itself.
#[tokio::test(flavor = "multi_thread")]
async fn dynamic_registration_stores_nothing() {
    let server = HostedServer::start().await;
    let vault = server.place.data_dir().join("vault.db");
    let (_, before) = sqlite_dump(&vault).await;
    assert!(before > 0);
    for number in 0..20 {
        server.register(&[&format!("https://app-{number}.example/callback")]).await;
    }
    assert_eq!(sqlite_dump(&vault).await.1, before);
}

/// Returns a dump by SQL, with all binary values decoded at its end.
#[cfg(unix)]
fn postgres_dump(database: &postgres::Database) -> (Vec<u8>, usize) {
    let tables =
        database.psql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
    let (mut dump, mut records) = (String::new(), 0);
    for table in tables {
        for row in database.psql(&format!(r#"SELECT t::text FROM "{table}" t"#)) {
            records += usize::from(table == "records");
            writeln!(dump, "{row}").unwrap();
        }
    }
    let mut bytes = dump.clone().into_bytes();
    for run in dump.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= 16) {
        let pairs = run.as_bytes().chunks_exact(2);
        bytes.extend(pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()));
        bytes.push(b'\n');
    }
    (bytes, records)
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_postgresql_tells_a_thief_nothing() {
    let Some(database) = postgres::database() else { return };
    let vault = Some(format!("{}?sslmode=disable", database.url));
    let server = HostedServer::start_with(Setup { vault, ..Setup::default() }).await;
    let canaries = lived_in(&server).await;
    let (dump, records) = postgres_dump(&database);
    assert!(records > 10, "{records}");
    secrets::assert_absent(&canaries.0, &dump, "the dump");
    database.psql(&format!("CREATE TABLE planted AS SELECT convert_to('{EMAIL}', 'UTF8') AS value"));
    let planted = postgres_dump(&database).0;
    assert!(memchr::memmem::find(&planted, EMAIL.as_bytes()).is_some(), "what is there is found");
    for (path, bytes) in files(&server.place.data_dir()) {
        secrets::assert_absent(&canaries.0, &bytes, &path.display().to_string());
    }
}

/// The search finds what is there: a canary that is planted in a record's owner, as the first version of the vault had it.
#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "a secret stands in the rows")]
async fn a_planted_canary_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("planted.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    for sql in ["CREATE TABLE records (owner TEXT, sealed BLOB)", "INSERT INTO records VALUES ('x', x'00')"] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    let plant = AssertSqlSafe(format!("UPDATE records SET sealed = CAST('.{EMAIL}.' AS BLOB)"));
    sqlx::raw_sql(plant).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    secrets::assert_absent(&[EMAIL.into()], &sqlite_dump(&path).await.0, "the rows");
}

/// RFC 9700, section 4.10: what stands in somebody's old log is good for nothing, and never will be.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_access_token_opens_nothing() {
    let clock = Clock::manual(chrono::Utc::now());
    let server = HostedServer::start_with(Setup { clock, ..Setup::default() }).await;
    let (_, tokens) = server.tokens("models health keys").await;
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(server.call(token, "list_models", json!({})).await["count"], 3);
    let asked = server.sandbox.count("GET /health-ai/models");
    // When it has expired, when another key signs, and when its own is forgotten.
    for later in [TimeDelta::minutes(16), TimeDelta::days(30), TimeDelta::days(30)] {
        server.clock.advance(later);
        // Signs, and so rotates the keys.
        server.tokens("models").await;
        let params = json!({"name": "list_models", "arguments": {}});
        let response = server.send(server.modern(token, "tools/call", Some("list_models"), params)).await;
        assert_eq!(response.status(), 401);
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains(r#"error="invalid_token""#) && !challenge.contains(token), "{challenge}");
    }
    assert_eq!(server.sandbox.count("GET /health-ai/models"), asked);
}
