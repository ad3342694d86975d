//! The health services, each billed to the account. They run inside their caller: dropping it cancels the request, so
//! that no unread response is paid for.

use super::{Account, Error, RequiredCredential};
use crate::bondmcp::{Sent, wire::health::Service};

impl Account {
    pub async fn health_service<S: Service>(&self, wanted: &S, sent: &Sent) -> Result<S::Answer, Error> {
        self.call(RequiredCredential::Api, |client, bearer| async move {
            client.health_service(&bearer, wanted, sent).await
        })
        .await
    }
}
