//! Help, completions and man pages come from one definition.

use crate::common::{Place, like_the_seed, sandbox};

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_printed_for_each_shell() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, err) = place.run(&["completions", shell]).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{shell}");
        for word in ["bondmcp-server", "login", "env-file"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(place.run(&["completions", "nosuchshell"]).await.0, Some(2));
    assert!(!place.data_dir().exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_with_the_script() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let (_, script, _) = place.run(&["completions", "bash"]).await;
    let ask = "COMP_WORDS=(bondmcp-server keys ro); COMP_CWORD=2; _bondmcp__server bondmcp-server ro keys; echo \"${COMPREPLY[@]}\"";
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-c").arg(format!("{script}\n{ask}"));
    let (code, told, err) = crate::common::run(&mut bash, "").await;
    assert_eq!((code, told.as_str()), (Some(0), "rotate\n"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn man_pages_are_written_for_each_command() {
    let sandbox = sandbox(like_the_seed()).await;
    let place = Place::new(&sandbox);
    let directory = place.directory.path().join("man/man1");
    let (code, _, err) = place.run(&["man", directory.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{err}");
    for page in ["audit", "login", "keys", "keys-run", "clients-add", "grants-revoke", "auth-trace"] {
        let page = format!("bondmcp-server-{page}");
        let text = std::fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains("Examples"), "{page}");
    }
    let (_, help, _) = place.run(&["--help"]).await;
    assert!(help.contains("completions") && !help.contains("  man "), "{help}");
}
