//! The sessions of revisions before 2026-07-28. rmcp knows a session by its id alone; here it belongs to the owner who
//! opened it, and to nobody else.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;
use parking_lot::RwLock;
use rmcp::{model::RequestId, transport::streamable_http_server::session::SessionId};
use tokio::sync::{Mutex, MutexGuard};

use super::session_manager::{SessionManager, Unanswered};
use crate::account::Owner;

/// Maximum number of open sessions of one person, as a multiple of that of one owner.
const OWNERS_OF_A_PERSON: usize = 4;

/// The header of a request that belongs to a session, and of the answer that opens one.
const SESSION_ID: &str = "mcp-session-id";

/// The open sessions and their owners. rmcp closes one that has been idle for five minutes.
#[derive(Debug)]
pub(super) struct Sessions {
    pub manager: Arc<SessionManager>,
    owners: RwLock<HashMap<SessionId, Owner>>,
    /// Held while a session opens, so that sessions are counted one at a time.
    opening: Mutex<()>,
    /// Maximum number of open sessions of one owner.
    max: usize,
    /// Maximum number of open sessions of all owners together.
    max_overall: usize,
}

/// The right of an owner to open a session.
pub(super) struct Opening<'a> {
    sessions: &'a Sessions,
    owner: &'a Owner,
    _one_at_a_time: MutexGuard<'a, ()>,
}

impl Sessions {
    pub fn new(max: usize, max_overall: usize) -> Self {
        let (owners, opening) = (RwLock::default(), Mutex::new(()));
        Self { manager: Arc::new(SessionManager::new()), owners, opening, max, max_overall }
    }

    /// Whether the session that `headers` name is the owner's.
    pub fn is_theirs(&self, owner: &Owner, headers: &HeaderMap) -> bool {
        let Some(id) = session_id(headers) else { return false };
        let owners = self.owners.read();
        owners.get(id) == Some(owner)
    }

    /// Notes a request in the session that `headers` name; returns `None` if one with the same id is not answered.
    pub fn begin(&self, headers: &HeaderMap, id: RequestId) -> Option<Arc<Unanswered>> {
        self.manager.begin(session_id(headers)?, id)
    }

    /// Returns `None` if there are too many open sessions, of the owner, of the person or of all owners.
    pub async fn open<'a>(&'a self, owner: &'a Owner) -> Option<Opening<'a>> {
        let one_at_a_time = self.opening.lock().await;
        let open = self.manager.local.sessions.read().await;
        let mut owners = self.owners.write();
        owners.retain(|id, _| open.contains_key(id));
        let person = owner.person();
        let theirs = owners.values().filter(|of| *of == owner).count();
        let persons = owners.values().filter(|of| of.person() == person).count();
        let is_within =
            theirs < self.max && persons < self.max * OWNERS_OF_A_PERSON && open.len() < self.max_overall;
        is_within.then_some(Opening { sessions: self, owner, _one_at_a_time: one_at_a_time })
    }
}

impl Opening<'_> {
    /// Binds the session that an answer with these headers has opened to its owner.
    pub fn opened(self, headers: &HeaderMap) {
        if let Some(id) = session_id(headers) {
            let mut owners = self.sessions.owners.write();
            owners.insert(id.into(), self.owner.clone());
        }
    }
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}
