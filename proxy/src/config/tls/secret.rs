//! `envoy.extensions.transport_sockets.tls.v3.Secret`: a certificate with its key, or what peers' certificates must be, that
//! comes apart from the TLS contexts which name it. No error and no `Debug` shows what is in one.

use std::{fmt, sync::Arc};

use rustls::sign;
use weft_xds::{
    FieldError, canonical,
    pb::envoy::{
        config::core::v3::{DataSource, WatchedDirectory, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, SdsSecretConfig, Secret as ProtoSecret, TlsCertificate, TlsSessionTicketKeys,
            secret::Type,
        },
    },
};

use super::{
    certificate::{CertifiedKey, certified_key},
    parameters::provider,
    tickets::TicketKeys,
    validation::{PeerValidation, Roots},
};
use crate::config::{
    config_source::{self, Discovered, DiscoverySource, FileSource, ResourceKey, SourceOrigin},
    data_source,
    field::{Result, Within as _, required, unsupported},
};

pub struct Secret {
    pub name: Arc<str>,
    /// Of the content, that of files included: equal hash, equal secret.
    pub hash: u64,
    pub(super) value: SecretValue,
    /// Where the content stands, if not in the message: when these change, the message means something else.
    pub files: Vec<FileSource>,
}

pub(super) enum SecretValue {
    TlsCertificate(Arc<sign::CertifiedKey>),
    ValidationContext {
        /// Its `trusted_ca` stands in it.
        message: Box<CertificateValidationContext>,
        /// Of `trusted_ca`.
        roots: Option<Arc<Roots>>,
    },
    SessionTicketKeys(TicketKeys),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Secret {
    pub fn from_proto(message: ProtoSecret) -> Result<Self> {
        let ProtoSecret { name, r#type } = message;
        let mut files = Vec::new();
        let (value, hash) = match required(r#type, "type")? {
            Type::TlsCertificate(message) => certificate(message, &mut files).within("tls_certificate")?,
            Type::ValidationContext(message) => validation_context(message, &mut files).within("validation_context")?,
            Type::SessionTicketKeys(message) => ticket_keys(message, &mut files).within("session_ticket_keys")?,
            Type::GenericSecret(_) => return Err(unsupported("generic_secret")),
        };
        Ok(Self { name: name.into(), hash, value, files })
    }
}

fn certificate(mut message: TlsCertificate, files: &mut Vec<FileSource>) -> Result<(SecretValue, u64)> {
    let directory = message.watched_directory.take();
    watch(&message.certificate_chain, directory.as_ref(), files);
    watch(&message.private_key, directory.as_ref(), files);
    let CertifiedKey { chain, key } = CertifiedKey::from_proto(message)?;
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for certificate in &chain {
        hasher.update(certificate);
    }
    hasher.update(key.secret_der());
    let key = certified_key(CertifiedKey { chain, key }, provider())?;
    Ok((SecretValue::TlsCertificate(key), hasher.digest()))
}

fn validation_context(
    mut message: CertificateValidationContext,
    files: &mut Vec<FileSource>,
) -> Result<(SecretValue, u64)> {
    let directory = message.watched_directory.take();
    watch(&message.trusted_ca, directory.as_ref(), files);
    watch(&message.crl, directory.as_ref(), files);
    if let Some(crl) = message.crl.take() {
        let bytes = data_source::read(crl).within("crl")?;
        message.crl = Some(inline(bytes));
    }
    let mut trusted = None;
    if let Some(trusted_ca) = message.trusted_ca.take() {
        let bytes = data_source::read(trusted_ca).within("trusted_ca")?;
        let inline = inline(bytes);
        trusted = Some(Roots::read(inline.clone()).within("trusted_ca")?);
        message.trusted_ca = Some(inline);
    }
    // Whether names can be checked depends on what the context that takes it adds.
    if trusted.is_some() {
        PeerValidation::from_proto(message.clone(), trusted.clone())?;
    }
    let hash = canonical::hash(&message);
    Ok((SecretValue::ValidationContext { message: Box::new(message), roots: trusted }, hash))
}

fn ticket_keys(message: TlsSessionTicketKeys, files: &mut Vec<FileSource>) -> Result<(SecretValue, u64)> {
    let TlsSessionTicketKeys { keys } = message;
    for source in &keys {
        watch(&Some(source.clone()), None, files);
    }
    let keys = TicketKeys::read(keys)?;
    let hash = xxhash_rust::xxh3::xxh3_64(&keys.concat());
    Ok((SecretValue::SessionTicketKeys(TicketKeys::from_bytes(&keys)?), hash))
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { watched_directory: None, specifier: Some(Specifier::InlineBytes(bytes)) }
}

fn watch(source: &Option<DataSource>, directory: Option<&WatchedDirectory>, files: &mut Vec<FileSource>) {
    if let Some(DataSource { specifier: Some(Specifier::Filename(path)), watched_directory }) = source {
        let directory = watched_directory.as_ref().or(directory);
        let watched_directory = directory.cloned().map(config_source::directory);
        files.push(FileSource { path: path.into(), watched_directory, poll_interval: None });
    }
}

/// What a TLS context names. Without a source it is one of the bootstrap's.
pub(super) fn reference(message: SdsSecretConfig) -> Result<Discovered> {
    let SdsSecretConfig { name, sds_config } = message;
    match sds_config {
        None => {
            let key = ResourceKey { origin: SourceOrigin::Bootstrap, name: name.into() };
            Ok(Discovered { key, initial_fetch_timeout: None })
        }
        Some(source) => Ok(DiscoverySource::from_proto(source).within("sds_config")?.resource(name)),
    }
}

/// A secret of another kind than is needed in its place.
pub(super) fn mismatch(secret: &Secret, wanted: &str) -> FieldError {
    FieldError::new("", format!("secret '{}' is not a {wanted}", secret.name))
}
