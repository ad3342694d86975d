//! A vault in PostgreSQL that cannot be used.

use sqlx::{Connection as _, PgConnection};

use super::{Installation, common::postgres};

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_in_postgresql() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    let (_sandbox, mut installation) = Installation::signed_out().await;
    installation.set("BONDMCP_VAULT", &database.url);
    let password = url::Url::parse(&database.url).unwrap().password().unwrap().to_owned();

    installation.unset("BONDMCP_SEALING_KEY");
    let report = installation.examine().await;
    assert!(report.failed("sealing key", "all its processes").advice.contains("openssl rand"));
    installation.variables.remove("BONDMCP_SEALING_KEY");

    let report = installation.examine().await;
    assert!(report.check("database").detail.contains("has no vault yet"), "{:?}", report.check("database"));
    assert_eq!(report.check("vault").status, "skip");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(database.psql(tables), ["0"], "nothing is created");

    installation.sign_in().await;
    for check in ["sealing key", "database", "vault", "credential"] {
        installation.assert_fixed(check).await;
    }
    let shown = installation.examine().await.check("vault").detail.clone();
    assert!(shown.starts_with("postgres://127.0.0.1:") && !shown.contains(&password), "{shown}");

    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'newer', true, '', 0)";
    sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    let report = installation.examine().await;
    assert!(report.failed("vault", "newer version").advice.contains("Upgrade"));

    drop(connection);
    cluster.stop(postgres::Stop::Fast);
    let report = installation.examine().await;
    assert!(report.failed("database", "PostgreSQL server").advice.contains("BONDMCP_VAULT"));
    assert_eq!(report.check("vault").status, "skip");
}
