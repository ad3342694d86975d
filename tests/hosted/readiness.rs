//! `/readyz` says whether a load balancer should send requests here, `/healthz` that the process runs.

use crate::common::hosted_server::HostedServer;
use bondmcp_server::vault::RecordKind;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn without_its_signing_key_a_server_is_alive_but_not_ready() {
    let server = HostedServer::start().await;
    let (records, kind) = (server.server.records(), RecordKind::new("signing-keys"));
    let found = records.read::<Value>(kind.clone(), "").await.unwrap().unwrap();
    records.delete(kind, "", found.version).await.unwrap();
    assert_eq!(server.get("/readyz").await.status(), 503);
    assert_eq!(server.get("/healthz").await.status(), 200);
    // One that starts makes a key, and finds itself ready.
    assert_eq!(server.replica().await.get("/readyz").await.status(), 200);
}
