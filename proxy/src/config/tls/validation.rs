//! `CertificateValidationContext`: what a peer's certificate must be, and judging it. Pure but for reading files.
//!
//! Whatever a context asks for and is not known here is refused, so that no check is lost. With `trusted_ca` the chain has to
//! lead to it, for the purpose of its side; with pins the leaf has to be one of those; with names it has to have one of them.
//! A context that asks for nothing trusts nobody, and no certificate is looked at: that is Envoy's contract.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::{
    CertificateError, OtherError,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
        pem::PemObject as _,
    },
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::DataSource,
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, certificate_validation_context::TrustChainVerification,
        },
    },
};

use super::{
    certificate,
    parameters::provider,
    spiffe::TrustDomains,
    subject_alt_name::{SubjectAltNameMatcher, dns_name_matches},
};
use crate::{
    config::{
        data_source,
        field::{self, Result, Within as _, refuse},
    },
    tls::CertificateFacts,
};

#[derive(Debug)]
pub struct PeerValidation {
    trust: Trust,
    /// Any of them will do; both empty: any leaf will.
    certificate_hashes: Vec<[u8; 32]>,
    key_hashes: Vec<[u8; 32]>,
    /// Empty: any name will do.
    names: Vec<SubjectAltNameMatcher>,
    revocation: Option<Revocation>,
    allows_expired: bool,
    /// Whatever is shown is taken; who asks is told whether it is trusted.
    accepts_untrusted: bool,
    /// Of certificates between the leaf and the one that is trusted.
    intermediates_max: Option<usize>,
    pub(super) suppresses_hints: bool,
}

#[derive(Debug)]
enum Trust {
    /// Nobody needs to vouch for the leaf.
    None,
    Roots(Arc<Roots>),
    Domains(TrustDomains),
}

/// Those who are trusted: authorities, and certificates that stand for themselves.
pub struct Roots {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    certificates: Vec<CertificateDer<'static>>,
}

struct Revocation {
    lists: Vec<CertRevocationList<'static>>,
    depth: RevocationCheckDepth,
}

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    Server,
    Client,
}

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("the chain is not trusted")]
    Chain(#[source] webpki::Error),
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("neither the certificate nor its key is one of those that are known")]
    Pins,
    #[error("no name of the certificate is one of those that are asked for")]
    Names,
    #[error("the certificate is no SPIFFE identity: {0}")]
    Spiffe(&'static str),
}

impl Rejection {
    /// What a handshake's error came of.
    pub fn of(error: &CertificateError) -> Option<&Rejection> {
        match error {
            CertificateError::Other(OtherError(cause)) => cause.downcast_ref(),
            CertificateError::ApplicationVerificationFailure => Some(&Rejection::Names),
            _ => None,
        }
    }
}

impl PeerValidation {
    /// None: the context asks for nothing. `known_roots` are those of its `trusted_ca`, where they were read before.
    #[expect(deprecated, reason = "an older spelling, and fields named to be refused")]
    pub(super) fn from_proto(
        message: CertificateValidationContext,
        known_roots: Option<Arc<Roots>>,
    ) -> Result<Option<Self>> {
        let CertificateValidationContext {
            trusted_ca,
            ca_certificate_provider_instance,
            system_root_certs,
            watched_directory: _, // of secrets: what stands in a context is read once, as Envoy does
            verify_certificate_spki,
            verify_certificate_hash,
            match_typed_subject_alt_names,
            match_subject_alt_names,
            require_signed_certificate_timestamp,
            crl,
            allow_expired_certificate,
            trust_chain_verification,
            custom_validator_config,
            only_verify_leaf_cert_crl,
            max_verify_depth,
            suppress_client_ca_list,
        } = message;
        refuse!(ca_certificate_provider_instance, system_root_certs, match_subject_alt_names);
        field::only(require_signed_certificate_timestamp, false, "require_signed_certificate_timestamp")?;
        let accepts_untrusted = match field::enumeration(trust_chain_verification, "trust_chain_verification")? {
            TrustChainVerification::VerifyTrustChain => false,
            TrustChainVerification::AcceptUntrusted => true,
        };
        let names = field::each(
            match_typed_subject_alt_names,
            "match_typed_subject_alt_names",
            SubjectAltNameMatcher::from_proto,
        )?;
        let has_own_roots = trusted_ca.is_some();
        let roots = match (trusted_ca, known_roots) {
            (Some(_), Some(known)) => Some(known),
            (Some(trusted_ca), None) => Some(Roots::read(trusted_ca).within("trusted_ca")?),
            (None, _) => None,
        };
        let trust = match custom_validator_config {
            Some(_) if has_own_roots => {
                return Err(FieldError::new("custom_validator_config", "trusted_ca cannot stand beside it"));
            }
            Some(config) => Trust::Domains(TrustDomains::from_extension(config).within("custom_validator_config")?),
            None => roots.map_or(Trust::None, Trust::Roots),
        };
        let revocation = match crl {
            None if only_verify_leaf_cert_crl => {
                return Err(FieldError::new("only_verify_leaf_cert_crl", "means nothing without crl"));
            }
            None => None,
            Some(_) if !matches!(trust, Trust::Roots(_)) => {
                return Err(FieldError::new("crl", "Failed to load CRL: trusted_ca is required"));
            }
            Some(source) => Some(Revocation::read(source, only_verify_leaf_cert_crl).within("crl")?),
        };
        if matches!(trust, Trust::None) && !names.is_empty() {
            // Anybody can write any name into a certificate that nobody vouches for.
            return Err(FieldError::new("match_typed_subject_alt_names", "names mean nothing without trusted_ca"));
        }
        let validation = Self {
            trust,
            certificate_hashes: field::each(verify_certificate_hash, "verify_certificate_hash", certificate_hash)?,
            key_hashes: field::each(verify_certificate_spki, "verify_certificate_spki", key_hash)?,
            names,
            revocation,
            allows_expired: allow_expired_certificate,
            accepts_untrusted,
            intermediates_max: max_verify_depth.map(|depth| depth.value as usize),
            suppresses_hints: suppress_client_ca_list,
        };
        Ok((validation.asks_for_something() || accepts_untrusted).then_some(validation))
    }

    fn asks_for_something(&self) -> bool {
        !matches!(self.trust, Trust::None) || self.has_pins()
    }

    fn has_pins(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.key_hashes.is_empty()
    }

    /// The names of those who are trusted, for clients to choose a certificate by.
    pub(super) fn anchors(&self) -> Vec<&TrustAnchor<'static>> {
        match &self.trust {
            Trust::None => Vec::new(),
            Trust::Roots(roots) => roots.anchors.iter().collect(),
            Trust::Domains(domains) => domains.anchors(),
        }
    }

    /// In a handshake. `host` is a DNS name that the certificate must have, besides.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: PeerRole,
        host: Option<&str>,
    ) -> Result<(), Rejection> {
        match self.check(leaf, intermediates, now, role, host) {
            Err(_) if self.accepts_untrusted => Ok(()),
            checked => checked,
        }
    }

    /// Whether somebody who is trusted vouches for it.
    pub fn is_trusted(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime) -> bool {
        // In other cases the handshake has said so.
        self.asks_for_something()
            && (!self.accepts_untrusted || self.check(leaf, intermediates, now, PeerRole::Client, None).is_ok())
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: PeerRole,
        host: Option<&str>,
    ) -> Result<(), Rejection> {
        let needs_facts = matches!(self.trust, Trust::Domains(_)) || !self.names.is_empty() || host.is_some();
        let facts = match needs_facts || !self.key_hashes.is_empty() {
            true => Some(CertificateFacts::parse(leaf).ok_or(Rejection::Unreadable)?),
            false => None,
        };
        match &self.trust {
            Trust::None => {}
            Trust::Roots(roots) => self.check_chain(roots, leaf, intermediates, now, role)?,
            Trust::Domains(domains) => {
                let roots = domains.roots_of(facts.as_ref().ok_or(Rejection::Unreadable)?)?;
                self.check_chain(roots, leaf, intermediates, now, role)?;
            }
        }
        if let Some(facts) = &facts {
            self.check_facts(facts, host)?;
        }
        if !self.has_pins() {
            return Ok(());
        }
        let is_known = |pins: &[[u8; 32]], bytes: &[u8]| pins.iter().any(|pin| pin == digest(&SHA256, bytes).as_ref());
        let has_known_key = facts.is_some_and(|facts| is_known(&self.key_hashes, &facts.public_key_info));
        match has_known_key || is_known(&self.certificate_hashes, leaf) {
            true => Ok(()),
            false => Err(Rejection::Pins),
        }
    }

    fn check_facts(&self, facts: &CertificateFacts, host: Option<&str>) -> Result<(), Rejection> {
        let has_name = self.names.is_empty() || self.names.iter().any(|matcher| matcher.matches(facts));
        let is_host = host.is_none_or(|host| facts.dns_names.iter().any(|name| dns_name_matches(name, host)));
        if has_name && is_host { Ok(()) } else { Err(Rejection::Names) }
    }

    fn check_chain(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: PeerRole,
    ) -> Result<(), Rejection> {
        let checked = self.check_chain_at(roots, leaf, intermediates, now, role);
        if !self.allows_expired || checked.is_ok() {
            return checked;
        }
        // The signatures hold at the time of one of them, if they hold at all.
        let times = intermediates.iter().chain([leaf]).filter_map(|certificate| CertificateFacts::parse(certificate));
        let mut moments = times.flat_map(|facts| [facts.not_after_s, facts.not_before_s]);
        let holds = moments.any(|moment| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(moment).unwrap_or_default()));
            self.check_chain_at(roots, leaf, intermediates, at, role).is_ok()
        });
        if holds { Ok(()) } else { checked }
    }

    fn check_chain_at(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: PeerRole,
    ) -> Result<(), Rejection> {
        if roots.certificates.iter().any(|known| known == leaf) {
            return stands_for_itself(leaf, now, role);
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(Rejection::Chain)?;
        let lists: Vec<&CertRevocationList<'_>> =
            self.revocation.iter().flat_map(|revocation| &revocation.lists).collect();
        let revocation = self.revocation.as_ref().and_then(|revocation| revocation.options(&lists));
        let is_short = |path: &VerifiedPath<'_>| {
            let max = self.intermediates_max.unwrap_or(usize::MAX);
            let length = path.intermediate_certificates().count();
            if length <= max { Ok(()) } else { Err(webpki::Error::MaximumPathDepthExceeded) }
        };
        let usage = match role {
            PeerRole::Server => KeyUsage::server_auth(),
            PeerRole::Client => KeyUsage::client_auth(),
        };
        certificate
            .verify_for_usage(algorithms(), &roots.anchors, intermediates, now, usage, revocation, Some(&is_short))
            .map(|_| ())
            .map_err(Rejection::Chain)
    }
}

/// A certificate that is trusted as it is needs nobody's signature, but it has its time and its purpose.
fn stands_for_itself(leaf: &CertificateDer<'_>, now: UnixTime, role: PeerRole) -> Result<(), Rejection> {
    let facts = CertificateFacts::parse(leaf).ok_or(Rejection::Unreadable)?;
    let moment = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let (not_before, not_after) = (moment(facts.not_before_s), moment(facts.not_after_s));
    if now < not_before {
        return Err(Rejection::Chain(webpki::Error::CertNotValidYet { time: now, not_before }));
    }
    if now > not_after {
        return Err(Rejection::Chain(webpki::Error::CertExpired { time: now, not_after }));
    }
    let is_for_this = match role {
        PeerRole::Server => facts.is_for_servers,
        PeerRole::Client => facts.is_for_clients,
    };
    match is_for_this {
        true => Ok(()),
        #[expect(deprecated, reason = "the newer form can only be made by the library")]
        false => Err(Rejection::Chain(webpki::Error::RequiredEkuNotFound)),
    }
}

fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    provider().signature_verification_algorithms.all
}

impl Roots {
    pub(super) fn read(source: DataSource) -> Result<Arc<Self>> {
        Self::from_certificates(certificate::certificates(source)?)
    }

    pub(super) fn from_certificates(certificates: Vec<CertificateDer<'static>>) -> Result<Arc<Self>> {
        let anchor = |certificate: &CertificateDer<'static>| {
            let anchor = anchor_from_trusted_cert(certificate);
            anchor.map(|anchor| anchor.to_owned()).map_err(|error| FieldError::new("", error.to_string()))
        };
        let anchors = certificates.iter().map(anchor).collect::<Result<_>>()?;
        Ok(Arc::new(Self { anchors, certificates }))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.anchors.len()).finish()
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation").field("lists", &self.lists.len()).finish_non_exhaustive()
    }
}

impl Revocation {
    fn read(source: DataSource, leaf_only: bool) -> Result<Self> {
        let pem = data_source::read(source)?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&pem).map(|list| {
            let list = list.map_err(|_| FieldError::new("", "not a CRL in PEM"))?;
            let list = OwnedCertRevocationList::from_der(&list);
            list.map(CertRevocationList::from).map_err(|error| FieldError::new("", error.to_string()))
        });
        let lists: Vec<_> = lists.collect::<Result<_>>()?;
        if lists.is_empty() {
            return Err(FieldError::new("", "no CRL in PEM found"));
        }
        let depth = if leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
        Ok(Self { lists, depth })
    }

    /// As Envoy: who has no list, or only one that is too old, is not believed.
    fn options<'a>(&self, lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
        let options = RevocationOptionsBuilder::new(lists).ok()?; // there is at least one
        let options = options.with_depth(self.depth).with_status_policy(UnknownStatusPolicy::Deny);
        Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
    }
}

/// SHA-256 of the leaf: hexadecimal digits, with colons between the bytes or without.
fn certificate_hash(text: String) -> Result<[u8; 32]> {
    let invalid = || FieldError::new("", "Invalid hex-encoded SHA-256");
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let has_colons = text.contains(':');
    if digits.len() != 64 || has_colons && text.len() != 95 {
        return Err(invalid());
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
    }
    Ok(hash)
}

/// SHA-256 of the SubjectPublicKeyInfo, in base64.
fn key_hash(text: String) -> Result<[u8; 32]> {
    let invalid = || FieldError::new("", "Invalid base64-encoded SHA-256");
    BASE64.decode(&text).map_err(|_| invalid())?.try_into().map_err(|_| invalid())
}
