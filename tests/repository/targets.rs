//! `cargo test` runs its programs in the order of their names and the documentation's tests after them. What did not run
//! is said by `zz_not_run`, on the last lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn what_did_not_run_is_said_last() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("tests")).unwrap().map(|entry| entry.unwrap().path());
    let is_program = |path: &PathBuf| {
        path.join("main.rs").exists() || path.extension().is_some_and(|ending| ending == "rs")
    };
    let last = entries.filter(is_program).max().unwrap();
    assert_eq!(last.file_stem().unwrap(), "zz_not_run");
    assert!(fs::read_to_string(root.join("Cargo.toml")).unwrap().contains("doctest = false"));
}
