//! How a peer breaks HTTP/1's rules, and what is said about it. The words are Envoy's; access logs and dashboards know them.

use http::StatusCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.details())]
pub enum Violation {
    /// Not HTTP/1 by its grammar (RFC 9112 sections 3 to 5 and 7.1).
    Grammar,
    /// Control characters (RFC 9110 section 5.5).
    Characters,
    Target,
    /// A target with a fragment, which is not for servers (RFC 9110 section 4.2.5).
    Fragment,
    Scheme,
    Authority,
    TransferEncoding,
    LengthAndChunks,
    /// A CONNECT with a body (RFC 9110 section 9.3.6).
    BodyOfConnect,
    /// A response that has no body, with a length (RFC 9110 section 8.6).
    LengthOfBodiless,
    ConnectionField,
    Version,
    TooManyFields,
    FieldsTooLarge,
}

impl Violation {
    /// `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        match self {
            Violation::Grammar => "http1.codec_error",
            Violation::Characters => "http1.invalid_characters",
            Violation::Target => "http1.invalid_url",
            Violation::Fragment => "path_normalization_failed",
            Violation::Scheme => "http1.invalid_scheme",
            Violation::Authority => "http.invalid_authority",
            Violation::TransferEncoding => "http1.invalid_transfer_encoding",
            Violation::LengthAndChunks => "http1.content_length_and_chunked_not_allowed",
            Violation::BodyOfConnect => "http1.body_disallowed",
            Violation::LengthOfBodiless => "http1.content_length_not_allowed",
            Violation::ConnectionField => "http1.connection_header_rejected",
            Violation::Version => "low_version",
            Violation::TooManyFields => "http1.too_many_headers",
            Violation::FieldsTooLarge => "http1.headers_too_large",
        }
    }

    /// What a downstream is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Violation::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Violation::Version => StatusCode::UPGRADE_REQUIRED,
            Violation::TooManyFields | Violation::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Violation::Grammar
            | Violation::Characters
            | Violation::Target
            | Violation::Fragment
            | Violation::Scheme
            | Violation::Authority
            | Violation::LengthAndChunks
            | Violation::BodyOfConnect
            | Violation::LengthOfBodiless
            | Violation::ConnectionField => StatusCode::BAD_REQUEST,
        }
    }
}
