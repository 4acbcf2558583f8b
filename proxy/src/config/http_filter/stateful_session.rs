//! `envoy.filters.http.stateful_session`: requests of one session go to one host, which the client names.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::{
            filters::http::stateful_session::v3::{
                StatefulSession as Message, StatefulSessionPerRoute, stateful_session_per_route::Override,
            },
            http::stateful_session::{cookie::v3::CookieBasedSessionState, header::v3::HeaderBasedSessionState},
        },
        r#type::http::v3::{Cookie, CookieAttribute},
    },
};

use crate::config::{
    field::{self, Extension, Result, Within as _, refuse, required},
    route::HashCookie,
};

#[derive(Debug)]
pub struct StatefulSession {
    /// None: there are no sessions.
    pub state: Option<SessionState>,
    /// The named host or none.
    pub strict: bool,
    /// Where it is none.
    pub status_without_host: StatusCode,
}

/// Where the host stands.
#[derive(Debug)]
pub enum SessionState {
    Cookie(HashCookie),
    Header(HeaderName),
}

impl StatefulSession {
    pub(super) fn from_proto(message: Message) -> Result<Self> {
        let Message { session_state, strict, stat_prefix, status_on_strict_destination_not_found } = message;
        refuse!(stat_prefix);
        let status = match status_on_strict_destination_not_found {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            status => u16::try_from(status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .ok_or_else(|| FieldError::new("status_on_strict_destination_not_found", "not an HTTP status code"))?,
        };
        Ok(Self {
            state: session_state.map(SessionState::from_proto).transpose().within("session_state")?,
            strict,
            status_without_host: if strict { status } else { StatusCode::SERVICE_UNAVAILABLE },
        })
    }

    /// Of a route. None: it is off there.
    pub(super) fn from_override(message: StatefulSessionPerRoute) -> Result<Option<Arc<Self>>> {
        let StatefulSessionPerRoute { r#override } = message;
        match required(r#override, "override")? {
            Override::Disabled(_) => Ok(None),
            Override::StatefulSession(message) => {
                Self::from_proto(message).within("stateful_session").map(|session| Some(Arc::new(session)))
            }
        }
    }
}

impl SessionState {
    fn from_proto(message: TypedExtensionConfig) -> Result<Self> {
        let TypedExtensionConfig { name: _, typed_config } = message;
        let extension = Extension::new(required(typed_config, "typed_config")?)?;
        if extension.is::<CookieBasedSessionState>() {
            let CookieBasedSessionState { cookie } = extension.unpack()?;
            let cookie = required(cookie, "typed_config.cookie")?;
            cookie_from_proto(cookie).within("typed_config.cookie").map(Self::Cookie)
        } else if extension.is::<HeaderBasedSessionState>() {
            let HeaderBasedSessionState { name } = extension.unpack()?;
            let name = HeaderName::from_bytes(name.as_bytes());
            name.map(Self::Header).map_err(|_| FieldError::new("typed_config.name", "not a header name"))
        } else {
            Err(extension.unsupported())
        }
    }
}

fn cookie_from_proto(message: Cookie) -> Result<HashCookie> {
    let Cookie { name, ttl, path, attributes } = message;
    Ok(HashCookie {
        name,
        ttl: field::duration(ttl, "ttl")?.filter(|ttl| *ttl >= Duration::from_secs(1)),
        path,
        attributes: attributes.into_iter().map(|CookieAttribute { name, value }| (name, value)).collect(),
    })
}
