//! `envoy.filters.http.basic_auth`: lets requests through that carry a user's name and password (RFC 7617).

use std::sync::Arc;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Passing, override_of, realm, stats::count};
use crate::{
    config::{
        http_filter::{BasicAuth, RouteFilter},
        metadata::{Fields, Value},
    },
    http::{local_reply::LocalReply, response_flags::ResponseFlags},
    stats::{BasicAuthStat, GroupStats},
};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn request(
    name: &str,
    config: &BasicAuth,
    stats: Option<&GroupStats<BasicAuthStat>>,
    passing: &mut Passing<'_>,
) -> Result<(), LocalReply> {
    let users = match override_of(passing.route, name) {
        Some(RouteFilter::BasicAuth(users)) => users,
        _ => &config.users,
    };
    let exchange = passing.exchange;
    // Only this filter says who it is.
    if let Some(header) = &config.forward_username {
        passing.head.headers.remove(header);
    }
    let credentials = match credentials(&config.header, passing) {
        Err(Missing::Header | Missing::Scheme) if config.allow_missing => None,
        Err(missing) => {
            count(stats, exchange, BasicAuthStat::Denied);
            return Err(missing.refusal(&realm(passing.head)));
        }
        Ok((user, password)) if users.has(&user, &password) => Some(user),
        Ok(_) => {
            count(stats, exchange, BasicAuthStat::Denied);
            return Err(Missing::User.refusal(&realm(passing.head)));
        }
    };
    count(stats, exchange, BasicAuthStat::Allowed);
    let Some(user) = credentials else { return Ok(()) };
    if let Some(header) = &config.forward_username
        && let Ok(value) = HeaderValue::try_from(&user)
    {
        passing.head.headers.insert(header.clone(), value);
    }
    if config.emits_metadata {
        let fields = Fields::from_iter([(Arc::from("username"), Value::Text(user.into()))]);
        exchange.metadata.borrow_mut().merge(name, fields);
    }
    Ok(())
}

/// What a request lacks.
#[derive(Clone, Copy)]
enum Missing {
    Header,
    Scheme,
    Colon,
    User,
}

impl Missing {
    fn refusal(self, realm: &str) -> LocalReply {
        let (reason, details) = match self {
            Missing::Header => ("Missing username and password.", "no_credential_for_basic_auth"),
            Missing::Scheme => ("Expected 'Basic' authentication scheme.", "invalid_scheme_for_basic_auth"),
            Missing::Colon => ("Invalid basic credential format.", "invalid_format_for_basic_auth"),
            Missing::User => ("Invalid username/password combination.", "invalid_credential_for_basic_auth"),
        };
        let mut reply = LocalReply::new(StatusCode::UNAUTHORIZED, ResponseFlags::default(), details);
        if let Ok(value) = HeaderValue::try_from(format!("Basic realm=\"{realm}\"")) {
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        reply.with_body(format!("User authentication failed. {reason}"))
    }
}

fn credentials(name: &HeaderName, passing: &Passing<'_>) -> Result<(String, Vec<u8>), Missing> {
    let value = passing.head.headers.get(name).ok_or(Missing::Header)?;
    let text = value.to_str().map_err(|_| Missing::Scheme)?;
    let encoded = text.strip_prefix("Basic ").ok_or(Missing::Scheme)?;
    let decoded = BASE64.decode(encoded).map_err(|_| Missing::Colon)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Missing::Colon)?;
    let user = String::from_utf8(decoded[..colon].to_vec()).map_err(|_| Missing::User)?;
    Ok((user, decoded[colon + 1..].to_vec()))
}
