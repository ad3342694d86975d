//! Changes of the key that were not completed, keys that are missing, and exported vaults.

use bondmcp_server::secret;
use sqlx::{Connection as _, SqliteConnection};

use super::{Installation, common, secrets};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_key_that_was_not_completed() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let key = installation.data("sealing.key");
    let old = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, format!("{},{old}", secrets::text(&secret::random()))).unwrap();
    let check = installation.examine().await.warned("records", "2 keys are known");
    installation.paste(&check.run, "").await;
    installation.assert_fixed("records").await;
    installation.assert_fixed("credential").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_which_the_key_is_not_known() {
    let (_sandbox, installation) = Installation::signed_in().await;
    installation.assert_fixed("records").await;
    let url = format!("sqlite://{}", installation.data("vault.db").display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    let foreign = "DROP TRIGGER records_insert_current_key;
        INSERT INTO records (id, kind, version, sealed)
        SELECT x'11', kind, version, CAST(x'020123456789abcdef' || substr(sealed, 10) AS BLOB) FROM records;
        UPDATE records SET id = zeroblob(32) WHERE id = x'11';";
    sqlx::raw_sql(foreign).execute(&mut database).await.unwrap();
    let check = installation.examine().await.failed("records", "1 of 2 records");
    assert!(check.advice.contains("Give that key too"), "{check:?}");
    sqlx::query("DELETE FROM records WHERE id = zeroblob(32)").execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    installation.assert_fixed("records").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_vault_in_the_data_directory() {
    let (_sandbox, installation) = Installation::signed_in().await;
    let file = installation.data("export");
    let mut export = installation.command(&["vault", "export", file.to_str().unwrap(), "--passphrase-stdin"]);
    assert_eq!(common::run(&mut export, "correct horse battery staple\n").await.0, Some(0));
    let check = installation.examine().await.warned("export", "~/data/export is an exported vault");
    installation.paste(&check.run, "").await;
    assert!(!file.exists());
}
