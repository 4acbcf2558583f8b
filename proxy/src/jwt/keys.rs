//! A set of public keys, and the signatures that they verify. A key is used with the algorithms of its own type and no other,
//! and with nothing but its own algorithm where it names one: no token can choose how it is judged.

use aws_lc_rs::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, EcdsaVerificationAlgorithm,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, UnparsedPublicKey,
    },
};
use base64::Engine as _;
use serde_json::{Map, Value};

use super::{Failure, Token, token::BASE64_URL};

/// At least one.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

struct Key {
    /// Empty: of any key id.
    id: String,
    /// Empty: any that the type of the key has.
    algorithm: String,
    material: Material,
}

enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: &'static Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
    Octets(Vec<u8>),
}

struct Curve {
    name: &'static str,
    algorithm_name: &'static str,
    algorithm: &'static EcdsaVerificationAlgorithm,
    coordinate_bytes: usize,
}

const CURVES: &[Curve] = &[
    Curve { name: "P-256", algorithm_name: "ES256", algorithm: &ECDSA_P256_SHA256_FIXED, coordinate_bytes: 32 },
    Curve { name: "P-384", algorithm_name: "ES384", algorithm: &ECDSA_P384_SHA384_FIXED, coordinate_bytes: 48 },
    Curve { name: "P-521", algorithm_name: "ES512", algorithm: &ECDSA_P521_SHA512_FIXED, coordinate_bytes: 66 },
];
const ED25519_BYTES: usize = 32;
const ED25519_SIGNATURE_BYTES: usize = 64;

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive() // may hold a shared secret
    }
}

impl KeySet {
    /// A JWK set. Reading ends at the first key that is not understood; those before it count.
    pub fn parse(json: &[u8]) -> Result<KeySet, Failure> {
        let set: Map<String, Value> = serde_json::from_slice(json).map_err(|_| Failure::KeysNotJson)?;
        let listed = set.get("keys").ok_or(Failure::KeysMissing)?.as_array().ok_or(Failure::KeysNotList)?;
        let keys: Vec<Key> =
            listed.iter().filter_map(Value::as_object).map(Key::from_json).map_while(|key| key).collect();
        if keys.is_empty() { Err(Failure::NoValidKeys) } else { Ok(KeySet(keys)) }
    }

    /// Whether one of the keys has signed it.
    pub fn verify(&self, token: &Token) -> Result<(), Failure> {
        let mut failure = Failure::NoKeyMatches;
        for key in &self.0 {
            let is_other_id = !token.key_id.is_empty() && !key.id.is_empty() && key.id != token.key_id;
            if is_other_id || !key.algorithm.is_empty() && key.algorithm != token.algorithm {
                continue;
            }
            match key.material.verify(token) {
                Ok(()) => return Ok(()),
                Err(reason) => failure = reason,
            }
        }
        Err(failure)
    }
}

impl Key {
    /// None: it is not understood.
    fn from_json(fields: &Map<String, Value>) -> Option<Key> {
        let text = |name: &str| match fields.get(name) {
            None => Some(""),
            Some(value) => value.as_str(),
        };
        let bytes = |name: &str| BASE64_URL.decode(fields.get(name)?.as_str()?).ok().filter(|bytes| !bytes.is_empty());
        let algorithm = text("alg")?;
        let (prefixes, material): (&[&str], _) = match fields.get("kty")?.as_str()? {
            "RSA" => (&["RS", "PS"], Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? }),
            "EC" => (&["ES"], ec(algorithm, text("crv")?, bytes("x")?, bytes("y")?)?),
            "OKP" if text("crv")? == "Ed25519" => {
                (&["EdDSA"], Material::Ed25519(bytes("x").filter(|point| point.len() == ED25519_BYTES)?))
            }
            "oct" => (&["HS"], Material::Octets(bytes("k")?)),
            _ => return None,
        };
        if !algorithm.is_empty() && !prefixes.iter().any(|prefix| algorithm.starts_with(prefix)) {
            return None;
        }
        Some(Key { id: text("kid")?.to_owned(), algorithm: algorithm.to_owned(), material })
    }
}

/// By the curve's name or the algorithm's, which have to agree; P-256 where there is neither.
fn ec(algorithm: &str, curve: &str, x: Vec<u8>, y: Vec<u8>) -> Option<Material> {
    let curve = CURVES.iter().find(|known| {
        let is_curve = curve.is_empty() || known.name == curve;
        let is_algorithm = algorithm.is_empty() || known.algorithm_name == algorithm;
        is_curve && is_algorithm
    })?;
    // SEC 1, section 2.3.3: uncompressed.
    let mut point = vec![4];
    for coordinate in [x, y] {
        let padding = curve.coordinate_bytes.checked_sub(coordinate.len())?;
        point.extend(std::iter::repeat_n(0, padding));
        point.extend(coordinate);
    }
    Some(Material::Ec { curve, point })
}

impl Material {
    fn verify(&self, token: &Token) -> Result<(), Failure> {
        let (message, signed) = (token.signed.as_bytes(), &token.signature[..]);
        let verified = match self {
            Material::Rsa { modulus, exponent } => rsa_parameters(&token.algorithm).is_some_and(|parameters| {
                let exponent_start = exponent.iter().take_while(|byte| **byte == 0).count();
                let modulus_start = modulus.iter().take_while(|byte| **byte == 0).count();
                let key = PublicKeyComponents { n: &modulus[modulus_start..], e: &exponent[exponent_start..] };
                key.verify(parameters, message, signed).is_ok()
            }),
            Material::Ec { curve, point } => {
                curve.algorithm_name == token.algorithm
                    && UnparsedPublicKey::new(curve.algorithm, point).verify(message, signed).is_ok()
            }
            Material::Ed25519(_) if token.algorithm == "EdDSA" && signed.len() != ED25519_SIGNATURE_BYTES => {
                return Err(Failure::Ed25519SignatureLength);
            }
            Material::Ed25519(point) => {
                token.algorithm == "EdDSA" && UnparsedPublicKey::new(&ED25519, point).verify(message, signed).is_ok()
            }
            Material::Octets(secret) => hmac_algorithm(&token.algorithm)
                .is_some_and(|algorithm| hmac::verify(&hmac::Key::new(algorithm, secret), message, signed).is_ok()),
        };
        if verified { Ok(()) } else { Err(Failure::VerificationFails) }
    }
}

fn rsa_parameters(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn hmac_algorithm(algorithm: &str) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };

    use super::*;

    fn compact(header: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Token {
        let signed = format!("{}.{}", BASE64_URL.encode(header), BASE64_URL.encode("{}"));
        let signature = BASE64_URL.encode(sign(signed.as_bytes()));
        Token::parse(&format!("{signed}.{signature}")).expect("well formed")
    }

    fn ec_key() -> (EcdsaKeyPair, String) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let json = format!(
            r#"{{"kty":"EC","crv":"P-256","kid":"a","alg":"ES256","x":"{}","y":"{}"}}"#,
            BASE64_URL.encode(&point[1..33]),
            BASE64_URL.encode(&point[33..65])
        );
        (pair, json)
    }

    fn signed_by(pair: &EcdsaKeyPair, header: &str) -> Token {
        compact(header, |bytes| pair.sign(&SystemRandom::new(), bytes).expect("a signature").as_ref().to_vec())
    }

    #[test]
    fn a_key_verifies_what_it_signed_and_nothing_else() {
        let (pair, json) = ec_key();
        let (other_pair, other) = ec_key();
        let set = KeySet::parse(format!(r#"{{"keys":[{json}]}}"#).as_bytes()).expect("keys");
        assert_eq!(set.verify(&signed_by(&pair, r#"{"alg":"ES256","kid":"a"}"#)), Ok(()));
        assert_eq!(set.verify(&signed_by(&pair, r#"{"alg":"ES256"}"#)), Ok(()));
        assert_eq!(set.verify(&signed_by(&pair, r#"{"alg":"ES256","kid":"b"}"#)), Err(Failure::NoKeyMatches));
        assert_eq!(set.verify(&signed_by(&other_pair, r#"{"alg":"ES256"}"#)), Err(Failure::VerificationFails));
        let both = KeySet::parse(format!(r#"{{"keys":[{other},{json}]}}"#).as_bytes()).expect("keys");
        assert_eq!(both.verify(&signed_by(&pair, r#"{"alg":"ES256"}"#)), Ok(()), "the second key");
    }

    #[test]
    fn a_public_key_is_no_shared_secret() {
        let (pair, json) = ec_key();
        let set = KeySet::parse(format!(r#"{{"keys":[{}]}}"#, json.replace(r#""alg":"ES256","#, "")).as_bytes());
        let secret = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
        let forged = compact(r#"{"alg":"HS256"}"#, |bytes| hmac::sign(&secret, bytes).as_ref().to_vec());
        assert_eq!(set.expect("keys").verify(&forged), Err(Failure::VerificationFails));
    }

    #[test]
    fn shared_secrets_and_edwards_curves_are_known_too() {
        let set = KeySet::parse(br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).expect("keys");
        let key = hmac::Key::new(hmac::HMAC_SHA512, b"secret");
        let token = compact(r#"{"alg":"HS512"}"#, |bytes| hmac::sign(&key, bytes).as_ref().to_vec());
        assert_eq!(set.verify(&token), Ok(()));

        let pair = Ed25519KeyPair::generate().expect("a key");
        let x = BASE64_URL.encode(pair.public_key().as_ref());
        let json = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
        let set = KeySet::parse(json.as_bytes()).expect("keys");
        let token = compact(r#"{"alg":"EdDSA"}"#, |bytes| pair.sign(bytes).as_ref().to_vec());
        assert_eq!(set.verify(&token), Ok(()));
        let short = compact(r#"{"alg":"EdDSA"}"#, |_| vec![1; 63]);
        assert_eq!(set.verify(&short), Err(Failure::Ed25519SignatureLength));
    }

    #[test]
    fn sets_without_a_key_are_refused() {
        assert_eq!(KeySet::parse(b"x").map(|_| ()), Err(Failure::KeysNotJson));
        assert_eq!(KeySet::parse(b"{}").map(|_| ()), Err(Failure::KeysMissing));
        assert_eq!(KeySet::parse(br#"{"keys":{}}"#).map(|_| ()), Err(Failure::KeysNotList));
        for json in [
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES384","x":"AA","y":"AA"}]}"#,
            r#"{"keys":[{"kty":"RSA","alg":"ES256","n":"AQAB","e":"AQAB"}]}"#,
            r#"{"keys":[{"kty":"RSA","n":1,"e":"AQAB"}]}"#,
            r#"{"keys":[{"kty":"oct","k":"%"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"X25519","x":"AA"}]}"#,
        ] {
            assert_eq!(KeySet::parse(json.as_bytes()).map(|_| ()), Err(Failure::NoValidKeys), "{json}");
        }
    }
}
