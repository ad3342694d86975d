//! Examples for the help of the `keys` commands.

pub(in crate::cli) const KEYS: &str = "Examples:
  bondmcp-server keys create ci --permission read
  bondmcp-server keys list
  bondmcp-server keys run ci -- python3 report.py
  bondmcp-server keys rotate ci";

pub(super) const LIST: &str = "Examples:
  bondmcp-server keys list
  bondmcp-server keys list --json";

pub(super) const CREATE: &str = "Examples:
  bondmcp-server keys create ci
  bondmcp-server keys create report --permission read --description 'the weekly report'";

pub(super) const ROTATE: &str = "Examples:
  bondmcp-server keys rotate ci
  bondmcp-server keys rotate ci --yes";

pub(super) const REVOKE: &str = "Examples:
  bondmcp-server keys revoke ci
  bondmcp-server keys revoke ci --yes";

pub(super) const USE: &str = "Examples:
  bondmcp-server keys use ci
  bondmcp-server keys use";

pub(super) const USAGE: &str = "Examples:
  bondmcp-server keys usage ci";

pub(super) const RUN: &str = "Examples:
  bondmcp-server keys run ci -- python3 report.py
  bondmcp-server keys run ci --proxy -- ./untrusted-script";

pub(super) const REVEAL: &str = "Examples:
  bondmcp-server keys reveal ci
  bondmcp-server keys reveal ci --stdout | gh secret set BONDMCP_API_KEY";

pub(super) const WRITE: &str = "Examples:
  bondmcp-server keys write ci --env-file .env";
