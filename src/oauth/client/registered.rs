//! Clients that an operator has added.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AddedClient, Client, ClientError, ClientKind, NewClient, display_name, redirect_uri};
use crate::{
    clock::{Clock, Timestamp},
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Records},
};

/// Start of the ids of these clients.
pub const PREFIX: &str = "client-";

const KIND: RecordKind = RecordKind::new("oauth-client");

/// The clients that operators have added.
#[derive(Clone, Debug)]
pub struct Registered {
    records: Records,
}

/// The hash of a client's secret: SHA-256, since a secret of 256 random bits cannot be guessed, however fast its hash is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SecretHash(String);

#[derive(Deserialize, Serialize)]
struct Stored {
    name: Option<String>,
    redirect_uris: Vec<String>,
    /// Absent for a public client.
    secret: Option<SecretHash>,
    created_at: Timestamp,
}

impl SecretHash {
    pub fn of(secret: &SecretString) -> Self {
        #[cfg(test)]
        tests::count_hash();
        Self(secret::digest(secret.expose_secret()))
    }

    /// Returns a hash that no secret has, for comparisons that must fail in the usual time.
    pub fn of_none() -> Self {
        Self(URL_SAFE_NO_PAD.encode([0; 32]))
    }

    /// Whether the secret has this hash. It takes the same time for every secret.
    pub fn is_of(&self, secret: &SecretString) -> bool {
        secret::same_text(&self.0, &Self::of(secret).0)
    }
}

impl Stored {
    fn into_client(self, id: &str) -> Client {
        let Self { name, redirect_uris, .. } = self;
        Client { id: id.to_owned(), kind: ClientKind::Registered, name, redirect_uris }
    }
}

impl Registered {
    pub fn new(records: Records) -> Self {
        Self { records }
    }

    /// Returns the client, with the hash of its secret if it has one.
    pub async fn client(&self, id: &str) -> Result<Option<(Client, Option<SecretHash>)>, vault::Error> {
        let Some(found) = self.records.read::<Stored>(KIND, id).await? else { return Ok(None) };
        let secret = found.value.secret.clone();
        Ok(Some((found.value.into_client(id), secret)))
    }

    pub async fn add(&self, new: NewClient, clock: &Clock) -> Result<AddedClient, ClientError> {
        if new.redirect_uris.is_empty() {
            return Err(ClientError::Invalid("A client needs a redirect URI."));
        }
        if new.name.trim().is_empty() {
            return Err(ClientError::Invalid(
                "Give the client a name: people see it when they are asked to connect it.",
            ));
        }
        if !new.redirect_uris.iter().all(|uri| redirect_uri::is_acceptable(uri)) {
            return Err(ClientError::Invalid(
                "A redirect URI is https, http on localhost, 127.0.0.1 or [::1], or has a private-use scheme with a dot; it \
                 has neither a user name nor a fragment.",
            ));
        }
        let id = format!("{PREFIX}{}", Uuid::new_v4().simple());
        let secret = new.is_confidential.then(secret::random);
        let stored = Stored {
            name: display_name(&new.name),
            redirect_uris: redirect_uri::acceptable(new.redirect_uris.iter().map(String::as_str)),
            secret: secret.as_ref().map(SecretHash::of),
            created_at: clock.now(),
        };
        self.records.write(KIND, &id, None, &stored, None).await?;
        let created_at = stored.created_at;
        Ok(AddedClient { client: stored.into_client(&id), secret, created_at })
    }

    pub async fn all(&self) -> Result<Vec<(Client, Timestamp)>, vault::Error> {
        let found = self.records.all::<Stored>(KIND).await?.into_iter();
        let mut clients: Vec<_> = found
            .map(|(id, stored)| {
                let created_at = stored.value.created_at;
                (stored.value.into_client(&id), created_at)
            })
            .collect();
        clients.sort_by_key(|(_, created_at)| *created_at);
        Ok(clients)
    }

    pub async fn remove(&self, id: &str) -> Result<bool, vault::Error> {
        let Some(found) = self.records.read::<Stored>(KIND, id).await? else { return Ok(false) };
        match self.records.delete(KIND, id, found.version).await {
            // It is never changed, so somebody else has removed it.
            Err(vault::Error::Conflict) => Ok(false),
            deleted => deleted.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests;
