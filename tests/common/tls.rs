//! TLS of servers that are known by a certificate of their own.

use std::sync::Arc;

use rcgen::{Certificate, CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

/// Makes a key and its self-signed certificate; returns what a server presents, and the certificate.
pub fn identity(parameters: &CertificateParams) -> (ServerConfig, Certificate) {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (server, certificate)
}
