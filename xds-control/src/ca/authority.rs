//! The signing key and its certificates, and what they sign. No I/O; the clock is passed in.
//!
//! Invariants: the key belongs to the issuing certificate, which may sign, and from which the chain leads to one of the roots;
//! nothing that it signs outlives it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::transport::identity::Identity;

/// PEM texts, as they stand in files. The key is in it: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The certificate that signs.
    pub certificate: String,
    pub key: String,
    /// From the issuing certificate towards the root, which it may hold too; empty where a root signs.
    pub chain: String,
    /// Several while the root is being replaced.
    pub roots: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the {0} cannot be read as PEM")]
    Pem(&'static str),
    #[error("there is no certificate among the {0}")]
    Empty(&'static str),
    #[error("a certificate of the {0} cannot be read")]
    Certificate(&'static str),
    #[error("the key does not belong to the issuing certificate")]
    Key,
    #[error("the kind of the key is not one that signs: ECDSA P-256 or P-384, RSA and Ed25519 do")]
    KeyKind(#[source] rcgen::Error),
    #[error(
        "the issuing certificate is not that of an authority (basic constraints CA, key usage certificate signing)"
    )]
    NotAnAuthority,
    #[error("the issuing certificate is valid from {from} to {to} (seconds since 1970), not now")]
    Time { from: i64, to: i64 },
    #[error("the chain does not lead from the issuing certificate to a root")]
    Chain,
}

#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the authority's own certificate ends too soon")]
    Expired,
    #[error("signing failed")]
    Sign(#[source] rcgen::Error),
    #[error("no randomness for a serial number")]
    Random,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// From the issuing certificate to the last before a root; empty where a root signs.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
    material: Material,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A signed certificate with the way to a root, leaf first.
#[derive(Clone, Debug)]
pub struct Signed {
    pub chain: Vec<CertificateDer<'static>>,
    pub not_after: SystemTime,
}

/// Clocks of workloads may be behind by as much.
const CLOCK_SKEW: Duration = Duration::from_secs(120);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Authority {
    pub fn new(material: Material, now: SystemTime) -> Result<Self, AuthorityError> {
        let certificates = |pem: &str, what| {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            all.map_err(|_| AuthorityError::Pem(what))
        };
        let signing = certificates(&material.certificate, "issuing certificate")?.into_iter().next();
        let signing = signing.ok_or(AuthorityError::Empty("issuing certificate"))?;
        let mut chain = certificates(&material.chain, "chain")?;
        let roots = certificates(&material.roots, "roots")?;
        if roots.is_empty() {
            return Err(AuthorityError::Empty("roots"));
        }
        let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes()).map_err(|_| AuthorityError::Pem("key"))?;
        let key = KeyPair::try_from(&key).map_err(AuthorityError::KeyKind)?;
        chain.retain(|certificate| *certificate != signing && !roots.contains(certificate));
        if !roots.contains(&signing) {
            chain.insert(0, signing.clone());
        }
        let parsed = parse(&signing, "issuing certificate")?;
        check_signer(&parsed, &key, now)?;
        let not_after = UNIX_EPOCH + Duration::from_secs(parsed.validity().not_after.timestamp().unsigned_abs());
        check_chain(&parsed, &chain, &roots)?;
        let issuer = Issuer::from_ca_cert_der(&signing, key).map_err(AuthorityError::KeyKind)?;
        Ok(Self { issuer, chain, roots, not_after, material })
    }

    /// A root and an issuing certificate below it, each with a new key; the root's key is not kept.
    pub fn generate(trust_domain: &str, now: SystemTime) -> Result<Material, rcgen::Error> {
        let authority = |name: String, constraints| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, trust_domain);
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(constraints);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.not_before = (now - CLOCK_SKEW).into();
            params.not_after = (now + AUTHORITY_LIFETIME).into();
            params.use_authority_key_identifier_extension = true;
            params
        };
        let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let root_params = authority(format!("Root CA of {trust_domain}"), rcgen::BasicConstraints::Unconstrained);
        let root = root_params.self_signed(&root_key)?;
        let issuing = authority(format!("CA of {trust_domain}"), rcgen::BasicConstraints::Constrained(0));
        let issuing = issuing.signed_by(&key, &Issuer::new(root_params, root_key))?;
        Ok(Material { certificate: issuing.pem(), key: key.serialize_pem(), chain: issuing.pem(), roots: root.pem() })
    }

    /// A workload's certificate for its key.
    pub fn sign_workload(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let name = identity.to_string().try_into().map_err(SignError::Sign)?;
        self.sign(key, vec![SanType::URI(name)], lifetime, now)
    }

    /// The control plane's own certificate, by the names that it is called by.
    pub fn sign_server(
        &self,
        key: &impl PublicKeyData,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let name = |name: &String| match name.parse() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName).map_err(SignError::Sign),
        };
        self.sign(key, names.iter().map(name).collect::<Result<_, _>>()?, lifetime, now)
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub fn material(&self) -> &Material {
        &self.material
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Signed, SignError> {
        let not_after = (now + lifetime).min(self.not_after);
        if not_after <= now {
            return Err(SignError::Expired);
        }
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| SignError::Random)?;
        // Positive, and of full length whatever comes out.
        serial[0] = serial[0] & 0x3f | 0x40;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = not_after.into();
        let leaf = params.signed_by(key, &self.issuer).map_err(SignError::Sign)?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.iter().cloned()).collect();
        Ok(Signed { chain, not_after })
    }
}

fn parse<'a>(der: &'a [u8], what: &'static str) -> Result<X509Certificate<'a>, AuthorityError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AuthorityError::Certificate(what))?;
    Ok(certificate)
}

fn check_signer(certificate: &X509Certificate<'_>, key: &KeyPair, now: SystemTime) -> Result<(), AuthorityError> {
    if certificate.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(AuthorityError::Key);
    }
    let may_sign = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if !certificate.is_ca() || !may_sign {
        return Err(AuthorityError::NotAnAuthority);
    }
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    if (from..to).contains(&now) { Ok(()) } else { Err(AuthorityError::Time { from, to }) }
}

/// Each certificate is signed by the next, the last by a root.
fn check_chain(
    signing: &X509Certificate<'_>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<(), AuthorityError> {
    let chain = chain.iter().map(|der| parse(der, "chain")).collect::<Result<Vec<_>, _>>()?;
    let roots = roots.iter().map(|der| parse(der, "roots")).collect::<Result<Vec<_>, _>>()?;
    let is_signed_by = |certificate: &X509Certificate<'_>, by: &X509Certificate<'_>| {
        certificate.issuer() == by.subject() && certificate.verify_signature(Some(by.public_key())).is_ok()
    };
    let links = chain.windows(2).all(|pair| matches!(pair, [lower, upper] if is_signed_by(lower, upper)));
    let last = chain.last().unwrap_or(signing);
    if links && roots.iter().any(|root| is_signed_by(last, root)) { Ok(()) } else { Err(AuthorityError::Chain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Identity {
        Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
    }

    fn generated() -> Material {
        Authority::generate("cluster.local", SystemTime::now()).unwrap()
    }

    #[test]
    fn a_workload_s_certificate_holds_its_identity_and_nothing_else() {
        let (authority, now) = (Authority::new(generated(), SystemTime::now()).unwrap(), SystemTime::now());
        let key = KeyPair::generate().unwrap();
        let signed = authority.sign_workload(&key, &web(), Duration::from_secs(60), now).unwrap();
        assert_eq!(signed.chain.len(), 2, "the leaf and the issuing certificate");
        let leaf = parse(&signed.chain[0], "leaf").unwrap();
        assert_eq!(Identity::of_certificate(&signed.chain[0], "cluster.local").unwrap(), web());
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical && names.value.general_names.len() == 1 && leaf.subject().iter().next().is_none());
        assert!(!leaf.is_ca() && leaf.public_key().subject_public_key.data.as_ref() == key.der_bytes());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth);
        let again = authority.sign_workload(&key, &web(), Duration::from_secs(60), now).unwrap();
        assert_ne!(parse(&again.chain[0], "leaf").unwrap().raw_serial(), leaf.raw_serial());
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let authority = Authority::new(generated(), SystemTime::now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let sign = |lifetime, now| authority.sign_workload(&key, &web(), lifetime, now);
        let now = SystemTime::now();
        assert_eq!(sign(Duration::from_secs(100 * 365 * 86_400), now).unwrap().not_after, authority.not_after);
        let later = authority.not_after + Duration::from_secs(1);
        assert!(matches!(sign(Duration::from_secs(60), later), Err(SignError::Expired)));
    }

    #[test]
    fn a_root_may_sign_by_itself_and_others_may_be_trusted_beside_it() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let roots = root.clone() + &generated().roots;
        let material = Material { certificate: root, key: key.serialize_pem(), chain: String::new(), roots };
        let authority = Authority::new(material, SystemTime::now()).unwrap();
        assert_eq!(authority.roots().len(), 2);
        let leaf = KeyPair::generate().unwrap();
        let signed = authority.sign_workload(&leaf, &web(), Duration::from_secs(60), SystemTime::now()).unwrap();
        assert_eq!(signed.chain.len(), 1, "the root is with the roots");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (one, other) = (generated(), generated());
        let now = SystemTime::now();
        let refusal = |material: Material, now| Authority::new(material, now).unwrap_err();
        assert!(matches!(refusal(Material { key: other.key, ..one.clone() }, now), AuthorityError::Key));
        assert!(matches!(refusal(Material { roots: other.roots, ..one.clone() }, now), AuthorityError::Chain));
        assert!(matches!(
            refusal(Material { roots: String::new(), ..one.clone() }, now),
            AuthorityError::Empty("roots")
        ));
        assert!(matches!(refusal(Material { key: String::new(), ..one.clone() }, now), AuthorityError::Pem("key")));
        let late = now + AUTHORITY_LIFETIME + CLOCK_SKEW;
        assert!(matches!(refusal(one.clone(), late), AuthorityError::Time { .. }));
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().self_signed(&key).unwrap().pem();
        let of_leaf =
            Material { certificate: leaf.clone(), key: key.serialize_pem(), chain: String::new(), roots: leaf };
        assert!(matches!(refusal(of_leaf, now), AuthorityError::NotAnAuthority));
        assert!(!format!("{one:?} {:?}", Authority::new(one.clone(), now)).contains("PRIVATE"));
    }
}
