//! `SubjectAltNameMatcher`: what names a peer's certificate has to have, pure.

use weft_xds::{
    FieldError,
    pb::envoy::extensions::transport_sockets::tls::v3::{
        SubjectAltNameMatcher as ProtoSubjectAltNameMatcher, subject_alt_name_matcher::SanType,
    },
};

use crate::{
    config::{
        field::{self, Result, Within as _, refuse, required},
        matcher::{StringMatcher, StringPattern},
    },
    tls::CertificateFacts,
};

#[derive(Debug)]
pub struct SubjectAltNameMatcher {
    name_type: NameType,
    matcher: StringMatcher,
}

#[derive(Debug)]
enum NameType {
    Email,
    Dns,
    Uri,
    IpAddress,
    /// Of this type.
    Other(String),
}

impl SubjectAltNameMatcher {
    pub(crate) fn from_proto(message: ProtoSubjectAltNameMatcher) -> Result<Self> {
        let ProtoSubjectAltNameMatcher { san_type, matcher, oid } = message;
        let name_type = match field::enumeration(san_type, "san_type")? {
            SanType::Email => NameType::Email,
            SanType::Dns => NameType::Dns,
            SanType::Uri => NameType::Uri,
            SanType::IpAddress => NameType::IpAddress,
            SanType::OtherName if is_object_identifier(&oid) => NameType::Other(oid.clone()),
            SanType::OtherName => return Err(FieldError::new("oid", "not an object identifier")),
            SanType::Unspecified => return Err(FieldError::new("san_type", "a type is required")),
        };
        if !matches!(name_type, NameType::Other(_)) {
            refuse!(oid);
        }
        let matcher = StringMatcher::from_proto(required(matcher, "matcher")?).within("matcher")?;
        Ok(Self { name_type, matcher })
    }

    /// Whether any of its names of the type will do.
    pub fn matches(&self, certificate: &CertificateFacts) -> bool {
        let matcher = &self.matcher;
        match &self.name_type {
            NameType::Email => certificate.email_names.iter().any(|name| matcher.matches(name)),
            NameType::Uri => certificate.uri_names.iter().any(|name| matcher.matches(name)),
            NameType::Dns => certificate.dns_names.iter().any(|name| match &matcher.pattern {
                StringPattern::Exact(host) => dns_name_matches(name, host),
                _ => matcher.matches(name),
            }),
            NameType::IpAddress => certificate.ip_names.iter().any(|address| matcher.matches(&address.to_string())),
            NameType::Other(type_id) => {
                let of_type = certificate.other_names.iter().filter(|name| name.type_id == *type_id);
                of_type.into_iter().any(|name| matcher.matches(&name.value))
            }
        }
    }
}

/// A certificate's DNS name against a host: without regard to case, and `*` stands for one whole leftmost label (RFC 6125,
/// section 6.4.3).
pub(super) fn dns_name_matches(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(suffix), Some((label, rest))) => !label.is_empty() && suffix.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

/// Dotted decimals, such as `1.3.6.1.4.1.311.20.2.3`.
fn is_object_identifier(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.contains('.') && text.split('.').all(is_number)
}
