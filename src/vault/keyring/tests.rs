use super::*;
use crate::vault::{Progress, Rekey, Vault, keychain::Headless};
use std::{collections::HashMap, sync::mpsc};

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct MemoryKeychain(Mutex<HashMap<String, String>>);

impl Keychain for MemoryKeychain {
    fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
        let entries = self.0.lock();
        Ok(entries.get(account).map(|text| text.as_str().into()))
    }

    fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain> {
        let mut entries = self.0.lock();
        entries.insert(account.to_owned(), text.to_owned());
        Ok(())
    }
}

async fn find_or_make(data_dir: &Path, keychain: Arc<dyn Keychain>) -> Result<Found, Error> {
    let data_dir = data_dir.join("data");
    let vault = data_dir.join("vault.db");
    Place::new(data_dir, keychain).run(move |place| place.find_or_make(&vault)).await
}

fn bytes(keys: &[Arc<SealingKey>]) -> Vec<[u8; 32]> {
    keys.iter().map(|key| *key.expose()).collect()
}

#[test]
fn several_keys_are_separated_by_commas_or_white_space() {
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    for text in [format!("{one},{two}"), format!("{one}\n{two}\n"), format!(" {one} , {two}\r\n")] {
        let keys = parse(&text.as_str().into(), "here").unwrap();
        assert_eq!(bytes(&keys), [[0x11; 32], [0x22; 32]], "{text:?}");
        assert_eq!(bytes(&parse(&to_text(&keys).as_str().into(), "here").unwrap()), bytes(&keys));
    }
    for text in [String::new(), " ,\n".to_owned(), format!("{one},canary")] {
        assert_eq!(parse(&text.into(), "here").unwrap_err(), Error::KeyFormat("here".into()));
    }
}

#[tokio::test]
async fn the_keychain_keeps_the_key_and_no_file_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let keychain = Arc::new(MemoryKeychain::default());
    let (made, origin) = find_or_make(directory.path(), keychain.clone()).await.unwrap();
    let (found, _) = find_or_make(directory.path(), keychain).await.unwrap();
    assert_eq!(bytes(&made), bytes(&found));
    assert_eq!((origin.warning(), origin), (None, KeyOrigin::Keychain));
    assert!(!directory.path().join("data/sealing.key").exists());
}

#[tokio::test]
async fn without_a_keychain_a_private_file_keeps_the_key_and_says_so_once() {
    let directory = tempfile::tempdir().unwrap();
    let (made, origin) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
    assert!(origin.warning().unwrap().contains("sealing.key"));
    let (found, origin) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
    assert_eq!(bytes(&made), bytes(&found));
    assert_eq!(origin.warning(), None);
    files::refuse_exposed(&directory.path().join("data/sealing.key"), "600").unwrap();
}

#[tokio::test]
async fn a_key_file_beside_a_key_in_the_keychain_is_located_too() {
    let directory = tempfile::tempdir().unwrap();
    let keychain = Arc::new(MemoryKeychain::default());
    let (_, in_keychain) = find_or_make(directory.path(), keychain.clone()).await.unwrap();
    let place = Place::new(directory.path().join("data"), keychain);
    let locate = || place.clone().locate(KEYCHAIN_TIMEOUT);
    let mut located = KeyPlace { keychain: KeychainAnswer::HasKey, origin: Some(in_keychain), hidden: None };
    assert_eq!(locate().await, located);
    files::write_private(&place.key_file(), b"").unwrap();
    located.hidden = Some(place.key_file());
    assert_eq!(locate().await, located);
}

#[tokio::test]
async fn a_key_file_goes_on_being_used_when_a_keychain_appears() {
    let directory = tempfile::tempdir().unwrap();
    let (made, _) = find_or_make(directory.path(), Arc::new(Headless)).await.unwrap();
    let (found, _) = find_or_make(directory.path(), Arc::new(MemoryKeychain::default())).await.unwrap();
    assert_eq!(bytes(&made), bytes(&found));
}

#[tokio::test]
async fn a_vault_whose_key_is_gone_gets_no_new_key() {
    let directory = tempfile::tempdir().unwrap();
    find_or_make(directory.path(), Arc::new(MemoryKeychain::default())).await.unwrap();
    std::fs::write(directory.path().join("data/vault.db"), "sealed").unwrap();
    let lost = find_or_make(directory.path(), Arc::new(Headless)).await;
    assert!(matches!(lost, Err(Error::KeyMissing { .. })));
    assert!(!directory.path().join("data/sealing.key").exists());
}

#[tokio::test]
async fn two_that_start_at_once_agree_on_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = tokio::join!(
        find_or_make(directory.path(), Arc::new(Headless)),
        find_or_make(directory.path(), Arc::new(Headless)),
    );
    assert_eq!(bytes(&one.unwrap().0), bytes(&two.unwrap().0));
}

#[tokio::test]
async fn a_new_key_is_stored_before_the_old_one_and_made_once_until_that_is_deleted() {
    let keychains: [Arc<dyn Keychain>; 2] = [Arc::new(MemoryKeychain::default()), Arc::new(Headless)];
    for keychain in keychains {
        let directory = tempfile::tempdir().unwrap();
        let (old, origin) = find_or_make(directory.path(), keychain.clone()).await.unwrap();
        let old = bytes(&old)[0];
        let place = Place::new(directory.path().join("data"), keychain);
        let renewed = bytes(&place.renew(&origin).unwrap());
        assert_eq!((renewed.len(), renewed[1]), (2, old));
        assert_ne!(renewed[0], old);
        assert_eq!(bytes(&place.renew(&origin).unwrap()), renewed);
        assert_eq!(bytes(&place.find().unwrap().unwrap().0), renewed);

        let old = SealingKey::from_bytes(old).id();
        for _ in 0..2 {
            assert_eq!(bytes(&place.delete(&origin, &[old]).unwrap()), renewed[..1]);
        }
        assert_eq!(bytes(&place.find().unwrap().unwrap().0), renewed[..1]);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn no_key_that_an_interrupted_change_left_outlives_its_deletion() {
    for is_linked in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let [data_dir, volume] = ["data", "volume"].map(|name| directory.path().join(name));
        let location = VaultLocation::Sqlite(data_dir.join("vault.db"));
        let keyring = Keyring::in_key_file(&location).await.unwrap();
        let (key_file, moved) = (data_dir.join("sealing.key"), volume.join("moved.key"));
        let old = std::fs::read_to_string(&key_file).unwrap();
        files::prepare_directory(&volume).unwrap();
        let mut left = vec![data_dir.join("sealing.1a2B3c4D5e6F.new"), data_dir.join("sealing.new")];
        if is_linked {
            std::fs::rename(&key_file, &moved).unwrap();
            std::os::unix::fs::symlink(&moved, &key_file).unwrap();
            left.push(volume.join("moved.1a2B3c4D5e6F.new"));
        }
        for path in &left {
            std::fs::write(path, format!("{},{old}", "ab".repeat(32))).unwrap();
        }

        let mut rekey = Rekey::new(Vault::open(&location, keyring).await.unwrap(), vec![]);
        while rekey.step().await.unwrap() != Progress::Done {}
        assert_eq!(rekey.outcome().known_keys, 1);
        let directories = [data_dir, volume].map(|directory| std::fs::read_dir(directory).unwrap());
        for entry in directories.into_iter().flatten() {
            let path = entry.unwrap().path();
            let content = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!content.contains(&old), "{}", path.display());
        }
    }
}

/// Gives back what was there before.
#[derive(Debug)]
struct Forgetful(MemoryKeychain);

impl Keychain for Forgetful {
    fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
        self.0.get(account)
    }

    fn set(&self, _: &str, _: &str) -> Result<(), NoKeychain> {
        Ok(())
    }
}

#[tokio::test]
async fn a_new_key_that_the_keychain_did_not_store_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let keychain = MemoryKeychain::default();
    let data_dir = directory.path().to_owned();
    let account = Place::of(&data_dir).account();
    keychain.set(&account, &"ab".repeat(32)).unwrap_or_else(|NoKeychain| panic!("it has room"));
    let place = Place::new(data_dir, Arc::new(Forgetful(keychain)));
    assert!(matches!(place.renew(&KeyOrigin::Keychain), Err(Error::Keychain(_))));
}

/// Next time its other text would be taken for the key.
#[tokio::test]
async fn no_first_key_is_used_where_the_keychain_returns_another_text() {
    #[derive(Debug)]
    struct Altering(MemoryKeychain);

    impl Keychain for Altering {
        fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
            self.0.get(account)
        }

        fn set(&self, account: &str, _: &str) -> Result<(), NoKeychain> {
            self.0.set(account, &"ab".repeat(32))
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let keychain = Arc::new(Altering(MemoryKeychain::default()));
    let place = Place::new(directory.path().to_owned(), keychain);
    let refused = place.find_or_make(&directory.path().join("vault.db"));
    assert!(matches!(refused, Err(Error::Keychain(_))));
    assert!(!place.key_file().exists());
}

#[tokio::test]
async fn the_first_key_is_in_a_file_where_the_keychain_does_not_store_it() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    files::prepare_directory(&data_dir).unwrap();
    let keychain = Arc::new(Forgetful(MemoryKeychain::default()));
    let place = Place::new(data_dir.clone(), keychain);
    let (_, origin) = place.find_or_make(&data_dir.join("vault.db")).unwrap();
    assert_eq!(origin, KeyOrigin::NewKeyFile(place.key_file()));
}

/// Someone dismissed the question whether it may be read.
#[tokio::test]
async fn a_key_that_the_keychain_does_not_show_is_not_replaced() {
    #[derive(Debug)]
    struct Secretive(MemoryKeychain);

    impl Keychain for Secretive {
        fn get(&self, _: &str) -> Result<Option<SecretString>, NoKeychain> {
            Err(NoKeychain)
        }

        fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain> {
            self.0.set(account, text)
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    files::prepare_directory(&data_dir).unwrap();
    let keychain = Arc::new(Secretive(MemoryKeychain::default()));
    let place = Place::new(data_dir.clone(), keychain.clone());
    let kept = "ab".repeat(32);
    assert!(keychain.0.set(&place.account(), &kept).is_ok());
    let (_, origin) = place.find_or_make(&data_dir.join("vault.db")).unwrap();
    assert_eq!(origin, KeyOrigin::NewKeyFile(place.key_file()));
    assert!(matches!(place.renew(&KeyOrigin::Keychain), Err(Error::Keychain(_))));
    let entries = keychain.0.0.lock();
    assert_eq!(entries.get(&place.account()), Some(&kept));
}

#[tokio::test(start_paused = true)]
async fn a_keychain_that_answers_too_late_is_given_no_key() {
    /// Answers when it is told to.
    #[derive(Debug)]
    struct Slow(MemoryKeychain, mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);

    impl Keychain for Slow {
        fn get(&self, account: &str) -> Result<Option<SecretString>, NoKeychain> {
            self.1.send(()).unwrap();
            self.2.lock().recv().unwrap();
            self.0.get(account)
        }

        fn set(&self, account: &str, text: &str) -> Result<(), NoKeychain> {
            self.0.set(account, text)
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let ((asked, asks), (answer, answers)) = (mpsc::channel(), mpsc::channel());
    let keychain = Arc::new(Slow(MemoryKeychain::default(), asked, Mutex::new(answers)));
    let asking = tokio::spawn({
        let (path, keychain) = (directory.path().to_owned(), keychain.clone());
        async move { find_or_make(&path, keychain).await }
    });
    tokio::task::yield_now().await;
    asks.recv().unwrap();
    tokio::time::advance(KEYCHAIN_TIMEOUT * 2).await;
    assert!(matches!(asking.await.unwrap(), Err(Error::Keychain(SILENT))));
    answer.send(()).unwrap();
    // Its work ends now.
    let _lock = files::lock(&directory.path().join("data/sealing.lock")).unwrap();
    assert!(keychain.0.0.lock().is_empty());
    assert!(!directory.path().join("data/sealing.key").exists());
}

/// A data directory was deleted and made again, say.
#[tokio::test]
async fn a_key_in_the_keychain_that_is_not_the_vaults_does_not_hide_the_key_file() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let path = data_dir.join("vault.db");
    let location = VaultLocation::Sqlite(path.clone());
    let open = async |keychain: &Arc<dyn Keychain>| {
        let place = Place::new(data_dir.clone(), keychain.clone());
        let (keyring, _) = Keyring::in_place(place, &path).await.unwrap();
        Vault::open(&location, keyring).await.unwrap()
    };
    let headless: Arc<dyn Keychain> = Arc::new(Headless);
    open(&headless).await.close().await;

    let keychain: Arc<dyn Keychain> = Arc::new(MemoryKeychain::default());
    let place = Place::new(data_dir.clone(), keychain.clone());
    let (stale, before) = ("ab".repeat(32), bytes(&place.in_file().unwrap().unwrap()));
    assert!(keychain.set(&place.account(), &stale).is_ok());
    let running = open(&keychain).await;
    let mut rekey = Rekey::new(open(&keychain).await, vec![]);
    while rekey.step().await.unwrap() != Progress::Done {}
    assert_eq!((rekey.outcome().switched, rekey.outcome().known_keys), (true, 1));
    let after = bytes(&place.in_file().unwrap().unwrap());
    assert!(after.len() == 1 && after != before && after != [[0xab; 32]]);
    let kept = keychain.get(&place.account()).ok().flatten();
    assert_eq!(kept.unwrap().expose_secret(), stale);
    running.reload_keys().await.unwrap();
    open(&headless).await.close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_key_file_that_others_can_read_is_refused_with_the_command_that_fixes_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = from_file(&path).unwrap_err();
    let report = crate::error::UserFacingError::from(&error);
    assert!(report.solution.contains("chmod 600"), "{report}");
}
