//! The vault in PostgreSQL: lost connections, restarts, what is heard of changes, and what its errors say.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::common::{
    fast_time::fast,
    postgres::{self, Database, Stop},
    vault, within,
};
use bondmcp_server::{
    config::VaultLocation,
    error::UserFacingError,
    vault::{ChangeMarker, Error, ExportFile, RecordId, RecordKind, ServerError, Vault},
};
use futures_util::future::join_all;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

const LONG: Duration = Duration::from_hours(1);

async fn open(url: &str) -> Result<Vault, Error> {
    let location = VaultLocation::Postgres(url.parse().unwrap());
    vault(&location, &[1]).await
}

fn id(owner: &str) -> RecordId {
    RecordId { kind: RecordKind::ACCOUNT, owner: owner.to_owned(), origin: "u".to_owned() }
}

/// Listens in front of a server; returns its address and the URL that leads to the listener instead.
async fn in_front_of(url: &str) -> (TcpListener, SocketAddr, String) {
    let mut url = url::Url::parse(url).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    (listener, server, url.into())
}

/// Waits until changes are heard of; returns the marker then.
async fn heard(vault: &Vault, id: &RecordId) -> ChangeMarker {
    within(async {
        loop {
            if let Some(marker) = vault.change_marker(id) {
                return marker;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Waits until the marker is another one than `before`, and known.
async fn changed(vault: &Vault, id: &RecordId, before: &ChangeMarker) {
    within(async {
        while vault.change_marker(id).is_none_or(|now| now == *before) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_hears_of_the_changes_of_others_and_a_read_is_none() {
    let Some(database) = postgres::database() else { return };
    let (vault, other) = (open(&database.url).await.unwrap(), open(&database.url).await.unwrap());
    let mut version = None;
    let mut marker = heard(&vault, &id("a")).await;
    for _ in 0..3 {
        version = Some(other.write(&id("a"), version, b"x", None).await.unwrap());
        changed(&vault, &id("a"), &marker).await;
        marker = heard(&vault, &id("a")).await;
        vault.read(&id("a")).await.unwrap().unwrap();
        other.acquire_lease(&id("a"), "holder", LONG).await.unwrap();
        assert_eq!(vault.change_marker(&id("a")).unwrap(), marker);
    }
    other.delete(&id("a"), 3).await.unwrap();
    changed(&vault, &id("a"), &marker).await;
    vault.close().await;
    assert_eq!(vault.change_marker(&id("a")), None);
}

#[tokio::test]
async fn those_who_wait_are_told_and_ask_nothing_meanwhile() {
    let Some(database) = postgres::database() else { return };
    let (vault, other) = (open(&database.url).await.unwrap(), open(&database.url).await.unwrap());
    let asked = || {
        let last = "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity \
                    WHERE datname = current_database() AND query LIKE 'WITH clock%'";
        database.psql(last)
    };
    other.acquire_lease(&id("a"), "holder", LONG).await.unwrap();
    heard(&vault, &id("a")).await;
    fast(async {
        let waiter = vault.clone();
        let waiting = tokio::spawn(async move { waiter.lease_wait(&id("a"), 0, LONG).await });
        // It looks once, in several steps, and then never: the clock that runs fast has gone on for some seconds.
        within(async {
            let mut last = asked();
            loop {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let now = asked();
                if now == last && now != [""] {
                    return;
                }
                last = now;
            }
        })
        .await;
        other.release_lease(&id("a"), "holder").await.unwrap();
        within(waiting).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_fail_no_call_and_all_may_have_changed_meanwhile() {
    let Some(database) = postgres::database() else { return };
    let vault = open(&database.url).await.unwrap();
    let mut version = None;
    for _ in 0..3 {
        let marker = heard(&vault, &id("a")).await;
        database.disconnect();
        version = Some(vault.write(&id("a"), version, b"x", None).await.unwrap());
        changed(&vault, &id("a"), &marker).await;
        changed(&vault, &id("unchanged"), &marker).await;
        database.disconnect();
        assert!(vault.acquire_lease(&id("a"), "holder", LONG).await.unwrap());
        database.disconnect();
        assert_eq!(vault.read(&id("a")).await.unwrap().unwrap().version, version.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_lose_nothing_while_their_connections_are_lost() {
    let Some(database) = postgres::database() else { return };
    open(&database.url).await.unwrap().close().await;
    // Connections are lost once each writer has been answered since the last time, so that no statement loses more of
    // them than it is run again, however slow the machine is.
    let answers = watch::Sender::new([0_u32; 4]);
    let vaults = join_all((0..4).map(|_| open(&database.url))).await;
    let writers = vaults.into_iter().enumerate().map(|(writer, vault)| {
        let (vault, answers) = (vault.unwrap(), answers.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while written < 50 {
                let record = vault.read(&id("a")).await.unwrap();
                let count = record.as_ref().map_or(0, |record| record.plaintext[0]);
                let version = record.map(|record| record.version);
                match vault.write(&id("a"), version, &[count + 1], None).await {
                    Ok(_) => written += 1,
                    Err(error) => assert_eq!(error, Error::Conflict),
                }
                answers.send_modify(|answers| answers[writer] += 1);
            }
            answers.send_modify(|answers| answers[writer] = u32::MAX);
        })
    });
    let mut writers = join_all(writers);
    let mut answered = answers.subscribe();
    let ended = loop {
        let before = *answered.borrow();
        let each_was = |now: &[u32; 4]| {
            now.iter().zip(before).all(|(now, before)| *now == u32::MAX || *now > before + 1)
        };
        tokio::select! {
            ended = &mut writers => break ended,
            _ = answered.wait_for(each_was) => database.disconnect(),
        }
    };
    for writer in ended {
        writer.unwrap();
    }
    // A write that was made twice, or was thought to have failed, would have changed one of the two.
    let record = open(&database.url).await.unwrap().read(&id("a")).await.unwrap().unwrap();
    assert_eq!((record.plaintext[0], record.version), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_waited_for_and_those_who_wait_for_a_lease_go_on_waiting() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    let vault = open(&database.url).await.unwrap();
    let mut version = vault.write(&id("a"), None, b"x", None).await.unwrap();
    for how in [Stop::Fast, Stop::Immediate] {
        vault.acquire_lease(&id("a"), "holder", LONG).await.unwrap();
        let marker = heard(&vault, &id("a")).await;
        let (waiter, seen) = (open(&database.url).await.unwrap(), version);
        let waiting = tokio::spawn(async move { waiter.lease_wait(&id("a"), seen, LONG).await });
        cluster.restart(how);
        assert_eq!(vault.read(&id("a")).await.unwrap().unwrap().version, version);
        changed(&vault, &id("a"), &marker).await;
        assert!(!waiting.is_finished());
        version = vault.write(&id("a"), Some(version), b"x", None).await.unwrap();
        within(waiting).await.unwrap().unwrap();
        vault.release_lease(&id("a"), "holder").await.unwrap();
    }

    cluster.stop(Stop::Fast);
    within(async {
        while vault.change_marker(&id("a")).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let reading = tokio::spawn(async move { vault.read(&id("a")).await });
    // The server starts on this thread, while the call waits on another.
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.start_again();
    let read = reading.await.unwrap();
    assert_eq!(read.unwrap().unwrap().version, version, "a call that comes during the restart waits for it");
}

/// A network between a vault and its server that can lose the answer to a commit.
struct ForgetfulNetwork {
    url: String,
    loses_next: Arc<AtomicBool>,
}

impl ForgetfulNetwork {
    async fn before(url: &str) -> Self {
        let (listener, server, url) = in_front_of(url).await;
        let loses_next = Arc::new(AtomicBool::new(false));
        let loses = loses_next.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(carry(client, server, loses.clone()));
            }
        });
        Self { url, loses_next }
    }
}

/// Carries what both say, up to the answer to a commit if that is to be lost.
async fn carry(mut client: TcpStream, mut server: TcpStream, loses_next: Arc<AtomicBool>) -> io::Result<()> {
    let (mut asked, mut answered) = ([0; 8192], [0; 8192]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let asked = &asked[..read?];
                let commits = asked.windows(6).any(|word| word == b"COMMIT");
                is_lost |= commits && loses_next.swap(false, Ordering::SeqCst);
                server.write_all(asked).await?;
                if asked.is_empty() {
                    return Ok(());
                }
            }
            read = server.read(&mut answered) => {
                let answered = &answered[..read?];
                if is_lost || answered.is_empty() {
                    return Ok(());
                }
                client.write_all(answered).await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_commit_was_answered_in_vain_is_not_taken_for_none() {
    let Some(database) = postgres::database() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (file, passphrase) = (directory.path().join("export"), "right".into());
    let from = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
    let from = vault(&from, &[2]).await.unwrap();
    for owner in ["a", "b", "c"] {
        from.write(&id(owner), None, owner.as_bytes(), None).await.unwrap();
    }
    from.export(&file, &passphrase, &[]).await.unwrap();

    let network = ForgetfulNetwork::before(&database.url).await;
    let to = open(&network.url).await.unwrap();
    network.loses_next.store(true, Ordering::SeqCst);
    assert_eq!(to.import(ExportFile::open(&file, &passphrase).unwrap()).await.unwrap(), 3);
    assert!(!network.loses_next.load(Ordering::SeqCst));
    for owner in ["a", "b", "c"] {
        assert_eq!(&to.read(&id(owner)).await.unwrap().unwrap().plaintext[..], owner.as_bytes());
    }
}

/// A network between a vault and its server that can lose all connections without a word.
struct Network {
    url: String,
    silenced: watch::Sender<()>,
}

impl Network {
    async fn before(url: &str) -> Self {
        let (listener, server, url) = in_front_of(url).await;
        let silenced = watch::Sender::new(());
        let connections = silenced.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut silenced = connections.subscribe();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        // Open, and silent from now on.
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { url, silenced }
    }

    /// Nothing comes through the connections of now any more. New ones work.
    fn silence(&self) {
        self.silenced.send_replace(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_connections_hang_take_none_from_later_calls() {
    let Some(database) = postgres::database() else { return };
    let network = Network::before(&database.url).await;
    let vault = open(&network.url).await.unwrap();
    vault.write(&id("a"), None, b"x", None).await.unwrap();
    let mut lock = PgConnection::connect(&database.url).await.unwrap();
    let locked = locked(&mut lock).await;
    let reads = reads_that_wait(&vault, &database).await;
    network.silence();
    give_up(reads).await;
    locked.rollback().await.unwrap();
    assert_eq!(vault.read(&id("a")).await.unwrap().unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_ask_the_server_no_more_at_once_than_others() {
    let Some(database) = postgres::database() else { return };
    let vault = open(&database.url).await.unwrap();
    vault.write(&id("a"), None, b"x", None).await.unwrap();
    let mut lock = PgConnection::connect(&database.url).await.unwrap();
    let locked = locked(&mut lock).await;
    for _ in 0..3 {
        give_up(reads_that_wait(&vault, &database).await).await;
    }
    locked.rollback().await.unwrap();
    assert_eq!(vault.read(&id("a")).await.unwrap().unwrap().version, 1);
}

/// One that waits for its answer is told in the end, and changes are heard of again.
#[tokio::test]
async fn a_connection_that_hangs_is_given_up() {
    let Some(database) = postgres::database() else { return };
    let network = Network::before(&database.url).await;
    let vault = open(&network.url).await.unwrap();
    vault.write(&id("a"), None, b"x", None).await.unwrap();
    let marker = heard(&vault, &id("a")).await;
    let mut lock = PgConnection::connect(&database.url).await.unwrap();
    let locked = locked(&mut lock).await;
    let reads = reads_that_wait(&vault, &database).await;
    network.silence();
    locked.rollback().await.unwrap();
    fast(async {
        let given_up = join_all(reads).await.into_iter().map(Result::unwrap).filter(|read| {
            assert!(matches!(read, Ok(()) | Err(Error::Server(ServerError::Silent))), "{read:?}");
            read.is_err()
        });
        assert!(given_up.count() >= 5);
        changed(&vault, &id("a"), &marker).await;
    })
    .await;
    assert_eq!(vault.read(&id("a")).await.unwrap().unwrap().version, 1);
}

/// Keeps everybody else from the records.
async fn locked(connection: &mut PgConnection) -> Transaction<'_, Postgres> {
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("LOCK TABLE records").execute(&mut *transaction).await.unwrap();
    transaction
}

/// Returns reads of which as many wait for the lock as there are connections.
async fn reads_that_wait(vault: &Vault, database: &Database) -> Vec<JoinHandle<Result<(), Error>>> {
    const CONNECTIONS: usize = 5;
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let reads = (0..50).map(|_| {
        let vault = vault.clone();
        tokio::spawn(async move { vault.read(&id("a")).await.map(drop) })
    });
    let reads = reads.collect();
    within(async {
        loop {
            let waiting: usize = database.psql(waiting)[0].parse().unwrap();
            assert!(waiting <= CONNECTIONS, "{waiting}");
            if waiting == CONNECTIONS {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    reads
}

async fn give_up<T>(reads: Vec<JoinHandle<T>>) {
    for read in reads {
        read.abort();
        let _ = read.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_used_is_told_of_without_its_url_and_its_words() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    let parsed = url::Url::parse(&database.url).unwrap();
    let password = parsed.password().unwrap().to_owned();
    let with = |change: &dyn Fn(&mut url::Url)| {
        let mut url = parsed.clone();
        change(&mut url);
        String::from(url)
    };
    let vault = open(&database.url).await.unwrap();
    cluster.psql("CREATE ROLE other LOGIN PASSWORD 'canary-other'");
    cluster.psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let mut urls = vec![
        with(&|url| url.set_password(Some("canary-wrong")).unwrap()),
        with(&|url| url.set_username("canary-nobody").unwrap()),
        with(&|url| url.set_path("canary_missing")),
        with(&|url| url.set_query(Some("sslmode=verify-full"))),
        with(&|url| url.set_query(Some("sslmode=require"))),
    ];
    let mut messages = Vec::new();
    for url in urls.drain(..) {
        messages.push((open(&url).await.unwrap_err(), url));
    }
    cluster.stop(Stop::Fast);
    messages.push((open(&database.url).await.unwrap_err(), database.url.clone()));
    messages.push((vault.read(&id("a")).await.unwrap_err(), database.url.clone()));
    for (error, url) in &messages {
        assert!(matches!(error, Error::Server(_)), "{url}: {error}");
        let told = UserFacingError::from(error);
        let text = format!("{error} {error:?} {} {}", told.message, told.solution);
        for private in ["canary", "bondmcp_test", "postgres://", "FATAL", &password] {
            assert!(!text.contains(private), "{text}");
        }
    }
    let distinct: std::collections::HashSet<_> =
        messages.iter().map(|(error, _)| error.to_string()).collect();
    assert!(distinct.len() >= 4, "each says what to look at: {distinct:?}");
}
