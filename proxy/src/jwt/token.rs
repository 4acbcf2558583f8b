//! One token, taken apart.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use super::Failure;

/// Well formed; nothing of it is proven yet.
#[derive(Debug)]
pub struct Token {
    pub algorithm: String,
    pub key_id: String,
    pub header: Map<String, Value>,
    pub payload: Map<String, Value>,
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    /// Seconds since 1970.
    pub not_before_s: Option<u64>,
    pub expiration_s: Option<u64>,
    /// As it stands in the token.
    pub payload_base64: String,
    /// What the signature is of.
    pub(super) signed: String,
    pub(super) signature: Vec<u8>,
}

/// Without padding or with it.
pub(super) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const ALGORITHMS: &[&str] = &[
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

impl Token {
    pub fn parse(text: &str) -> Result<Token, Failure> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload_base64), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Failure::BadFormat);
        };
        if header.is_empty() || payload_base64.is_empty() || signature.is_empty() {
            return Err(Failure::BadFormat);
        }
        let signed_length = header.len() + 1 + payload_base64.len();
        let bytes = BASE64_URL.decode(header).map_err(|_| Failure::HeaderNotBase64)?;
        let header: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| Failure::HeaderNotJson)?;
        let algorithm = text_of(&header, "alg").filter(|text| !text.is_empty()).ok_or(Failure::HeaderBadAlgorithm)?;
        if !ALGORITHMS.contains(&algorithm) {
            return Err(Failure::HeaderUnknownAlgorithm);
        }
        let key_id = optional_text(&header, "kid", Failure::HeaderBadKeyId)?;
        let bytes = BASE64_URL.decode(payload_base64).map_err(|_| Failure::PayloadNotBase64)?;
        let payload: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| Failure::PayloadNotJson)?;
        let seconds = |claim, not_integer, out_of_range| optional_seconds(&payload, claim, not_integer, out_of_range);
        let issuer = optional_text(&payload, "iss", Failure::IssuerNotText)?;
        let subject = optional_text(&payload, "sub", Failure::SubjectNotText)?;
        seconds("iat", Failure::IssuedAtNotInteger, Failure::IssuedAtOutOfRange)?;
        let not_before_s = seconds("nbf", Failure::NotBeforeNotInteger, Failure::NotBeforeOutOfRange)?;
        let expiration_s = seconds("exp", Failure::ExpirationNotInteger, Failure::ExpirationOutOfRange)?;
        optional_text(&payload, "jti", Failure::IdNotText)?;
        let audiences = audiences(&payload)?;
        let signature = BASE64_URL.decode(signature).map_err(|_| Failure::SignatureNotBase64)?;
        Ok(Token {
            algorithm: algorithm.to_owned(),
            key_id,
            issuer,
            subject,
            audiences,
            not_before_s,
            expiration_s,
            payload_base64: payload_base64.to_owned(),
            signed: text[..signed_length].to_owned(),
            signature,
            header,
            payload,
        })
    }

    pub fn check_time(&self, now_s: u64, clock_skew_s: u64) -> Result<(), Failure> {
        if self.not_before_s.is_some_and(|not_before| now_s.saturating_add(clock_skew_s) < not_before) {
            return Err(Failure::NotYetValid);
        }
        if self.expiration_s.is_some_and(|expiration| now_s > expiration.saturating_add(clock_skew_s)) {
            return Err(Failure::Expired);
        }
        Ok(())
    }

    /// Whether it is for one of these; for anybody, where there are none. Neither scheme nor trailing slash counts.
    pub fn is_for(&self, allowed: &[String]) -> bool {
        let is_allowed = |audience: &String| allowed.iter().any(|allowed| bare(allowed) == bare(audience));
        allowed.is_empty() || self.audiences.iter().any(is_allowed)
    }

    /// A claim within claims, by the names on the way.
    pub fn claim<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        let mut path = path.into_iter();
        let first = self.payload.get(path.next()?)?;
        path.try_fold(first, |value, name| value.as_object()?.get(name))
    }
}

fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

fn text_of<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// Empty where it is not there.
fn optional_text(fields: &Map<String, Value>, name: &str, failure: Failure) -> Result<String, Failure> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(failure),
    }
}

fn optional_seconds(
    fields: &Map<String, Value>,
    name: &str,
    not_integer: Failure,
    out_of_range: Failure,
) -> Result<Option<u64>, Failure> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().ok_or(not_integer)?;
            if !(0.0..u64::MAX as f64).contains(&seconds) {
                return Err(out_of_range);
            }
            Ok(Some(seconds as u64))
        }
        Some(_) => Err(not_integer),
    }
}

fn audiences(payload: &Map<String, Value>) -> Result<Vec<String>, Failure> {
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.clone()]),
        Some(Value::Array(audiences)) => {
            let texts = audiences.iter().map(|audience| audience.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or(Failure::AudienceNotText)
        }
        Some(_) => Err(Failure::AudienceNotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", BASE64_URL.encode(header), BASE64_URL.encode(payload))
    }

    #[test]
    fn a_token_is_taken_apart() {
        let payload = r#"{"iss":"i","sub":"s","aud":["a","b"],"exp":10,"nbf":5.5,"n":{"m":[1]}}"#;
        let text = compact(r#"{"alg":"ES256","kid":"k"}"#, payload);
        let token = Token::parse(&text).expect("well formed");
        assert_eq!((&*token.algorithm, &*token.key_id, &*token.issuer, &*token.subject), ("ES256", "k", "i", "s"));
        assert_eq!((token.expiration_s, token.not_before_s), (Some(10), Some(5)));
        assert_eq!((&*token.audiences, &*token.signature), (&["a".to_owned(), "b".to_owned()][..], &b"sig"[..]));
        assert_eq!(token.signed, text.rsplit_once('.').expect("dots").0);
        assert_eq!(token.claim(["n", "m"]), Some(&serde_json::json!([1])));
        assert_eq!((token.claim(["n", "x"]), token.claim(["iss", "x"])), (None, None));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let header = r#"{"alg":"ES256"}"#;
        for (text, failure) in [
            ("".to_owned(), Failure::BadFormat),
            ("a.b".to_owned(), Failure::BadFormat),
            ("a.b.c.d".to_owned(), Failure::BadFormat),
            ("a.b.".to_owned(), Failure::BadFormat),
            (".b.c".to_owned(), Failure::BadFormat),
            ("%.b.c".to_owned(), Failure::HeaderNotBase64),
            (compact("x", "{}"), Failure::HeaderNotJson),
            (compact("{}", "{}"), Failure::HeaderBadAlgorithm),
            (compact(r#"{"alg":1}"#, "{}"), Failure::HeaderBadAlgorithm),
            (compact(r#"{"alg":"none"}"#, "{}"), Failure::HeaderUnknownAlgorithm),
            (compact(r#"{"alg":"ES256","kid":1}"#, "{}"), Failure::HeaderBadKeyId),
            (compact(header, "[]"), Failure::PayloadNotJson),
            (compact(header, r#"{"iss":1}"#), Failure::IssuerNotText),
            (compact(header, r#"{"sub":1}"#), Failure::SubjectNotText),
            (compact(header, r#"{"exp":"1"}"#), Failure::ExpirationNotInteger),
            (compact(header, r#"{"exp":-1}"#), Failure::ExpirationOutOfRange),
            (compact(header, r#"{"nbf":1e30}"#), Failure::NotBeforeOutOfRange),
            (compact(header, r#"{"aud":{}}"#), Failure::AudienceNotText),
            (compact(header, r#"{"aud":[1]}"#), Failure::AudienceNotText),
            (format!("{}.{}.%", BASE64_URL.encode(header), BASE64_URL.encode("{}")), Failure::SignatureNotBase64),
        ] {
            assert_eq!(Token::parse(&text).map(|_| ()), Err(failure), "{text}");
        }
    }

    #[test]
    fn times_have_a_margin() {
        let token = Token::parse(&compact(r#"{"alg":"ES256"}"#, r#"{"exp":100,"nbf":50}"#)).expect("well formed");
        assert_eq!(token.check_time(49, 0), Err(Failure::NotYetValid));
        assert_eq!((token.check_time(49, 1), token.check_time(100, 0)), (Ok(()), Ok(())));
        assert_eq!((token.check_time(101, 0), token.check_time(160, 60)), (Err(Failure::Expired), Ok(())));
        let forever = Token::parse(&compact(r#"{"alg":"ES256"}"#, "{}")).expect("well formed");
        assert_eq!(forever.check_time(u64::MAX, u64::MAX), Ok(()));
    }

    #[test]
    fn audiences_are_compared_without_scheme_and_slash() {
        let token = Token::parse(&compact(r#"{"alg":"ES256"}"#, r#"{"aud":"https://a.test/"}"#)).expect("well formed");
        let allowed = |names: &[&str]| token.is_for(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(allowed(&[]) && allowed(&["a.test"]) && allowed(&["x", "http://a.test"]));
        assert!(!allowed(&["b.test"]) && !allowed(&["A.test"]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-zA-Z0-9._=-]{0,120}") {
            let _ = Token::parse(&text);
        }
    }
}
