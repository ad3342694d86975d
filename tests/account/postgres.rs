//! The private cluster of the tests.

use std::{path::PathBuf, process::Command};

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

#[test]
fn without_postgresql_its_tests_pass_and_are_listed_and_in_ci_they_fail() {
    let test = "postgres::databases_are_empty_and_apart";
    let this = std::env::current_exe().unwrap();
    let run = |ci: Option<&str>| {
        let mut command = Command::new(&this);
        command.args(["--exact", test]).env(postgres::SERVER, postgres::NONE).env_remove("CI");
        command.envs(ci.map(|ci| ("CI", ci))).output().unwrap().status.success()
    };
    assert!(!run(Some("true")));
    assert!(run(None));
    // `cargo test` runs it last. It is not there where only this program was built; in CI all are.
    let programs = std::fs::read_dir(this.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let lists = programs.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("zz_not_run-") && path.extension().is_none()
    });
    let newest = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    let Some(list) = lists.max_by_key(newest) else {
        return assert!(std::env::var_os("CI").is_none(), "tests/zz_not_run.rs was not built");
    };
    let told = String::from_utf8(Command::new(list).output().unwrap().stdout).unwrap();
    assert!(told.contains(test) && told.trim_end().ends_with("see CONTRIBUTING.md."), "{told}");
}
