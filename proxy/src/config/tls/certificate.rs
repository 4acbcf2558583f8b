//! `TlsCertificate`: a chain and its private key, read once. No error shows what was read.

use std::sync::Arc;

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign,
};
use weft_xds::{
    FieldError,
    pb::envoy::{config::core::v3::DataSource, extensions::transport_sockets::tls::v3::TlsCertificate},
};

use crate::config::{
    data_source,
    field::{Result, Within as _, refuse, required},
};

/// Leaf first. Not `Debug`: it holds a private key.
pub(super) struct CertifiedKey {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl CertifiedKey {
    pub(super) fn from_proto(message: TlsCertificate) -> Result<Self> {
        let TlsCertificate {
            certificate_chain,
            private_key,
            pkcs12,
            watched_directory: _, // of secrets: what stands in a context is read once, as Envoy does
            private_key_provider,
            password,
            ocsp_staple,
            signed_certificate_timestamp,
            tls_params,
        } = message;
        refuse!(pkcs12, private_key_provider, password, ocsp_staple);
        refuse!(signed_certificate_timestamp, tls_params);
        let chain = certificates(required(certificate_chain, "certificate_chain")?).within("certificate_chain")?;
        let pem = data_source::read(required(private_key, "private_key")?).within("private_key")?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| FieldError::new("private_key", "no unencrypted private key in PEM found"))?;
        Ok(Self { chain, key })
    }
}

/// Checked to belong together, ready to sign.
pub(super) fn certified_key(pair: CertifiedKey, provider: &CryptoProvider) -> Result<Arc<sign::CertifiedKey>> {
    let CertifiedKey { chain, key } = pair;
    match sign::CertifiedKey::from_der(chain, key, provider) {
        Ok(key) => Ok(Arc::new(key)),
        Err(error) => Err(FieldError::new("", error.to_string())),
    }
}

/// At least one.
pub(super) fn certificates(source: DataSource) -> Result<Vec<CertificateDer<'static>>> {
    let pem = data_source::read(source)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<std::result::Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(FieldError::new("", "no certificate in PEM found")),
        Err(_) => Err(FieldError::new("", "not certificates in PEM")),
    }
}
