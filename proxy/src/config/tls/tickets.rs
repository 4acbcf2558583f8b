//! Session tickets: a client keeps its session itself, sealed by keys that several proxies may share. A ticket says when it
//! was made, and is not taken when it is too old.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use weft_xds::{FieldError, pb::envoy::config::core::v3::DataSource};

use crate::config::{data_source, field::Result};

/// As many bytes as in Envoy: a name of 16, and 64 of secrets.
pub(super) const KEY_BYTES: usize = 80;
const NAME_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
/// RFC 8446, section 4.6.1: a week at most.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// BoringSSL's.
pub(super) const LIFETIME: Duration = Duration::from_secs(2 * 3600);
const SESSIONS_MAX: usize = 256;

/// The first seals; all open.
#[derive(Clone)]
pub(super) struct TicketKeys(Arc<[TicketKey]>);

struct TicketKey {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl TicketKeys {
    pub(super) fn from_bytes(keys: &[Vec<u8>]) -> Result<Self> {
        let keys: Option<Vec<TicketKey>> = keys.iter().map(|bytes| TicketKey::new(bytes)).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys.into())),
            _ => Err(FieldError::new("keys", format!("a session ticket key must have {KEY_BYTES} bytes"))),
        }
    }

    pub(super) fn read(sources: Vec<DataSource>) -> Result<Vec<Vec<u8>>> {
        crate::config::field::each(sources, "keys", |source| {
            let bytes = data_source::read(source)?;
            match bytes.len() {
                KEY_BYTES => Ok(bytes),
                other => Err(FieldError::new("", format!("{KEY_BYTES} bytes are required, there are {other}"))),
            }
        })
    }

    /// Lives as long as the process.
    pub(super) fn random() -> Result<Self> {
        let mut bytes = vec![0; KEY_BYTES];
        rand::fill(&mut bytes).map_err(|_| FieldError::new("", "no random bytes"))?;
        Self::from_bytes(&[bytes])
    }

    pub(super) fn tickets(&self, lifetime: Duration) -> Arc<dyn ProducesTickets> {
        Arc::new(Tickets { keys: self.clone(), lifetime: lifetime.min(LIFETIME_MAX) })
    }
}

impl TicketKey {
    fn new(bytes: &[u8]) -> Option<Self> {
        let (name, secret) = bytes.split_at_checked(NAME_BYTES)?;
        if bytes.len() != KEY_BYTES {
            return None;
        }
        // 64 bytes are made of two keys in Envoy; the cipher here needs one of 32.
        let key = UnboundKey::new(&AES_256_GCM, digest::digest(&digest::SHA256, secret).as_ref()).ok()?;
        Some(Self { name: name.try_into().ok()?, key: LessSafeKey::new(key) })
    }
}

struct Tickets {
    keys: TicketKeys,
    lifetime: Duration,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets") // holds keys
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// Name, nonce, then sealed: the time and the session.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let TicketKey { name, key } = self.keys.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = [&now_s().to_be_bytes()[..], plain].concat();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let TicketKey { name, key } = self.keys.0.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(name), &mut opened).ok()?;
        unless_too_old(plain, self.lifetime)
    }
}

/// Sessions that the server keeps, for so long and no longer.
#[derive(Debug)]
pub(super) struct ExpiringSessions {
    sessions: Arc<ServerSessionMemoryCache>,
    lifetime: Duration,
}

impl ExpiringSessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { sessions: ServerSessionMemoryCache::new(SESSIONS_MAX), lifetime }
    }
}

impl StoresServerSessions for ExpiringSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(key, [&now_s().to_be_bytes()[..], &value].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        unless_too_old(&self.sessions.get(key)?, self.lifetime)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        unless_too_old(&self.sessions.take(key)?, self.lifetime)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// What stands behind the time when it was written.
fn unless_too_old(stamped: &[u8], lifetime: Duration) -> Option<Vec<u8>> {
    let (stamp, value) = stamped.split_at_checked(TIME_BYTES)?;
    let age = now_s().checked_sub(u64::from_be_bytes(stamp.try_into().ok()?))?;
    (age < lifetime.as_secs()).then(|| value.to_vec())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seeds: &[u8]) -> TicketKeys {
        let keys: Vec<Vec<u8>> = seeds.iter().map(|seed| vec![*seed; KEY_BYTES]).collect();
        TicketKeys::from_bytes(&keys).unwrap()
    }

    #[test]
    fn tickets_open_with_any_of_the_keys_and_only_unchanged() {
        let old = keys(&[1]).tickets(LIFETIME);
        let ticket = old.encrypt(b"session").unwrap();
        assert_ne!(old.encrypt(b"session").unwrap(), ticket, "every ticket has its own nonce");
        let rotated = keys(&[2, 1]).tickets(LIFETIME);
        assert_eq!(rotated.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(keys(&[2]).tickets(LIFETIME).decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(old.decrypt(&changed), None, "byte {at}");
            assert_eq!(old.decrypt(&ticket[..at]), None, "cut to {at}");
        }
    }

    #[test]
    fn old_tickets_and_sessions_are_not_taken() {
        let tickets = keys(&[1]).tickets(Duration::ZERO);
        assert_eq!(tickets.decrypt(&tickets.encrypt(b"session").unwrap()), None);
        let stamped = |age: u64| [&(now_s() - age).to_be_bytes()[..], b"session"].concat();
        assert_eq!(unless_too_old(&stamped(5), Duration::from_secs(60)).as_deref(), Some(&b"session"[..]));
        assert_eq!(unless_too_old(&stamped(60), Duration::from_secs(60)), None);
        let sessions = ExpiringSessions::new(LIFETIME);
        sessions.put(b"id".to_vec(), b"session".to_vec());
        assert_eq!(sessions.get(b"id").as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.take(b"id").as_deref(), Some(&b"session"[..]));
        assert_eq!(sessions.get(b"id"), None);
    }

    #[test]
    fn keys_are_as_long_as_envoys() {
        assert!(TicketKeys::from_bytes(&[vec![0; 79]]).is_err());
        assert!(TicketKeys::from_bytes(&[]).is_err());
    }
}
