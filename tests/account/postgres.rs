//! The private cluster of the tests.

use crate::common::postgres::{self, Stop};

#[test]
fn databases_are_empty_and_apart() {
    let (Some(one), Some(other)) = (postgres::database(), postgres::database()) else { return };
    one.psql("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL)");
    assert_eq!(one.psql("SELECT * FROM t ORDER BY a"), ["1|x", "2|"]);
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!((one.psql(tables), other.psql(tables)), (vec!["1".to_owned()], vec!["0".to_owned()]));
}

#[tokio::test]
async fn a_cluster_of_ones_own_restarts_and_keeps_what_was_committed() {
    let Some(cluster) = postgres::cluster() else { return };
    let database = cluster.database();
    database.psql("CREATE TABLE t (a int)");
    for how in [Stop::Fast, Stop::Immediate] {
        database.psql("INSERT INTO t VALUES (1)");
        cluster.psql("CHECKPOINT");
        cluster.restart(how);
    }
    assert_eq!(database.psql("SELECT count(*) FROM t"), ["2"]);
}

#[test]
fn a_cluster_ends_with_its_value() {
    let Some(cluster) = postgres::cluster() else { return };
    let directory = cluster.directory().to_owned();
    let data = directory.join("data/postmaster.pid");
    assert!(data.exists());
    drop(cluster);
    assert!(!data.exists());
}
