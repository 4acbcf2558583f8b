//! Is it TLS, and for whom: the ClientHello (RFC 8446 section 4.1.2), however it is cut into records and segments.
//!
//! No handshake is done here, so a hello that asks for what no server would agree to still counts as TLS.

use std::borrow::Cow;

use crate::listener::inspect::Verdict;

/// What a ClientHello says that filter chains match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case (RFC 6066 section 3: names are compared without regard to case).
    pub server_name: Option<String>,
    /// The ALPN names offered (RFC 7301).
    pub application_protocols: Vec<String>,
}

/// More than this of a hello is never waited for.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

const RECORD_HEADER_BYTES: usize = 5;
const HANDSHAKE_HEADER_BYTES: usize = 4;
/// RFC 8446 section 5.1: 2^14, and what older versions' compression might add.
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
const CONTENT_TYPE_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const NAME_TYPE_HOST_NAME: u8 = 0;
const SERVER_NAME_BYTES_MAX: usize = 255;
const VERSION_TLS10: u16 = 0x0301;
const VERSION_TLS13: u16 = 0x0304;

/// `Done(None)`: not TLS.
pub fn inspect(seen: &[u8]) -> Verdict<Option<ClientHello>> {
    match handshake_bytes(seen) {
        Verdict::NeedMore => Verdict::NeedMore,
        Verdict::Done(None) => Verdict::Done(None),
        Verdict::Done(Some(message)) => Verdict::Done(read_hello(Reader(&message[HANDSHAKE_HEADER_BYTES..]))),
    }
}

/// The first handshake message, put together from its records. `Done(None)`: it is none, or not a ClientHello.
fn handshake_bytes(seen: &[u8]) -> Verdict<Option<Cow<'_, [u8]>>> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = seen;
    loop {
        // RFC 8446 section 5.1: handshake, legacy version 3.x. Told from the first bytes there are.
        if rest.first().is_some_and(|&kind| kind != CONTENT_TYPE_HANDSHAKE)
            || rest.get(1).is_some_and(|&major| major != 3)
        {
            return Verdict::Done(None);
        }
        let Some((header, body)) = rest.split_at_checked(RECORD_HEADER_BYTES) else { return Verdict::NeedMore };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Verdict::Done(None);
        }
        // A record counts only as a whole.
        let Some((fragment, after)) = body.split_at_checked(length) else { return Verdict::NeedMore };
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        match message_length(&message) {
            Some(None) => return Verdict::Done(None),
            Some(Some(whole)) if message.len() >= whole => {
                return Verdict::Done(Some(match message {
                    Cow::Borrowed(message) => Cow::Borrowed(&message[..whole]),
                    Cow::Owned(message) => Cow::Owned(message[..whole].to_vec()),
                }));
            }
            Some(Some(_)) | None => {}
        }
        rest = after;
    }
}

/// Of the message that begins so, with its header; `Some(None)`: no ClientHello. None: too few bytes to tell.
fn message_length(message: &[u8]) -> Option<Option<usize>> {
    if message.first().is_some_and(|&kind| kind != HANDSHAKE_CLIENT_HELLO) {
        return Some(None);
    }
    let header = message.get(..HANDSHAKE_HEADER_BYTES)?;
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    Some((length <= HELLO_BYTES_MAX).then_some(HANDSHAKE_HEADER_BYTES + length))
}

/// None: malformed.
fn read_hello(mut message: Reader<'_>) -> Option<ClientHello> {
    let legacy_version = message.u16()?;
    message.take(32)?; // random
    let session_id = message.vector_u8()?;
    let cipher_suites = message.vector_u16()?.0;
    let compression = message.vector_u8()?.0;
    let is_sound = session_id.0.len() <= 32
        && !cipher_suites.is_empty()
        && cipher_suites.len() % 2 == 0
        && compression.contains(&0); // "null", which every hello has to offer
    if !is_sound {
        return None;
    }
    let mut hello = ClientHello::default();
    let mut version = legacy_version;
    if !message.0.is_empty() {
        let mut extensions = message.vector_u16()?;
        if !message.0.is_empty() {
            return None;
        }
        let mut kinds = Vec::with_capacity(16);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.vector_u16()?;
            kinds.push(kind);
            match kind {
                EXTENSION_SERVER_NAME => hello.server_name = Some(read_server_name(content)?),
                EXTENSION_ALPN => hello.application_protocols = read_alpn(content)?,
                EXTENSION_SUPPORTED_VERSIONS => version = newest_version(content)?,
                _ => {}
            }
        }
        // RFC 8446 section 4.2: no extension twice. Sorted, so that thousands of empty ones cost no square.
        kinds.sort_unstable();
        if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
    }
    (version >= VERSION_TLS10).then_some(hello)
}

fn read_server_name(mut content: Reader<'_>) -> Option<String> {
    let mut names = content.vector_u16()?;
    let kind = names.u8()?;
    let name = names.vector_u16()?.0;
    let is_sound = content.0.is_empty()
        && names.0.is_empty()
        && kind == NAME_TYPE_HOST_NAME
        && !name.is_empty()
        && name.len() <= SERVER_NAME_BYTES_MAX
        && !name.contains(&0);
    is_sound.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn read_alpn(mut content: Reader<'_>) -> Option<Vec<String>> {
    let mut names = content.vector_u16()?;
    let mut protocols = Vec::new();
    while !names.0.is_empty() {
        let name = names.vector_u8()?.0;
        if name.is_empty() {
            return None;
        }
        protocols.push(String::from_utf8_lossy(name).into_owned());
    }
    (content.0.is_empty() && !protocols.is_empty()).then_some(protocols)
}

/// The newest one offered that is known; 0: none. Values that mean nothing (RFC 8701) are passed over.
fn newest_version(mut content: Reader<'_>) -> Option<u16> {
    let versions = content.vector_u8()?.0;
    if versions.is_empty() || versions.len() % 2 != 0 || !content.0.is_empty() {
        return None;
    }
    let offered = versions.chunks_exact(2).map(|version| u16::from_be_bytes([version[0], version[1]]));
    Some(offered.filter(|version| (VERSION_TLS10..=VERSION_TLS13).contains(version)).max().unwrap_or(0))
}

/// Reads from the front; None where there is too little.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector_u8(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.take(length.into()).map(Reader)
    }

    fn vector_u16(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(length.into()).map(Reader)
    }
}

#[cfg(test)]
mod tests;
