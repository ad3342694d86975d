//! Who issued a certificate and until when it is valid, for people. Whether it is trusted is decided elsewhere.

use x509_cert::{Certificate as X509, der::Decode as _, ext::pkix::name::DirectoryString, name::Name};

use crate::{clock::Timestamp, text::printable};

/// A server's certificate, as far as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Name of the issuer.
    pub issuer: String,
    pub valid_until: Timestamp,
}

impl Certificate {
    /// Reads a certificate in DER; `None` if it cannot be read.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let certificate = X509::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let until = content.validity().not_after.to_unix_duration();
        Some(Self {
            issuer: printable(&shown(content.issuer())).into_owned(),
            valid_until: Timestamp::from_timestamp(until.as_secs().try_into().ok()?, 0)?,
        })
    }
}

/// Returns the common name with the organization, or what there is of them.
fn shown(name: &Name) -> String {
    let text = |found: Option<DirectoryString>| {
        found.map(|text| text.value().into_owned()).filter(|text| !text.is_empty())
    };
    let common = name.common_name().ok().flatten();
    let organization = name.organization().ok().flatten();
    match (text(common), text(organization)) {
        (Some(common), Some(organization)) => format!("{common} ({organization})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => name.to_string(),
    }
}
