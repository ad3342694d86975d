//! Which tools there are for the host: those that the operator chose. A tool that was not chosen does not exist, and
//! neither do the resources and prompts that lead to it.

use std::collections::BTreeSet;

use rmcp::model::Tool;

use super::tools;

/// Tools that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Toolset {
    /// Signing in and out.
    Session,
    /// What BondMCP offers.
    Models,
    /// API keys.
    Keys,
    /// The billed health services.
    Health,
}

/// What the operator chose.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Nothing that changes or bills.
    pub read_only: bool,
    /// All of them when neither toolsets nor tools are named.
    pub toolsets: Vec<Toolset>,
    /// Single tools, besides the toolsets.
    pub tools: Vec<String>,
}

/// Why a selection cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("there is no tool named {name}; there are {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("the selection leaves no tool; choose others with --toolsets or --tools")]
    Empty,
}

impl Selection {
    /// The names of those of `all` that are served.
    pub(super) fn names(&self, all: &[Tool]) -> Result<BTreeSet<String>, SelectionError> {
        if let Some(name) = self.tools.iter().find(|name| all.iter().all(|tool| tool.name != **name)) {
            let known = all.iter().map(|tool| tool.name.to_string()).collect();
            return Err(SelectionError::Unknown { name: name.clone(), known });
        }
        let everything = self.toolsets.is_empty() && self.tools.is_empty();
        let names: BTreeSet<String> = all
            .iter()
            .filter(|tool| {
                let reads = tool.annotations.as_ref().is_some_and(|hints| hints.read_only_hint == Some(true));
                let chosen = everything
                    || self.toolsets.contains(&tools::toolset(&tool.name))
                    || self.tools.iter().any(|name| tool.name == *name);
                chosen && (reads || !self.read_only)
            })
            .map(|tool| tool.name.to_string())
            .collect();
        if names.is_empty() { Err(SelectionError::Empty) } else { Ok(names) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::BondMcp, *};

    fn names(selection: &Selection) -> Vec<String> {
        selection.names(&BondMcp::tools().list_all()).unwrap().into_iter().collect()
    }

    #[test]
    fn without_a_word_everything_is_served() {
        assert_eq!(names(&Selection::default()).len(), 12);
    }

    #[test]
    fn tools_are_added_to_toolsets_and_stand_alone_without_them() {
        let selection = |toolsets: &[Toolset], tools: &[&str]| Selection {
            toolsets: toolsets.to_vec(),
            tools: tools.iter().map(ToString::to_string).collect(),
            ..Selection::default()
        };
        assert_eq!(names(&selection(&[Toolset::Models], &[])), ["list_models"]);
        assert_eq!(names(&selection(&[Toolset::Models], &["login"])), ["list_models", "login"]);
        assert_eq!(names(&selection(&[], &["login"])), ["login"]);
        assert_eq!(names(&selection(&[Toolset::Health], &[])).len(), 6);
        let unknown = selection(&[], &["logon"]).names(&BondMcp::tools().list_all()).unwrap_err().to_string();
        assert!(unknown.contains("logon") && unknown.contains("login, logout"), "{unknown}");
    }

    #[test]
    fn what_changes_or_bills_is_not_read_only() {
        let read_only = Selection { read_only: true, ..Selection::default() };
        assert_eq!(names(&read_only), ["auth_status", "list_models"]);
        let nothing = Selection { toolsets: vec![Toolset::Health, Toolset::Keys], ..read_only };
        assert_eq!(nothing.names(&BondMcp::tools().list_all()), Err(SelectionError::Empty));
    }
}
