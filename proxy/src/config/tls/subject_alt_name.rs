//! The subject alternative names of an X.509 certificate (RFC 5280, sections 4.1 and 4.2.1.6).
//!
//! The certificate comes from a peer, after its chain was verified: signed bytes, and bytes nonetheless. Reading is by bounds
//! checked slices, forwards only; what is not as the RFC has it gives `None`, never a panic.

use std::net::IpAddr;

#[derive(Debug, PartialEq)]
pub(super) enum SubjectAltName<'a> {
    Email(&'a str),
    Dns(&'a str),
    Uri(&'a str),
    IpAddress(IpAddr),
}

/// Kinds of names that no matcher looks at are left out. None: not a certificate.
pub(super) fn subject_alt_names(certificate: &[u8]) -> Option<Vec<SubjectAltName<'_>>> {
    let certificate = Der(certificate).contents(SEQUENCE)?;
    let mut fields = Der(Der(certificate).contents(SEQUENCE)?);
    while !fields.0.is_empty() {
        let (tag, contents) = fields.next()?;
        if tag == EXTENSIONS {
            return from_extensions(Der(Der(contents).contents(SEQUENCE)?));
        }
    }
    Some(Vec::new())
}

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[3] EXPLICIT` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// `[1]`, `[2]`, `[6]` and `[7] IMPLICIT` of a GeneralName.
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const UNIFORM_RESOURCE_IDENTIFIER: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

fn from_extensions(mut extensions: Der<'_>) -> Option<Vec<SubjectAltName<'_>>> {
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        let (tag, contents) = extension.next()?;
        let value = if tag == BOOLEAN { extension.expect(OCTET_STRING)? } else { contents };
        return from_names(Der(Der(value).contents(SEQUENCE)?));
    }
    Some(Vec::new())
}

fn from_names(mut names: Der<'_>) -> Option<Vec<SubjectAltName<'_>>> {
    let mut found = Vec::new();
    while !names.0.is_empty() {
        let (tag, contents) = names.next()?;
        match tag {
            RFC822_NAME => found.push(SubjectAltName::Email(ascii(contents)?)),
            DNS_NAME => found.push(SubjectAltName::Dns(ascii(contents)?)),
            UNIFORM_RESOURCE_IDENTIFIER => found.push(SubjectAltName::Uri(ascii(contents)?)),
            IP_ADDRESS => found.push(SubjectAltName::IpAddress(ip_address(contents)?)),
            _ => {}
        }
    }
    Some(found)
}

/// An IA5String. A name with a zero byte in it has fooled many a matcher: refused.
fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii() && !text.contains('\0'))
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The rest of a series of DER elements, each with a tag of one byte.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and contents.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The long form: certificates stay far below four bytes of length.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, contents))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|&(found, _)| found == tag).map(|(_, contents)| contents)
    }

    /// The contents of the only element that is looked at.
    fn contents(mut self, tag: u8) -> Option<&'a [u8]> {
        self.expect(tag)
    }
}

#[cfg(test)]
mod tests;
