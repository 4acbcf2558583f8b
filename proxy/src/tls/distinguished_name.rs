//! Distinguished names as RFC 2253 writes them, which is how Envoy shows subjects and issuers.

use x509_parser::{
    der_parser::asn1_rs::Tag,
    x509::{AttributeTypeAndValue, X509Name},
};

/// The most specific part first. None: a part's value is no string.
pub(super) fn write(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let attributes: Option<Vec<String>> = relative.iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// The most specific one.
pub(super) fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().last().and_then(value)
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let id = attribute.attr_type().to_id_string();
    match SHORT_NAMES.iter().find(|(known, _)| *known == id) {
        Some((_, short)) => Some(format!("{short}={}", escaped(&value(attribute)?))),
        // Section 2.4: of a type without a name, the encoded value in hexadecimal digits.
        None => {
            let any = attribute.attr_value();
            let tag = u8::try_from(any.tag().0).ok()?;
            let length = match any.data.len() {
                length @ 0..=0x7f => vec![length as u8],
                length @ 0x80..=0xff => vec![0x81, length as u8],
                length => vec![0x82, (length >> 8) as u8, length as u8],
            };
            let encoded = [&[tag][..], &length, any.data].concat();
            Some(format!("{id}=#{}", super::certificate::hex(&encoded).to_ascii_uppercase()))
        }
    }
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let any = attribute.attr_value();
    match any.tag() {
        Tag::BmpString => {
            let units = any.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::Utf8String => std::str::from_utf8(any.data).ok().map(str::to_owned),
        // The rest are ASCII, or what people took for it.
        _ => Some(any.data.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// Section 2.4; bytes beyond ASCII as `\XX` of their UTF-8.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let is_edge = at == 0 || at == last;
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', character]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if is_edge => out.push_str("\\ "),
            ' '..='~' => out.push(character),
            other => {
                for byte in other.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
    out
}

/// OpenSSL's short names.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_escaped() {
        assert_eq!(escaped("a,b+c\"d\\e<f>g;h"), "a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h");
        assert_eq!(escaped("# a #"), "\\# a #");
        assert_eq!((escaped(" a b "), escaped("é")), ("\\ a b\\ ".into(), "\\C3\\A9".into()));
        assert_eq!(escaped("a\nCN=b"), "a\\0ACN=b");
    }
}
