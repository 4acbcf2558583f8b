use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;

struct Issuer {
    key: KeyPair,
    file: NamedTempFile,
}

impl Issuer {
    fn new() -> Self {
        let (key, mut file) = (KeyPair::generate().unwrap(), NamedTempFile::new().unwrap());
        let point = key.der_bytes();
        let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let secret = URL_SAFE_NO_PAD.encode(b"a secret that everybody knows, as it is in this file");
        let keys = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "one", "use": "sig", "alg": "ES256"},
            {"kty": "oct", "k": secret, "kid": "shared", "alg": "HS256"},
        ]});
        file.write_all(keys.to_string().as_bytes()).unwrap();
        Self { key, file }
    }

    fn rules(&self) -> TokenRules {
        TokenRules {
            jwks_file: self.file.path().to_owned(),
            audiences: vec!["istio-ca".to_owned(), "weft-ca".to_owned()],
            issuer: Some("https://kubernetes.default.svc".to_owned()),
            trust_domain: "cluster.local".to_owned(),
        }
    }

    fn sign(&self, key_id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: key_id.map(ToOwned::to_owned), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(self.key.serialized_der())).unwrap()
    }

    fn verify(&self, change: impl FnOnce(&mut Value)) -> Result<TokenProof, String> {
        let mut claims = claims();
        change(&mut claims);
        self.rules().verify(&self.sign(Some("one"), &claims)).map_err(|error| error.to_string())
    }
}

fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed() + seconds
}

fn claims() -> Value {
    json!({
        "aud": ["istio-ca"],
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:shop:web",
        "exp": in_seconds(600),
        "nbf": in_seconds(-10),
        "kubernetes.io": {"namespace": "shop", "pod": {"name": "web-0", "uid": "1"}, "serviceaccount": {"name": "web", "uid": "2"}},
    })
}

#[test]
fn a_token_speaks_for_its_service_account_and_pod() {
    let issuer = Issuer::new();
    let proof = issuer.verify(|_| {}).unwrap();
    assert_eq!(proof.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(proof.pod, Some(ObjectName::new("shop", "web-0")));
    let proof = issuer.verify(|claims| claims["aud"] = json!("weft-ca")).unwrap();
    assert_eq!(proof.identity.namespace, "shop");
    let without_key_id = issuer.sign(None, &claims());
    assert!(issuer.rules().verify(&without_key_id).is_ok());
}

#[test]
fn claims_that_are_not_for_us_are_refused() {
    let issuer = Issuer::new();
    let refusal = |field: &str, value: Value| issuer.verify(|claims| claims[field] = value).unwrap_err();
    assert!(refusal("aud", json!(["api"])).contains("InvalidAudience"));
    assert!(refusal("exp", json!(in_seconds(-60))).contains("ExpiredSignature"));
    assert!(refusal("nbf", json!(in_seconds(60))).contains("ImmatureSignature"));
    assert!(refusal("iss", json!("https://elsewhere")).contains("InvalidIssuer"));
    for field in ["aud", "exp", "iss", "sub"] {
        let missing = issuer.verify(|claims| _ = claims.as_object_mut().unwrap().remove(field)).unwrap_err();
        assert!(missing.contains(field), "{missing}");
    }
    for subject in ["", "web", "system:serviceaccount:shop", "system:node:n1", "system:serviceaccount:shop:web/ns/bank"]
    {
        assert!(refusal("sub", json!(subject)).contains("is no service account"), "{subject}");
    }
    let other = json!({"namespace": "bank", "serviceaccount": {"name": "web"}});
    assert!(refusal("kubernetes.io", other).contains("two service accounts"));
}

#[test]
fn signatures_of_others_are_refused() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let refusal = |token: &str| issuer.rules().verify(token).unwrap_err();
    assert!(matches!(refusal(&other.sign(Some("one"), &claims())), TokenError::Key));
    assert!(matches!(refusal(&issuer.sign(Some("two"), &claims())), TokenError::Key));
    let shared = EncodingKey::from_secret(b"a secret that everybody knows, as it is in this file");
    let header = Header { kid: Some("shared".to_owned()), ..Header::new(Algorithm::HS256) };
    assert!(matches!(refusal(&encode(&header, &claims(), &shared).unwrap()), TokenError::Algorithm(_)));
    let whole = issuer.sign(Some("one"), &claims());
    let parts = whole.split('.').collect::<Vec<_>>();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    refusal(&format!("{none}.{}.", parts[1]));
    refusal(&format!("{}.{}.", parts[0], parts[1]));
    let elsewhere = URL_SAFE_NO_PAD.encode(claims().to_string().replace("shop:web", "shop:admin"));
    assert!(matches!(refusal(&format!("{}.{elsewhere}.{}", parts[0], parts[2])), TokenError::Key));
    for text in ["", ".", "..", "a.b.c"] {
        assert!(matches!(refusal(text), TokenError::Form), "{text}");
    }
    assert!(matches!(refusal(&"x".repeat(TOKEN_BYTES_MAX + 1)), TokenError::Length));
}

#[test]
fn without_keys_nobody_is_let_in() {
    let issuer = Issuer::new();
    std::fs::write(issuer.file.path(), "{}").unwrap();
    assert!(matches!(issuer.rules().check_keys(), Err(TokenError::Keys { .. })));
    assert!(matches!(issuer.rules().verify(&issuer.sign(Some("one"), &claims())), Err(TokenError::Keys { .. })));
}
