//! `envoy.extensions.filters.http.basic_auth.v3.BasicAuth`: users and the hashes of their passwords.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderName, header};
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::DataSource,
        extensions::filters::http::basic_auth::v3::{BasicAuth as ProtoBasicAuth, BasicAuthPerRoute},
    },
};

use crate::config::{
    data_source,
    field::{Result, Within as _, required},
};

pub struct BasicAuth {
    pub users: Users,
    pub forward_username: Option<HeaderName>,
    /// Where the credentials stand.
    pub header: HeaderName,
    /// Requests without credentials pass.
    pub allow_missing: bool,
    pub emits_metadata: bool,
}

/// SHA-1 of passwords, by user. Neither is ever shown.
#[derive(Default)]
pub struct Users(HashMap<String, [u8; SHA1_BYTES]>);

const SHA1_BYTES: usize = 20;

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth").field("header", &self.header).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl BasicAuth {
    pub(super) fn from_proto(message: ProtoBasicAuth) -> Result<Self> {
        let ProtoBasicAuth {
            users,
            forward_username_header,
            authentication_header,
            allow_missing,
            emit_dynamic_metadata,
        } = message;
        if allow_missing && !emit_dynamic_metadata {
            // Otherwise nobody behind could tell who was let through unseen.
            return Err(FieldError::new("allow_missing", "emit_dynamic_metadata is required"));
        }
        Ok(Self {
            // Routes may have all of them.
            users: users.map(Users::read).transpose().within("users")?.unwrap_or_default(),
            forward_username: header_name(&forward_username_header).within("forward_username_header")?,
            header: header_name(&authentication_header)
                .within("authentication_header")?
                .unwrap_or(header::AUTHORIZATION),
            allow_missing,
            emits_metadata: emit_dynamic_metadata,
        })
    }

    pub(super) fn of_route(message: BasicAuthPerRoute) -> Result<Users> {
        let BasicAuthPerRoute { users } = message;
        Users::read(required(users, "users")?).within("users")
    }
}

fn header_name(name: &str) -> Result<Option<HeaderName>> {
    if name.is_empty() {
        return Ok(None);
    }
    HeaderName::from_bytes(name.as_bytes()).map(Some).map_err(|_| FieldError::new("", "not a header name"))
}

impl Users {
    fn read(source: DataSource) -> Result<Self> {
        let bytes = data_source::read(source)?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// htpasswd's lines, with SHA-1.
    fn parse(text: &str) -> Result<Self> {
        let refused = |reason: &str| FieldError::new("", format!("basic auth: {reason}"));
        let mut users = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let invalid = || refused("invalid htpasswd format, username:password is expected");
            let (name, hash) = line.split_once(':').ok_or_else(invalid)?;
            if name.is_empty() || hash.is_empty() {
                return Err(refused("empty user name or password"));
            }
            let digits =
                hash.strip_prefix("{SHA}").ok_or_else(|| refused("unsupported htpasswd format: please use {SHA}"))?;
            let hash = BASE64.decode(digits).ok().and_then(|hash| hash.try_into().ok());
            let hash = hash.ok_or_else(|| refused("invalid htpasswd format, invalid SHA hash length"))?;
            if users.insert(name.to_owned(), hash).is_some() {
                return Err(refused("duplicate users"));
            }
        }
        Ok(Self(users))
    }

    /// Takes as long for whoever is not known.
    pub fn has(&self, name: &str, password: &[u8]) -> bool {
        use aws_lc_rs::{constant_time, digest};
        let given = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
        let (known, is_known) = match self.0.get(name) {
            Some(hash) => (*hash, true),
            None => ([0; SHA1_BYTES], false),
        };
        constant_time::verify_slices_are_equal(&known, given.as_ref()).is_ok() && is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::refusal;

    #[test]
    fn users_are_known_by_the_hashes_of_their_passwords() {
        let users = Users::parse("# us\nuser1:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=\n\n").unwrap(); // test1
        assert!(users.has("user1", b"test1"));
        assert!(!users.has("user1", b"test2") && !users.has("user2", b"test1") && !users.has("", b""));
        assert_eq!(format!("{users:?}"), "Users(1)");
    }

    #[test]
    fn other_lines_are_refused() {
        for (text, reason) in [
            ("user", "invalid htpasswd format, username:password is expected"),
            (":{SHA}x", "empty user name or password"),
            ("user:", "empty user name or password"),
            ("user:$apr1$x", "unsupported htpasswd format: please use {SHA}"),
            ("user:{SHA}eA==", "invalid htpasswd format, invalid SHA hash length"),
            ("a:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=\na:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=", "duplicate users"),
        ] {
            assert_eq!(refusal(Users::parse(text)), format!("basic auth: {reason}"), "{text}");
        }
    }
}
