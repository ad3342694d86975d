//! The parameters of a request to `/token` or `/revoke` (RFC 6749, appendix B).

use super::{Endpoints, OAuthError};
use crate::secret::{ExposeSecret as _, SecretString};

/// Largest number of parameters; a request has about ten. Each is compared with all before it.
const MAX_PARAMETERS: usize = 64;

/// Decoded parameters: any of them may be a secret. Those without a value count as absent (RFC 6749, section 3.2).
#[derive(Debug)]
pub struct Form(Vec<(String, SecretString)>);

impl Form {
    /// Parses a body of the type `application/x-www-form-urlencoded`. No parameter may occur twice (RFC 6749, section
    /// 3.2), but for `resource` (RFC 8707, section 2).
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let mut parameters: Vec<(String, SecretString)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if value.is_empty() {
                continue;
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(OAuthError::invalid_request("There are too many parameters."));
            }
            if name != "resource" && parameters.iter().any(|(other, _)| *other == name) {
                return Err(OAuthError::invalid_request("A parameter occurs twice."));
            }
            parameters.push((name.into_owned(), value.into_owned().into()));
        }
        Ok(Self(parameters))
    }

    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Refuses a request for another resource (RFC 8707, section 2.2).
    pub fn check_resource(&self, endpoints: &Endpoints) -> Result<(), OAuthError> {
        let mut resources = self.0.iter().filter(|(name, _)| name == "resource");
        if resources.all(|(_, resource)| endpoints.is_resource(resource.expose_secret())) {
            Ok(())
        } else {
            Err(OAuthError::bad_request("invalid_target", "This server does not serve that resource."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_occur_once() {
        let form = Form::parse(b"code=a%2Bb+c&empty=&empty=&resource=x&resource=y").unwrap();
        assert_eq!(form.get("code").unwrap().expose_secret(), "a+b c");
        assert!(form.get("empty").is_none() && form.get("other").is_none());
        assert!(!format!("{form:?}").contains("a+b"));
        assert_eq!(Form::parse(b"code=a&code=a").unwrap_err().code, "invalid_request");
    }

    // Comparing 10,000 names with each other would take a third of a second.
    #[test]
    fn there_are_few_parameters() {
        let form = |count| (0..count).map(|n| format!("{n}=1")).collect::<Vec<_>>().join("&");
        assert!(Form::parse(form(MAX_PARAMETERS).as_bytes()).is_ok());
        assert_eq!(Form::parse(form(MAX_PARAMETERS + 1).as_bytes()).unwrap_err().code, "invalid_request");
    }

    #[test]
    fn each_resource_must_be_this_server() {
        let endpoints = Endpoints::new(&"https://bond.example.com".parse().unwrap());
        let check = |body: &str| Form::parse(body.as_bytes()).unwrap().check_resource(&endpoints);
        for ours in
            ["", "resource=", "resource=https://bond.example.com/mcp&resource=https://bond.example.com"]
        {
            assert_eq!(check(ours), Ok(()), "{ours}");
        }
        for other in ["resource=x", "resource=https://bond.example.com/mcp&resource=https://evil.test/mcp"] {
            assert_eq!(check(other).unwrap_err().code, "invalid_target", "{other}");
        }
    }
}
