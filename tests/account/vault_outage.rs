//! A PostgreSQL server that takes connections and says nothing: calls wait for it once, not each in turn.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::common::open;
use bondmcp_server::{
    account::{self, Accounts, Usd},
    bondmcp::Timing,
    clock::Clock,
    config::{Flags, Settings},
    vault,
};
use futures_util::future::join_all;

// The time of Tokio is paused: it goes on when nobody has anything else to do.
#[tokio::test(start_paused = true)]
async fn concurrent_calls_wait_once_for_a_server_that_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accounts = accounts(&format!("postgres://ada:password@{address}/vault"));
    let account = accounts.local();
    let call = || async {
        let came = Instant::now();
        let error = account.list_models(false).await.unwrap_err();
        assert!(matches!(error, account::Error::Vault(vault::Error::Server(_))), "{error}");
        account.refresh_if_changed(came, Duration::MAX).await.unwrap_err();
    };
    join_all((0..8).map(|_| call())).await;
    assert_eq!(connections(&listener), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_looks_at_the_daily_budget_wait_once_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accounts = accounts(&format!("postgres://ada:password@{address}/vault"));
    let account = accounts.local();
    let look = || async {
        let error = account.daily_spending(Some(Usd::cents(50))).await.unwrap_err();
        assert!(matches!(error, account::Error::Vault(vault::Error::Server(_))), "{error}");
    };
    join_all((0..8).map(|_| look())).await;
    assert_eq!(connections(&listener), 1);
}

fn accounts(url: &str) -> Accounts {
    let settings = Settings::load(Flags::default(), None, |name| match name {
        "BONDMCP_DATA_DIR" => Some("/nonexistent".into()),
        "BONDMCP_SEALING_KEY" => Some("ab".repeat(32).into()),
        "BONDMCP_VAULT" => Some(url.into()),
        _ => None,
    });
    open(&settings.unwrap(), Clock::system(), Timing::default()).0
}

/// Counts the connections that were made. They are accepted in their order, up to a last one of our own.
fn connections(listener: &TcpListener) -> usize {
    let last = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let own = last.local_addr().unwrap();
    listener.incoming().take_while(|stream| stream.as_ref().unwrap().peer_addr().unwrap() != own).count()
}
