//! Who may see the debugging pages: whoever is on this machine, and whoever has the token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::{HeaderMap, header};

/// The token, read from its file at each question, so that it can be replaced.
#[derive(Clone, Debug)]
pub struct Access {
    token_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read the token in {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the token in {} is empty or longer than {TOKEN_BYTES_MAX} bytes", file.display())]
    Length { file: PathBuf },
}

/// Why a page is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("debugging pages are shown on loopback only (--debug-token-file opens them to holders of a token)")]
    Address,
    #[error("debugging pages are shown on loopback, or for \"Authorization: Bearer TOKEN\"")]
    Credentials,
    #[error("the token is not the right one")]
    Token,
}

const TOKEN_BYTES_MAX: usize = 4096;

impl Access {
    /// Fails where the file holds no token now; a file that goes bad later lets nobody in.
    pub fn new(token_file: Option<&Path>) -> Result<Self, AccessError> {
        if let Some(file) = token_file {
            let text =
                std::fs::read_to_string(file).map_err(|source| AccessError::Read { file: file.to_owned(), source })?;
            token(&text).ok_or_else(|| AccessError::Length { file: file.to_owned() })?;
        }
        Ok(Self { token_file: token_file.map(ToOwned::to_owned) })
    }

    pub fn check(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
        if peer.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        let file = self.token_file.as_ref().ok_or(Refusal::Address)?;
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return Err(Refusal::Credentials) };
        let (scheme, given) = given.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::Credentials)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Credentials);
        }
        // A few bytes, and rarely: not worth another thread.
        let text = std::fs::read_to_string(file).map_err(|_| Refusal::Token)?;
        let is_right = token(&text).is_some_and(|token| is_equal(token.as_bytes(), given.trim().as_bytes()));
        if is_right { Ok(()) } else { Err(Refusal::Token) }
    }
}

fn token(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|token| !token.is_empty() && token.len() <= TOKEN_BYTES_MAX)
}

/// In a time that says nothing of where they differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const REMOTE: ([u8; 4], u16) = ([10, 0, 0, 9], 4000);

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(header::AUTHORIZATION, HeaderValue::from_static(value)));
        headers
    }

    #[test]
    fn loopback_needs_nothing_and_others_nothing_helps_without_a_token() {
        let access = Access::new(None).unwrap();
        for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(access.check(peer.parse().unwrap(), &HeaderMap::new()), Ok(()), "{peer}");
        }
        assert_eq!(access.check(REMOTE.into(), &headers(&["Bearer x"])), Err(Refusal::Address));
    }

    #[test]
    fn others_need_the_token_as_the_file_has_it_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "open sesame\n").unwrap();
        let access = Access::new(Some(file.path())).unwrap();
        for right in ["Bearer open sesame", "bearer open sesame"] {
            assert_eq!(access.check(REMOTE.into(), &headers(&[right])), Ok(()), "{right}");
        }
        for (given, refusal) in [
            (&[][..], Refusal::Credentials),
            (&["Basic b3Blbg=="], Refusal::Credentials),
            (&["Bearer"], Refusal::Credentials),
            (&["Bearer open sesame", "Bearer open sesame"], Refusal::Credentials),
            (&["Bearer "], Refusal::Token),
            (&["Bearer open sesam"], Refusal::Token),
            (&["Bearer open sesamf"], Refusal::Token),
        ] {
            assert_eq!(access.check(REMOTE.into(), &headers(given)), Err(refusal), "{given:?}");
        }
        std::fs::write(file.path(), "other").unwrap();
        assert_eq!(access.check(REMOTE.into(), &headers(&["Bearer other"])), Ok(()));
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(access.check(REMOTE.into(), &headers(&["Bearer "])), Err(Refusal::Token));
    }

    #[test]
    fn a_file_without_a_token_is_refused_at_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Access::new(Some(file.path())), Err(AccessError::Length { .. })));
        assert!(matches!(Access::new(Some(Path::new("/nowhere"))), Err(AccessError::Read { .. })));
    }
}
