//! The sign-in pages of a hosted server, under its public origin. What a page is for and how far it has come is a record
//! in the vault, so that a page that was opened by one replica is served and finished by any other. No password is kept.

mod owner;
mod page;
pub mod views;

use std::{sync::Arc, time::Duration};

pub use self::page::{Page, Purpose};
use super::{Demo, KEPT_AFTER_THE_END, LIFETIME, Place, State, pending};
use crate::{
    account::Authenticator,
    config::PublicOrigin,
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Records, Versioned},
};

const KIND: RecordKind = RecordKind::new("sign-in-page");

/// The sign-in pages of a hosted server. Clones share them, as do all processes with the same vault.
#[derive(Clone, Debug)]
pub struct PublicPages {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    records: Records,
    place: Arc<Place>,
    authenticator: Authenticator,
    /// The embedded sandbox, if the operator chose it as the upstream.
    demo: Option<Demo>,
}

impl PublicPages {
    #[must_use]
    pub fn new(
        records: Records,
        origin: &PublicOrigin,
        authenticator: Authenticator,
        demo: Option<Demo>,
    ) -> Self {
        let place = Arc::new(Place::public(origin));
        Self { inner: Arc::new(Inner { records, place, authenticator, demo }) }
    }

    #[must_use]
    pub fn place(&self) -> &Arc<Place> {
        &self.inner.place
    }

    /// Returns what authenticates people whose account is not known yet.
    #[must_use]
    pub fn authenticator(&self) -> &Authenticator {
        &self.inner.authenticator
    }

    #[must_use]
    pub fn demo(&self) -> Option<&Demo> {
        self.inner.demo.as_ref()
    }

    /// Opens a page. `email` is the initial value of its form.
    pub async fn open(&self, purpose: Purpose, email: String) -> Result<PublicPage, vault::Error> {
        let page = Page::new(purpose, email, pending::code(), self.inner.authenticator.now() + LIFETIME);
        let id = secret::random();
        let records = &self.inner.records;
        let version = records.write(KIND, id.expose_secret(), None, &page, Some(LIFETIME)).await?;
        Ok(PublicPage { pages: self.clone(), id, page, version })
    }

    /// Returns the page with this id, which may have ended; `None` if there is none, or no longer.
    pub async fn find(&self, id: &SecretString) -> Result<Option<PublicPage>, vault::Error> {
        let found = self.inner.records.read(KIND, id.expose_secret()).await?;
        Ok(found.map(|Versioned { value, version }| PublicPage {
            pages: self.clone(),
            id: id.clone(),
            page: value,
            version,
        }))
    }
}

/// A page as it was read or written last.
#[derive(Clone, Debug)]
pub struct PublicPage {
    pages: PublicPages,
    id: SecretString,
    page: Page,
    version: u64,
}

impl PublicPage {
    /// What gives access to the page: its last path segment.
    #[must_use]
    pub fn id(&self) -> &SecretString {
        &self.id
    }

    /// Returns the path of the page.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.pages.place().path(), self.id.expose_secret())
    }

    #[must_use]
    pub fn purpose(&self) -> &Purpose {
        &self.page.purpose
    }

    #[must_use]
    pub fn state(&self) -> &State {
        &self.page.state
    }

    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.page.expires_in(self.pages.inner.authenticator.now())
    }

    /// Whether the person can still use the page.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.page.state.is_open() && !self.expires_in().is_zero()
    }

    /// Counts an attempt to sign in, before BondMCP is asked: neither parallel forms nor other replicas nor closed
    /// connections give more attempts. Returns `false` if there are none left; the page has ended then.
    pub async fn begin_attempt(&mut self) -> Result<bool, vault::Error> {
        self.change(Page::begin_attempt).await
    }

    /// BondMCP has refused the attempt. Returns how many are left.
    pub async fn attempt_was_wrong(&mut self) -> Result<u8, vault::Error> {
        self.change(Page::attempt_was_wrong).await
    }

    /// BondMCP has not said whether the attempt was right: it does not count.
    pub async fn attempt_was_undecided(&mut self) -> Result<(), vault::Error> {
        self.change(Page::attempt_was_undecided).await
    }

    pub async fn set_state(&mut self, state: State) -> Result<(), vault::Error> {
        self.change(|page| page.set_state(state.clone())).await
    }

    /// Returns from the verification of an address to the form.
    pub async fn go_back(&mut self) -> Result<(), vault::Error> {
        self.change(Page::go_back).await
    }

    /// Changes the record by compare-and-swap: `change` runs again on a newer one, so it must have no other effect. The
    /// state is what others wait for, so it is kept for a while after the end.
    async fn change<T>(&mut self, mut change: impl FnMut(&mut Page) -> T) -> Result<T, vault::Error> {
        loop {
            let mut page = self.page.clone();
            let outcome = change(&mut page);
            if page == self.page {
                return Ok(outcome);
            }
            let lifetime = if page.state.is_open() { self.expires_in() } else { KEPT_AFTER_THE_END };
            let (records, id) = (&self.pages.inner.records, self.id.expose_secret());
            match records.write(KIND, id, Some(self.version), &page, Some(lifetime)).await {
                Ok(version) => {
                    (self.page, self.version) = (page, version);
                    return Ok(outcome);
                }
                Err(vault::Error::Conflict) => self.reread().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the record again. One that is gone has expired.
    async fn reread(&mut self) -> Result<(), vault::Error> {
        match self.pages.find(&self.id).await? {
            Some(newer) => {
                *self = newer;
                Ok(())
            }
            None => Err(vault::Error::Conflict),
        }
    }

    /// Deletes a page that nobody has seen.
    pub async fn withdraw(self) -> Result<(), vault::Error> {
        self.pages.inner.records.delete(KIND, self.id.expose_secret(), self.version).await
    }
}
