//! `envoy.config.route.v3.RedirectAction`: sends the caller elsewhere.

use http::StatusCode;
use weft_xds::{
    FieldError,
    pb::envoy::config::route::v3::{
        RedirectAction,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    },
};

use super::PathRewrite;
use crate::config::{
    field::{self, Result, Within as _},
    matcher::RegexRewrite,
    substitution::{self, Operator},
};

#[derive(Debug)]
pub struct Redirect {
    /// None: the request's own.
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: RedirectPath,
    pub status: StatusCode,
    pub strip_query: bool,
    /// A port of the request's host that no longer fits its scheme stays.
    pub keeps_port: bool,
}

#[derive(Debug)]
pub enum RedirectPath {
    /// The request's own.
    Same,
    /// With a query of its own, the request's is dropped.
    Replaced(String),
    Rewritten(PathRewrite),
    /// The whole of it, and its query; the request's own where it is empty.
    Format(Vec<Operator>),
}

impl Redirect {
    /// Of those who have to come by TLS.
    pub fn to_https() -> Self {
        Self {
            scheme: Some("https".to_owned()),
            host: None,
            port: None,
            path: RedirectPath::Same,
            status: StatusCode::MOVED_PERMANENTLY,
            strip_query: false,
            keeps_port: true,
        }
    }

    pub(crate) fn from_proto(message: RedirectAction) -> Result<Self> {
        let RedirectAction {
            host_redirect,
            port_redirect,
            response_code,
            strip_query,
            scheme_rewrite_specifier,
            path_rewrite_specifier,
        } = message;
        let scheme = match scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => Some(scheme),
            _ => None,
        };
        let path = match path_rewrite_specifier {
            None => RedirectPath::Same,
            Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => RedirectPath::Same,
            Some(PathRewriteSpecifier::PathRedirect(path)) => RedirectPath::Replaced(path),
            Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => RedirectPath::Rewritten(PathRewrite::Prefix(prefix)),
            Some(PathRewriteSpecifier::RegexRewrite(message)) => {
                let rewrite = RegexRewrite::from_proto(message).within("regex_rewrite")?;
                RedirectPath::Rewritten(PathRewrite::Regex(rewrite))
            }
            Some(PathRewriteSpecifier::PathRewrite(format)) if format.is_empty() => RedirectPath::Same,
            Some(PathRewriteSpecifier::PathRewrite(format)) => {
                RedirectPath::Format(substitution::parse(&format).within("path_rewrite")?)
            }
        };
        let status = match field::enumeration(response_code, "response_code")? {
            RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            RedirectResponseCode::Found => StatusCode::FOUND,
            RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
            RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        };
        let port = u16::try_from(port_redirect).map_err(|_| FieldError::new("port_redirect", "not a port number"))?;
        Ok(Self {
            scheme,
            host: Some(host_redirect).filter(|host| !host.is_empty()),
            port: Some(port).filter(|&port| port != 0),
            path,
            status,
            strip_query,
            keeps_port: false,
        })
    }
}
