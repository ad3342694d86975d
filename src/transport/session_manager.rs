//! rmcp's sessions, and which requests in them are not answered yet. rmcp tells requests apart by their ids alone: of two
//! with the same id it forgets one, and keeps what it has of that one as long as the session.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::Stream;
use http::request::Parts;
use parking_lot::Mutex;
use rmcp::{
    RoleServer,
    model::{
        ClientJsonRpcMessage, ClientNotification, GetExtensions as _, JsonRpcMessage, RequestId,
        ServerJsonRpcMessage,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::{
        Transport,
        streamable_http_server::session::{
            self, ServerSseMessage, SessionId,
            local::{LocalSessionManager, LocalSessionManagerError},
        },
    },
};

/// A session and a request in it.
type Key = (Box<str>, RequestId);

/// The sessions.
#[derive(Debug)]
pub(super) struct SessionManager {
    pub local: LocalSessionManager,
    unanswered: Arc<Mutex<HashSet<Key>>>,
}

/// A request that is not answered, until the last reference is dropped. Its call has one, in the extensions of the HTTP
/// request, and so has its session's transport until rmcp has handled the answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    key: Key,
    all: Arc<Mutex<HashSet<Key>>>,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.all.lock().remove(&self.key);
    }
}

impl SessionManager {
    pub fn new() -> Self {
        let mut local = LocalSessionManager::default();
        // Only streams of cancelled requests are kept after their end. Nobody asks for them.
        local.session_config.completed_cache_ttl = Duration::ZERO;
        Self { local, unanswered: Arc::default() }
    }

    /// Notes a request in a session; returns `None` if one with the same id is not answered.
    pub fn begin(&self, session: &str, id: RequestId) -> Option<Arc<Unanswered>> {
        let key = (session.into(), id);
        let mut all = self.unanswered.lock();
        all.insert(key.clone()).then(|| Arc::new(Unanswered { key, all: Arc::clone(&self.unanswered) }))
    }
}

type Local = <LocalSessionManager as session::SessionManager>::Transport;

/// The transport of a session.
pub(super) struct SessionTransport {
    local: Local,
    unanswered: HashMap<RequestId, Arc<Unanswered>>,
}

impl Transport<RoleServer> for SessionTransport {
    type Error = <Local as Transport<RoleServer>>::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let answered = answered.and_then(|id| self.unanswered.remove(id));
        let sending = self.local.send(message);
        async move {
            let sent = sending.await;
            drop(answered);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let message = self.local.receive().await?;
        match &message {
            JsonRpcMessage::Request(request) => {
                let parts = request.request.extensions().get::<Parts>();
                if let Some(unanswered) = parts.and_then(|parts| parts.extensions.get::<Arc<Unanswered>>()) {
                    self.unanswered.insert(request.id.clone(), Arc::clone(unanswered));
                }
            }
            // rmcp sends no answer to a cancelled request.
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.unanswered.remove(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.local.close().await
    }
}

impl session::SessionManager for SessionManager {
    type Error = LocalSessionManagerError;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let (id, local) = self.local.create_session().await?;
        Ok((id, SessionTransport { local, unanswered: HashMap::new() }))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.local.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.local.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.local.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.local.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.local.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.local.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.local.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use rmcp::transport::streamable_http_server::session::SessionManager as _;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    const ID: RequestId = RequestId::Number(2);

    fn message<Message: DeserializeOwned>(mut message: Value) -> Message {
        message["jsonrpc"] = json!("2.0");
        serde_json::from_value(message).unwrap()
    }

    /// Opens a session as rmcp does.
    async fn open(manager: &SessionManager) -> (SessionId, SessionTransport) {
        let (session, mut transport) = manager.create_session().await.unwrap();
        let initialize = message(json!({"id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}}));
        let server = async {
            transport.receive().await.unwrap();
            transport.send(message(json!({"id": 1, "result": {}}))).await.unwrap();
        };
        let (opened, ()) = tokio::join!(manager.initialize_session(&session, initialize), server);
        opened.unwrap();
        (session, transport)
    }

    /// Sends a request whose client does not wait and whose call is over when this returns.
    async fn call(manager: &SessionManager, session: &SessionId, transport: &mut SessionTransport) {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.extensions.insert(manager.begin(session, ID).unwrap());
        let mut request: ClientJsonRpcMessage = message(json!({"id": 2, "method": "ping"}));
        request.insert_extension(parts);
        drop(manager.create_stream(session, request).await.unwrap());
        assert!(matches!(transport.receive().await, Some(JsonRpcMessage::Request(_))));
    }

    /// Until then it takes the answer to another request with the same id for the answer to this one.
    #[tokio::test]
    async fn an_id_is_taken_until_rmcp_has_handled_the_answer() {
        let manager = SessionManager::new();
        let (session, mut transport) = open(&manager).await;
        call(&manager, &session, &mut transport).await;
        assert!(manager.begin(&session, ID).is_none());
        assert!(manager.begin("another", ID).is_some());
        transport.send(message(json!({"id": 2, "result": {}}))).await.unwrap();
        assert!(manager.begin(&session, ID).is_some());
    }

    #[tokio::test]
    async fn the_id_of_a_cancelled_request_is_free_again() {
        let manager = SessionManager::new();
        let (session, mut transport) = open(&manager).await;
        call(&manager, &session, &mut transport).await;
        let cancelled = json!({"method": "notifications/cancelled", "params": {"requestId": 2}});
        manager.accept_message(&session, message(cancelled)).await.unwrap();
        assert!(transport.receive().await.is_some());
        assert!(manager.begin(&session, ID).is_some());
        assert!(manager.unanswered.lock().is_empty());
    }
}
