//! The modules import as the table in `src/lib.rs` says: from lower layers only, and what each module allows.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{read_dir, read_to_string},
    iter::Peekable,
    path::Path,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream::IntoIter};

/// A row of the table.
#[derive(Debug)]
struct Module {
    name: String,
    /// `None` beside the layers.
    layer: Option<u8>,
    /// Who may import it, in the words of the table.
    importers: String,
}

/// The table of `lib.rs`, in its order: within layer 0, from the bottom to the top.
struct Table(Vec<Module>);

/// An import of `path`, which begins below the crate's root, by a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    by: String,
    path: Vec<String>,
}

impl Table {
    fn of(lib: &str) -> Self {
        let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")).filter_map(|row| {
            let [layer, name, _, importers] = row.split(" | ").collect::<Vec<_>>().try_into().ok()?;
            let name = name.strip_prefix("[`")?.strip_suffix("`]")?.to_owned();
            let importers = importers.trim_end_matches(" |").to_owned();
            Some(Module { name, layer: layer.parse().ok(), importers })
        });
        Self(rows.collect())
    }

    fn module(&self, name: &str) -> Option<(usize, &Module)> {
        self.0.iter().enumerate().find(|(_, module)| module.name == name)
    }

    /// What is wrong with an import.
    fn complaint(&self, Import { by, path }: &Import) -> Option<String> {
        let wrong = |why: String| Some(format!("`{by}` imports `{}`: {why}", path.join("::")));
        let (Some((place, importer)), Some((other_place, target))) = (self.module(by), self.module(&path[0]))
        else {
            return wrong("one of them is not in the table".to_owned());
        };
        let points_down = match (importer.layer, target.layer) {
            (Some(0), Some(0)) => other_place < place,
            (Some(layer), Some(other)) => other < layer,
            // The sandbox stands beside the layers: upon the lowest one and the wire types.
            (None, other) => other == Some(0) || path.starts_with(&["bondmcp".into(), "wire".into()]),
            (Some(_), None) => true,
        };
        if !points_down {
            return wrong("it does not point down".to_owned());
        }
        if !target.admits(importer) {
            return wrong(format!("it may be imported by {}", target.importers));
        }
        None
    }
}

impl Module {
    /// Reads words such as "layers 2 to 6, except [`transport`]; [`sandbox`]".
    fn admits(&self, importer: &Self) -> bool {
        let name = format!("[`{}`]", importer.name);
        self.importers == "all"
            || self.importers.split("; ").any(|clause| {
                let (admitted, excepted) = clause.split_once(", except ").unwrap_or((clause, ""));
                let in_layers = admitted.strip_prefix("layers ").is_some_and(|layers| {
                    let (lowest, highest) = layers.split_once(" to ").unwrap();
                    let layers = lowest.parse().unwrap()..=highest.parse().unwrap();
                    importer.layer.is_some_and(|layer: u8| layers.contains(&layer))
                });
                (in_layers || admitted.contains(&name)) && !excepted.contains(&name)
            })
    }
}

/// The top-level modules that `code` imports, each with its path. `inside` is the path of the module whose code it is.
fn imports(code: &str, inside: &[String]) -> BTreeSet<Import> {
    let mut found = BTreeSet::new();
    let code: TokenStream = code.parse().unwrap();
    look_for_imports(code, inside, &mut found);
    found.retain(|import| import.path[0] != import.by);
    found
}

fn look_for_imports(code: TokenStream, inside: &[String], found: &mut BTreeSet<Import>) {
    let mut tokens = code.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(tokens.peek()) => {
                skip_item(&mut tokens);
            }
            TokenTree::Ident(ident) if ident == "mod" => {
                let name = tokens.next().map(|name| name.to_string());
                if let (Some(name), Some(TokenTree::Group(body))) = (name, tokens.peek()) {
                    let inside: Vec<_> = inside.iter().cloned().chain([name]).collect();
                    look_for_imports(body.stream(), &inside, found);
                    tokens.next();
                }
            }
            TokenTree::Ident(ident) if ident == "crate" => follow(&mut tokens, &[], inside, found),
            TokenTree::Ident(ident) if ident == "super" => {
                let parent = &inside[..inside.len().saturating_sub(1)];
                follow(&mut tokens, parent, inside, found);
            }
            TokenTree::Group(group) => look_for_imports(group.stream(), inside, found),
            _ => {}
        }
    }
}

/// Follows a path that has come to the module `at`.
fn follow(tokens: &mut Peekable<IntoIter>, at: &[String], inside: &[String], found: &mut BTreeSet<Import>) {
    if !skip_colons(tokens) {
        return;
    }
    match tokens.peek().cloned() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            tokens.next();
            let mut each = group.stream().into_iter().peekable();
            while each.peek().is_some() {
                follow_name(&mut each, at, inside, found);
                // What is left of this branch, up to the comma.
                while each.next().is_some_and(|token| !is_punct(&token, ',')) {}
            }
        }
        _ => follow_name(tokens, at, inside, found),
    }
}

fn follow_name(
    tokens: &mut Peekable<IntoIter>,
    at: &[String],
    inside: &[String],
    found: &mut BTreeSet<Import>,
) {
    let Some(TokenTree::Ident(name)) = tokens.next_if(|token| matches!(token, TokenTree::Ident(_))) else {
        return;
    };
    if name == "super" {
        return follow(tokens, &at[..at.len().saturating_sub(1)], inside, found);
    }
    if name == "self" {
        return follow(tokens, at, inside, found);
    }
    let at: Vec<_> = at.iter().cloned().chain([name.to_string()]).collect();
    // Two names tell whether it is a part of a module that may be imported.
    let is_told = at.len() == 2 || !next_is_path(tokens);
    if is_told {
        found.insert(Import { by: inside[0].clone(), path: at });
    } else {
        follow(tokens, &at, inside, found);
    }
}

fn next_is_path(tokens: &Peekable<IntoIter>) -> bool {
    let mut ahead = tokens.clone();
    skip_colons(&mut ahead) && matches!(ahead.peek(), Some(TokenTree::Ident(_) | TokenTree::Group(_)))
}

fn skip_colons(tokens: &mut Peekable<IntoIter>) -> bool {
    let mut colon = || tokens.next_if(|token| is_punct(token, ':')).is_some();
    colon() && colon()
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// Whether it is the rest of `#[cfg(test)]`.
fn is_test(token: Option<&TokenTree>) -> bool {
    token.is_some_and(|token| token.to_string().replace(' ', "") == "[cfg(test)]")
}

/// Skips an item up to its semicolon or its body.
fn skip_item(tokens: &mut Peekable<IntoIter>) {
    for token in tokens.by_ref() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            token if is_punct(&token, ';') => return,
            _ => {}
        }
    }
}

/// Calls `look` with the code of each file below `directory` and the path of its module.
fn each_file(directory: &Path, module: &[String], look: &mut dyn FnMut(&str, &[String])) {
    for entry in read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inside: Vec<_> = module.iter().cloned().chain([name.clone()]).collect();
        if path.is_dir() {
            each_file(&path, &inside, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            match &*name {
                // Included under `#[cfg(test)]`.
                "tests" => {}
                "lib" | "main" if module.is_empty() => {}
                "mod" => look(&read_to_string(&path).unwrap(), module),
                _ => look(&read_to_string(&path).unwrap(), &inside),
            }
        }
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.by, self.path.join("::"))
    }
}

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

#[test]
fn the_modules_import_what_the_table_allows() {
    let table = Table::of(&read_to_string(source().join("lib.rs")).unwrap());
    let mut all = BTreeSet::new();
    each_file(source(), &[], &mut |code, inside| all.extend(imports(code, inside)));
    assert!(all.len() > 100, "the imports are found: {}", all.len());
    let complaints: Vec<_> = all.iter().filter_map(|import| table.complaint(import)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_table_has_each_module_once_and_from_the_top_to_the_bottom() {
    let lib = read_to_string(source().join("lib.rs")).unwrap();
    let mut declared: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")).collect();
    let table = Table::of(&lib);
    let mut listed: Vec<_> = table.0.iter().map(|module| format!("{};", module.name)).collect();
    listed.sort();
    declared.sort_unstable();
    assert_eq!(listed, declared);
    assert!(table.0.is_sorted_by_key(|module| std::cmp::Reverse(module.layer)));
}

#[test]
fn the_binary_uses_the_command_line_alone() {
    let main: TokenStream = read_to_string(source().join("main.rs")).unwrap().parse().unwrap();
    let main = main.to_string().replace(' ', "");
    let used: Vec<_> = main.split("bondmcp_server::").skip(1).collect();
    assert!(!used.is_empty() && used.iter().all(|path| path.starts_with("cli::")), "{used:?}");
}

const TABLE: &str = "\
//! | layer | module | purpose | may be imported by |
//! |---|---|---|---|
//! | 2 | [`top`] | a purpose | `main.rs` |
//! | 2 | [`side`] | a purpose | [`top`] |
//! | 1 | [`middle`] | a purpose | layers 1 to 2, except [`side`]; [`beside`] |
//! | 0 | [`low`] | a purpose | all |
//! | 0 | [`upper`] | a purpose | all |
//! | – | [`beside`] | a purpose | [`top`], tests |
";

#[test]
fn an_import_that_points_up_or_sideways_or_where_it_must_not_is_found() {
    let table = Table::of(TABLE);
    let is_wrong = |by: &str, path: &str| {
        let path = path.split("::").map(ToOwned::to_owned).collect();
        table.complaint(&Import { by: by.to_owned(), path }).is_some()
    };
    for (by, path) in [
        ("top", "middle::X"),
        ("top", "low"),
        ("top", "beside"),
        ("side", "upper"),
        ("middle", "low::X"),
        ("upper", "low"),
        ("beside", "low"),
    ] {
        assert!(!is_wrong(by, path), "{by} {path}");
    }
    for (by, path) in [
        ("low", "middle"),
        ("middle", "top"),
        ("top", "side"),
        ("side", "top"),
        ("side", "middle"),
        ("low", "upper"),
        ("beside", "middle"),
        ("middle", "beside"),
        ("top", "unknown"),
    ] {
        assert!(is_wrong(by, path), "{by} {path}");
    }
}

#[test]
fn imports_are_found_in_every_writing() {
    let found = |code: &str, inside: &[&str]| {
        let inside: Vec<_> = inside.iter().map(|&name| name.to_owned()).collect();
        imports(code, &inside).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let code = "
        //! Not crate::comment.
        use crate::one;
        use crate::{two, three::{Three, other}, four as five, six::*, own::X};
        pub(crate) fn f() -> crate::seven::X { super::super::eight::g(\"crate::text\") }
        mod inner { use super::super::super::nine; use super::super::own_part; }
        use self::part::Part;
        #[cfg(test)]
        mod tests { use crate::test; }
    ";
    let expected =
        ["eight::g", "five", "nine", "one", "seven::X", "six", "three::Three", "three::other", "two"];
    let mut told = found(code, &["own", "part"]);
    for import in &mut told {
        *import = import.replace("own ", "").replace("four", "five");
    }
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for import in expected {
        assert!(told.iter().any(|told| told.starts_with(import)), "{import}: {told:?}");
    }
}
