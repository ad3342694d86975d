//! The operator's selection of tools. Other tools are neither listed nor callable, and their resources and prompts are
//! not served.

use std::collections::BTreeMap;

use super::tools::{self, ToolSpec, Toolset};
use crate::oauth::Scopes;

/// The operator's selection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Whether only free, read-only tools are served.
    pub read_only: bool,
    /// Selected toolsets; all if neither toolsets nor tools are named.
    pub toolsets: Vec<Toolset>,
    /// Single tools, in addition to the toolsets.
    pub tools: Vec<String>,
}

/// The reason why a selection cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("there is no tool named {name}; there are {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("the selection leaves no tool; choose others with --toolsets or --tools")]
    Empty,
}

impl Selection {
    /// Returns the scopes that the served tools need.
    pub fn scopes(&self) -> Result<Scopes, SelectionError> {
        Ok(self.of(tools::all())?.into_values().flat_map(|tool| tool.scopes().iter()).collect())
    }

    /// Returns the tools of `all` that are served.
    pub(super) fn of(
        &self,
        all: BTreeMap<&'static str, &'static ToolSpec>,
    ) -> Result<BTreeMap<&'static str, &'static ToolSpec>, SelectionError> {
        if let Some(name) = self.tools.iter().find(|name| !all.contains_key(name.as_str())) {
            let known = all.into_keys().map(ToOwned::to_owned).collect();
            return Err(SelectionError::Unknown { name: name.clone(), known });
        }
        let everything = self.toolsets.is_empty() && self.tools.is_empty();
        let is_chosen = |tool: &ToolSpec| {
            everything
                || self.toolsets.contains(&tool.toolset)
                || self.tools.iter().any(|name| tool.name == *name)
        };
        let is_allowed = |tool: &ToolSpec| tool.effects.read_only || !self.read_only;
        let served: BTreeMap<_, _> =
            all.into_iter().filter(|(_, tool)| is_chosen(tool) && is_allowed(tool)).collect();
        if served.is_empty() { Err(SelectionError::Empty) } else { Ok(served) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selection: &Selection) -> Vec<&'static str> {
        selection.of(tools::all()).unwrap().into_keys().collect()
    }

    #[test]
    fn without_a_word_everything_is_served() {
        assert_eq!(names(&Selection::default()).len(), tools::all().len());
    }

    /// Whether exactly those tools are served for which `is_meant` holds.
    fn serves(selection: &Selection, is_meant: impl Fn(&ToolSpec) -> bool) -> bool {
        let all = tools::all();
        let meant: Vec<&str> = all.values().filter(|tool| is_meant(tool)).map(|tool| tool.name).collect();
        names(selection) == meant
    }

    #[test]
    fn tools_are_added_to_toolsets_and_stand_alone_without_them() {
        let selection = |toolsets: &[Toolset], tools: &[&str]| Selection {
            toolsets: toolsets.to_vec(),
            tools: tools.iter().map(ToString::to_string).collect(),
            ..Selection::default()
        };
        assert!(serves(&selection(&[Toolset::Models], &[]), |tool| tool.toolset == Toolset::Models));
        assert!(serves(&selection(&[Toolset::Models], &["login"]), |tool| {
            tool.toolset == Toolset::Models || tool.name == "login"
        }));
        assert!(serves(&selection(&[], &["login"]), |tool| tool.name == "login"));
        assert!(serves(&selection(&[Toolset::Health], &[]), |tool| tool.price.is_some()));
        let unknown = selection(&[], &["logon"]).of(tools::all()).unwrap_err().to_string();
        assert!(unknown.contains("logon") && unknown.contains("login, logout"), "{unknown}");
    }

    #[test]
    fn the_scopes_are_those_that_a_served_tool_needs() {
        let scopes = |selection: Selection| selection.scopes().unwrap().to_string();
        assert_eq!(scopes(Selection::default()), "models health keys");
        assert_eq!(scopes(Selection { read_only: true, ..Selection::default() }), "models");
        let toolsets = vec![Toolset::Session, Toolset::Models];
        assert_eq!(scopes(Selection { toolsets, ..Selection::default() }), "models");
        let tools = vec!["medication_check".to_owned()];
        assert_eq!(scopes(Selection { tools, ..Selection::default() }), "health");
        assert_eq!(scopes(Selection { toolsets: vec![Toolset::Session], ..Selection::default() }), "");
    }

    #[test]
    fn what_changes_or_bills_is_not_read_only() {
        let read_only = Selection { read_only: true, ..Selection::default() };
        assert!(serves(&read_only, |tool| tool.effects.read_only && tool.price.is_none()));
        let nothing = Selection { toolsets: vec![Toolset::Health, Toolset::Keys], ..read_only };
        assert_eq!(nothing.of(tools::all()).unwrap_err(), SelectionError::Empty);
    }
}
