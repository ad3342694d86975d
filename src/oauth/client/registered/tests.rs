use std::cell::Cell;

use base64::engine::general_purpose::STANDARD;
use static_assertions::assert_not_impl_any;

use super::{
    super::{
        Network,
        testing::{World, form},
    },
    *,
};
use crate::oauth::OAuthError;

// Timing of secrets: OAuth 2.1, "Credentials-Guessing Attacks" (RFC 6749, section 10.10), as MCP authorization,
// "Security Considerations", demands; OWASP ASVS 5.0, 11.2.4: hashes are compared in constant time only.
assert_not_impl_any!(SecretHash: PartialEq<SecretHash>, PartialEq<str>, PartialEq<String>);

thread_local! {
    /// Secrets that this thread, and so its test, has hashed.
    static HASHED: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count_hash() {
    HASHED.set(HASHED.get() + 1);
}

async fn world() -> World {
    World::new(Network::public()).await
}

fn new(is_confidential: bool) -> NewClient {
    let redirect_uris = vec!["http://127.0.0.1:9000/callback".to_owned()];
    NewClient { name: "Conformance\u{202e}".to_owned(), redirect_uris, is_confidential }
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn authenticate(
    world: &World,
    header: Option<&str>,
    body: &[(&str, &str)],
) -> Result<Client, OAuthError> {
    world.clients.authenticate(header, &form(body)).await
}

#[tokio::test]
async fn a_confidential_client_authenticates_with_its_secret_in_either_way() {
    let world = world().await;
    let AddedClient { client, secret, .. } = world.clients.add(new(true)).await.unwrap();
    let (id, secret) = (client.id.as_str(), secret.unwrap());
    let secret = secret.expose_secret();
    assert_eq!((client.name.as_deref(), client.kind), (Some("Conformance"), ClientKind::Registered));
    assert!(client.allows_redirect("http://127.0.0.1:1234/callback"));
    assert_eq!(world.clients.find(id, None).await.unwrap(), client);

    let header = basic(id, secret);
    // RFC 6749, section 2.3.1: encoded as in a form first.
    let encoded = basic(&id.replace('-', "%2D"), &secret.replace('-', "%2d"));
    let lower = header.replace("Basic ", "basic  ");
    let ok = [
        (Some(&*header), vec![]),
        (Some(&*header), vec![("client_id", id)]),
        (Some(&*header), vec![("client_secret", "")]),
        (Some(&*encoded), vec![]),
        (Some(&*lower), vec![]),
        (None, vec![("client_id", id), ("client_secret", secret)]),
        (Some("Bearer something"), vec![("client_id", id), ("client_secret", secret)]),
    ];
    for (header, body) in ok {
        assert_eq!(authenticate(&world, header, &body).await.unwrap(), client, "{body:?}");
    }
}

#[tokio::test]
async fn a_confidential_client_without_its_secret_is_refused() {
    let world = world().await;
    let added = world.clients.add(new(true)).await.unwrap();
    let other = world.clients.add(new(true)).await.unwrap().secret.unwrap();
    let id = added.client.id.as_str();
    let (right, other) = (added.secret.unwrap(), other.expose_secret());
    let (right, shorter) = (right.expose_secret(), &right.expose_secret()[1..]);
    let (wrong, unknown) = (basic(id, other), basic("client-0", right));
    for (header, body) in [
        (None, vec![("client_id", id)]),
        (None, vec![("client_id", id), ("client_secret", "")]),
        (None, vec![("client_id", id), ("client_secret", other)]),
        (None, vec![("client_id", id), ("client_secret", shorter)]),
        (None, vec![("client_id", "client-0"), ("client_secret", right)]),
        (Some(&*wrong), vec![]),
        (Some(&*unknown), vec![]),
        (Some("Basic !"), vec![("client_id", id), ("client_secret", right)]),
        (Some("Basic bm8gY29sb24="), vec![]),
    ] {
        let error = authenticate(&world, header, &body).await.unwrap_err();
        assert_eq!(error.status, 401, "{body:?}");
    }
    // Whether a client exists cannot be told from the answer.
    let error = async |id| {
        authenticate(&world, None, &[("client_id", id), ("client_secret", other)]).await.unwrap_err()
    };
    assert_eq!(error(id).await, error("client-0").await);
}

// The same; OWASP ASVS 5.0, 6.3.8: nobody learns from the time that it takes whether a client is known.
#[tokio::test]
async fn a_secret_of_an_unknown_client_is_hashed_as_is_that_of_a_known_one() {
    let world = world().await;
    let id = world.clients.add(new(true)).await.unwrap().client.id;
    for id in [&*id, "client-0", "https://client.example", "dcr-x"] {
        HASHED.set(0);
        let sent = authenticate(&world, None, &[("client_id", id), ("client_secret", "x")]).await;
        assert_eq!((sent.unwrap_err().status, HASHED.get()), (401, 1), "{id}");
    }
}

// RFC 6749, section 2.3
#[tokio::test]
async fn a_client_is_named_once_and_authenticates_in_one_way() {
    let world = world().await;
    let AddedClient { client, secret, .. } = world.clients.add(new(true)).await.unwrap();
    let (id, secret) = (client.id.as_str(), secret.unwrap());
    let secret = secret.expose_secret();
    let header = basic(id, secret);
    for (header, body) in [
        (None, vec![]),
        (None, vec![("client_secret", secret)]),
        (Some(&*header), vec![("client_id", "client-0")]),
        (Some(&*header), vec![("client_secret", secret)]),
    ] {
        let error = authenticate(&world, header, &body).await.unwrap_err();
        assert_eq!((error.status, error.code), (400, "invalid_request"), "{body:?}");
    }
}

#[tokio::test]
async fn a_public_client_has_no_secret() {
    let world = world().await;
    let AddedClient { client, secret, .. } = world.clients.add(new(false)).await.unwrap();
    assert!(secret.is_none());
    let id = client.id.as_str();
    let no_secret = basic(id, "");
    assert_eq!(authenticate(&world, None, &[("client_id", id)]).await.unwrap(), client);
    assert_eq!(authenticate(&world, Some(&no_secret), &[]).await.unwrap(), client);
    let error = authenticate(&world, None, &[("client_id", id), ("client_secret", "x")]).await.unwrap_err();
    assert_eq!((error.status, error.code), (401, "invalid_client"));
}

#[tokio::test]
async fn a_client_with_an_unusable_redirect_uri_is_not_added() {
    let world = world().await;
    for uris in [vec![], vec!["http://client.example/cb"], vec!["https://client.example/", "javascript:x"]] {
        let redirect_uris = uris.into_iter().map(str::to_owned).collect();
        let refused = world.clients.add(NewClient { redirect_uris, ..new(false) }).await;
        assert!(matches!(refused, Err(ClientError::Invalid(_))));
    }
}

#[tokio::test]
async fn a_removed_client_is_unknown() {
    let world = world().await;
    let client = world.clients.add(new(false)).await.unwrap().client;
    assert!(world.clients.remove(&client.id).await.unwrap());
    assert!(!world.clients.remove(&client.id).await.unwrap());
    assert!(matches!(world.replica().await.find(&client.id, None).await, Err(ClientError::Unknown(_))));
    let error = authenticate(&world, None, &[("client_id", &client.id)]).await.unwrap_err();
    assert_eq!((error.status, error.code), (401, "invalid_client"));
}

#[tokio::test]
async fn clients_are_listed_with_the_oldest_first() {
    let world = world().await;
    let mut added = Vec::new();
    for is_confidential in [true, false, true] {
        let AddedClient { client, created_at, .. } = world.clients.add(new(is_confidential)).await.unwrap();
        added.push((client, created_at));
        world.clock.advance(chrono::TimeDelta::minutes(1));
    }
    assert_eq!(world.replica().await.registered().await.unwrap(), added);
    assert!(world.clients.remove(&added[1].0.id).await.unwrap());
    added.remove(1);
    assert_eq!(world.clients.registered().await.unwrap(), added);
}

#[tokio::test]
async fn a_secret_is_kept_as_its_hash() {
    let world = world().await;
    let AddedClient { client, secret, created_at } = world.clients.add(new(true)).await.unwrap();
    let secret = secret.unwrap();
    let stored = world.records().read::<serde_json::Value>(KIND, &client.id).await.unwrap().unwrap().value;
    assert!(!stored.to_string().contains(secret.expose_secret()));
    assert!(SecretHash::of(&secret).is_of(&secret));
    assert!(!SecretHash::of_none().is_of(&secret));
    assert_eq!(created_at, world.clock.now());
}
