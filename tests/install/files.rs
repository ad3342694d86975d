//! What becomes of the files besides the entry: other changes, links, modes, owners.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use super::*;

const ZED: &str = "{\n  // mine\n  \"theme\": \"dark\",\n}\n";

#[test]
fn entries_of_profiles_stand_side_by_side_and_the_last_one_restores_the_file() {
    for host in names() {
        for order in [["default", "work"], ["work", "default"]] {
            let home = Home::new();
            for profile in ["default", "work"] {
                let ran = home.run(&["install", host, "--yes", "--profile", profile]);
                assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
            }
            let text = home.files().remove(&home.file(host)).unwrap();
            assert!(text.contains("bondmcp-work") && text.contains("--profile"), "{host}: {text}");
            for profile in order {
                assert!(home.file(host).exists(), "{host}");
                let ran = home.run(&["uninstall", host, "--yes", "--profile", profile]);
                assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
            }
            assert!(home.files().is_empty(), "{host}: {:?}", home.files());
        }
    }
}

#[test]
fn uninstall_keeps_what_was_changed_since() {
    let home = Home::new();
    let file = home.write("zed", ZED);
    assert_eq!(home.run(&["install", "zed", "--yes"]).code, Some(0));
    let edited = fs::read_to_string(&file).unwrap().replace("dark", "light");
    fs::write(&file, edited).unwrap();
    assert_eq!(home.run(&["uninstall", "zed", "--yes"]).code, Some(0));
    let text = "{\n  // mine\n  \"theme\": \"light\",\n  \"context_servers\": {},\n}\n";
    // The copy would otherwise outlive secrets that are removed from the file.
    assert_eq!(home.files(), BTreeMap::from([(file, text.to_owned())]));
}

#[test]
fn a_changed_entry_is_replaced_and_keeps_what_a_person_added() {
    let home = Home::new();
    let text = "{\n  \"mcpServers\": {\n    \"bondmcp\": {\n      // off for now\n      \"disabled\": true,\n      \"command\": \"old-server\",\n      \"args\": [\"--token\", \"s3cret-of-another-server\"],\n      \"env\": {\"A\": \"s3cret-of-another-server\"}\n    }\n  }\n}\n";
    let file = home.write("cursor", text);
    let ran = home.run(&["install", "cursor", "--yes"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("-      \"command\": \"old-server\"") && !ran.out.contains(SECRET),
        "{}",
        ran.out
    );
    let written = home.files().remove(&file).unwrap();
    let kept = "      // off for now\n      \"disabled\": true,\n";
    let env = "      \"env\": {\"A\": \"s3cret-of-another-server\"}";
    assert!(written.contains(kept) && written.contains(env) && written.contains(PROGRAM), "{written}");
    let backup = file.with_extension("json.bondmcp-backup");
    assert_eq!(home.files()[&backup], text);
}

#[test]
fn the_only_copy_of_a_persons_own_entry_outlives_further_installs_and_uninstall() {
    let home = Home::new();
    let text =
        "{\n  \"mcpServers\": {\"bondmcp\": {\"command\": \"my-own\", \"args\": [\"--by-hand\"]}}\n}\n";
    let file = home.write("cursor", text);
    let backup = file.with_extension("json.bondmcp-backup");
    for arguments in [
        &["install", "cursor", "--yes"][..],
        &["install", "cursor", "--yes", "--read-only"],
        &["uninstall", "cursor", "--yes"],
        // Now the file has no entry.
        &["install", "cursor", "--yes"],
        &["uninstall", "cursor", "--yes"],
    ] {
        let ran = home.run(arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(home.files().get(&backup).map(String::as_str), Some(text), "{arguments:?}");
        if arguments[0] == "uninstall" {
            assert!(ran.out.contains(backup.to_str().unwrap()), "{}", ran.out);
        }
    }
    assert!(!home.files()[&file].contains("bondmcp"));
}

/// Hosts and people write files as this program does.
#[test]
fn a_persons_own_entry_is_copied_though_the_file_looks_as_if_it_were_installed() {
    for host in names() {
        for own in ["/opt/my-own-server", "http://127.0.0.1:9/own"] {
            let home = Home::new();
            let url = own.starts_with("http");
            let install: &[&str] = if url { &["--http", own, "--no-auth"] } else { &[] };
            if home.run(&[&["install", host, "--yes"], install].concat()).code != Some(0) {
                // Not every host takes servers over HTTP.
                continue;
            }
            let file = home.file(host);
            let text = fs::read_to_string(&file).unwrap().replace(PROGRAM, own);
            fs::write(&file, &text).unwrap();
            let ran = home.run(&["install", host, "--yes"]);
            assert_eq!(ran.code, Some(0), "{host}: {}", ran.err);
            assert_eq!(home.run(&["uninstall", host, "--yes"]).code, Some(0));
            assert!(home.files().values().any(|kept| *kept == text), "{host}: {:?}", home.files());
        }
    }
}

#[test]
fn an_installed_entry_that_is_replaced_leaves_no_copy_behind() {
    for host in names() {
        let home = Home::new();
        for arguments in [&["install", host, "--yes"][..], &["install", host, "--yes", "--read-only"]] {
            assert_eq!(home.run(arguments).code, Some(0), "{host}");
        }
        assert_eq!(home.run(&["uninstall", host, "--yes"]).code, Some(0), "{host}");
        assert!(home.files().is_empty(), "{host}: {:?}", home.files());
    }
}

#[test]
fn a_link_is_followed_and_the_mode_is_kept() {
    let home = Home::new();
    let dotfiles = home.path().join("dotfiles");
    fs::create_dir(&dotfiles).unwrap();
    let target = dotfiles.join("zed.json");
    fs::write(&target, ZED).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    let link = home.file("zed");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(&target, &link).unwrap();
    assert_eq!(home.run(&["install", "zed", "--yes"]).code, Some(0));
    assert!(link.is_symlink() && fs::read_to_string(&target).unwrap().contains("bondmcp"));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&target), mode(&dotfiles.join("zed.json.bondmcp-backup"))), (0o640, 0o600));
    assert_eq!(home.run(&["uninstall", "zed", "--yes"]).code, Some(0));
    assert_eq!((fs::read_to_string(&target).unwrap().as_str(), mode(&target)), (ZED, 0o640));
}

#[test]
fn a_link_to_nothing_is_refused() {
    let home = Home::new();
    let link = home.file("cursor");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(home.path().join("nowhere"), &link).unwrap();
    let ran = home.run(&["install", "cursor", "--yes"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("mcp.json") && link.is_symlink(), "{}", ran.err);
}

#[test]
fn a_place_that_everybody_can_change_is_refused() {
    let home = Home::new();
    let file = home.write("zed", ZED);
    for path in [file.as_path(), file.parent().unwrap()] {
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(mode.mode() | 0o002)).unwrap();
        let ran = home.run(&["install", "zed", "--yes"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(&format!("chmod o-w {}", path.display())), "{}", ran.err);
        fs::set_permissions(path, mode).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), ZED);
    assert_eq!(home.run(&["install", "zed", "--yes"]).code, Some(0));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let home = Home::new();
    let mut command = home.command(&["install", "codex", "--yes"]);
    if rustix::process::geteuid().is_root() {
        let file = home.write("codex", "");
        chown(file, Some(1), None).unwrap();
    } else {
        command.env("CODEX_HOME", "/");
    }
    let ran = run(&mut command);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("belongs to the user with the id"), "{}", ran.err);
}

#[test]
fn a_file_that_is_no_text_is_left_alone() {
    let home = Home::new();
    let file = home.write("claude-desktop", "");
    fs::write(&file, b"{\n\"a\": \"\xff\"}").unwrap();
    let ran = home.run(&["install", "claude-desktop", "--yes"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("config.json:2: "), "{}", ran.err);
    assert_eq!(fs::read(&file).unwrap(), b"{\n\"a\": \"\xff\"}");
}
