//! Why a token, or the keys to judge it by, will not do.

macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident $code:literal $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Failure {
            $($(#[$doc])* #[error($text)] $name,)*
        }
        impl Failure {
            /// As Envoy numbers them, for metadata.
            pub fn code(self) -> u32 {
                match self {
                    $(Failure::$name => $code,)*
                }
            }
        }
    };
}

failures! {
    Missing 1 "Jwt is missing",
    NotYetValid 2 "Jwt not yet valid",
    Expired 3 "Jwt is expired",
    BadFormat 4 "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    HeaderNotBase64 5 "Jwt header is an invalid Base64url encoded",
    HeaderNotJson 6 "Jwt header is an invalid JSON",
    HeaderBadAlgorithm 7 "Jwt header [alg] field is required and must be a string",
    HeaderUnknownAlgorithm 8 "Jwt header [alg] is not supported",
    HeaderBadKeyId 9 "Jwt header [kid] field is not a string",
    PayloadNotBase64 10 "Jwt payload is an invalid Base64url encoded",
    Ed25519SignatureLength 11 "Jwt ED25519 signature is wrong length",
    PayloadNotJson 12 "Jwt payload is an invalid JSON",
    IssuerNotText 13 "Jwt payload [iss] field is not a string",
    SubjectNotText 14 "Jwt payload [sub] field is not a string",
    IssuedAtNotInteger 15 "Jwt payload [iat] field is not an integer",
    IssuedAtOutOfRange 16 "Jwt payload [iat] field is not a positive 64 bit integer",
    NotBeforeNotInteger 17 "Jwt payload [nbf] field is not an integer",
    NotBeforeOutOfRange 18 "Jwt payload [nbf] field is not a positive 64 bit integer",
    ExpirationNotInteger 19 "Jwt payload [exp] field is not an integer",
    ExpirationOutOfRange 20 "Jwt payload [exp] field is not a positive 64 bit integer",
    IdNotText 21 "Jwt payload [jti] field is not a string",
    AudienceNotText 22 "Jwt payload [aud] field is not a string or string list",
    SignatureNotBase64 23 "Jwt signature is an invalid Base64url encoded",
    UnknownIssuer 24 "Jwt issuer is not configured",
    AudienceNotAllowed 25 "Audiences in Jwt are not allowed",
    VerificationFails 26 "Jwt verification fails",
    KeysNotJson 30 "Jwks is an invalid JSON",
    KeysMissing 31 "Jwks does not have [keys] field",
    KeysNotList 32 "[keys] in Jwks is not an array",
    NoValidKeys 33 "Jwks doesn't have any valid public key",
    NoKeyMatches 34 "Jwks doesn't have key to match kid or alg from Jwt",
    FetchFailed 42 "Jwks remote fetch is failed",
}
