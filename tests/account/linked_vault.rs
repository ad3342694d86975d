//! A vault that is a symbolic link, or lies in a directory that is one: what the link leads to is the vault.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    time::Instant,
};

use crate::common::{Place, SAFETY_NET, accounts, like_the_seed, run, sandbox, secrets::text};
use bondmcp_server::{account::Error, sandbox::RunningSandbox};

/// A signed-in place whose vault was moved to a volume, with a link to it.
struct Linked {
    sandbox: RunningSandbox,
    place: Place,
    link: PathBuf,
    volume: PathBuf,
}

impl Linked {
    async fn file() -> Self {
        Self::new("data/vault.db", "volume/moved.db").await
    }

    async fn directory() -> Self {
        Self::new("data", "volume/moved").await
    }

    async fn new(link: &str, target: &str) -> Self {
        let sandbox = sandbox(like_the_seed()).await;
        let place = Place::new(&sandbox);
        place.sign_in().await;
        let (root, volume) = (place.directory.path(), place.directory.path().join("volume"));
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, Permissions::from_mode(0o700)).unwrap();
        fs::rename(root.join(link), root.join(target)).unwrap();
        symlink(root.join(target), root.join(link)).unwrap();
        Self { sandbox, link: root.join(link), volume, place }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_is_noticed_where_the_vault_or_its_directory_is_a_link() {
    for linked in [Linked::file().await, Linked::directory().await] {
        let [one, two] = [accounts(&linked.place).0, accounts(&linked.place).0];
        let account = one.local();
        for _ in 0..2 {
            account.list_models(true).await.unwrap();
        }
        two.local().sign_out(false).await.unwrap();
        let asked = linked.sandbox.count("GET /health-ai/models");
        account.refresh_if_changed(Instant::now(), SAFETY_NET).await.unwrap();
        assert!(matches!(account.list_models(true).await, Err(Error::SignInRequired { .. })));
        // Not by an answer to the old token.
        assert_eq!(linked.sandbox.count("GET /health-ai/models"), asked);
        one.close().await;
        two.close().await;
        assert!(linked.link.is_symlink());
    }
}

/// Its volume is not mounted, say.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_is_refused_and_nothing_takes_its_place() {
    for linked in [Linked::file().await, Linked::directory().await] {
        let Linked { place, link, volume, .. } = &linked;
        let (aside, key) = (volume.with_file_name("aside"), place.data_dir().join("sealing.key"));
        fs::write(&key, text(&place.sealing_key)).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        fs::rename(volume, &aside).unwrap();
        let login = place.run_with_password("login").await;
        let others = [place.run(&["status"]).await, place.run(&["vault", "rekey", "--yes"]).await];
        for (code, _, told) in others.into_iter().chain([login]) {
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains("symbolic link") && told.contains("Mount the volume"), "{told}");
        }
        let mut doctor = place.command(&["doctor"]);
        doctor.env_remove("BONDMCP_SEALING_KEY").env("HOME", place.directory.path());
        let (code, found, _) = run(&mut doctor, "").await;
        assert_eq!(code, Some(1), "{found}");
        assert!(found.contains("symbolic link") && found.contains("Mount the volume"), "{found}");
        assert!(!found.contains("is gone") && !found.contains("creates it"), "{found}");
        assert!(link.is_symlink() && !volume.exists());
        fs::rename(&aside, volume).unwrap();
        let (code, _, told) = place.run(&["keys", "list"]).await;
        assert_eq!(code, Some(0), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_and_the_permissions_are_those_of_the_directory_that_a_link_leads_to() {
    let Linked { place, volume, sandbox: _sandbox, .. } = Linked::file().await;
    assert_eq!(place.run(&["keys", "list"]).await.0, Some(0));
    assert!(volume.join("moved.lock").exists());
    fs::set_permissions(&volume, Permissions::from_mode(0o750)).unwrap();
    let (code, _, told) = place.run(&["keys", "list"]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("chmod 700") && told.contains("volume"), "{told}");
}
