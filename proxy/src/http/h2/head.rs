//! The fields of a header block into a request's or response's head, or trailers: RFC 9113 section 8, RFC 8441. Pure.
//!
//! What a head may not hold is found while it is put together; the first fault is kept, and the rest of the block is
//! still read for the sake of the compression state.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response, uri};

use super::{
    error::Malformed,
    hpack::{ENTRY_OVERHEAD, Field, Pseudo},
};

/// What a head may hold: bytes of names and values, and fields, the pseudo-header fields among them.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLimits {
    pub bytes_max: usize,
    pub count_max: usize,
}

/// A head in the making.
#[derive(Debug)]
pub struct Collector {
    limits: HeaderLimits,
    /// In the order of `Pseudo`.
    pseudo: [Option<Bytes>; 6],
    headers: HeaderMap,
    /// RFC 9113 section 8.2.3: one cookie field may come in pieces.
    cookies: Vec<HeaderValue>,
    content_length: Option<u64>,
    bytes: usize,
    count: usize,
    fault: Option<Malformed>,
}

/// A request as it goes on inside.
#[derive(Debug)]
pub struct RequestHead {
    pub parts: request::Parts,
    pub content_length: Option<u64>,
    /// RFC 8441: the head has been given the form of an HTTP/1 upgrade.
    pub is_extended_connect: bool,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub parts: response::Parts,
    pub content_length: Option<u64>,
}

/// Why a block is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    Malformed(Malformed),
    /// In order by the rules of HTTP/2, but naming what cannot be looked up.
    UnusableTarget,
}

impl From<Malformed> for RequestFault {
    fn from(fault: Malformed) -> Self {
        RequestFault::Malformed(fault)
    }
}

impl Collector {
    pub fn new(limits: HeaderLimits) -> Collector {
        Collector {
            limits,
            pseudo: Default::default(),
            headers: HeaderMap::new(),
            cookies: Vec::new(),
            content_length: None,
            bytes: 0,
            count: 0,
            fault: None,
        }
    }

    pub fn add(&mut self, field: Field, size: usize) {
        self.bytes += size - ENTRY_OVERHEAD;
        self.count += 1;
        if self.fault.is_some() {
            return;
        }
        self.fault = if self.bytes > self.limits.bytes_max {
            Some(Malformed::TooLarge)
        } else if self.count > self.limits.count_max {
            Some(Malformed::TooMany)
        } else {
            match field {
                Field::Invalid(_) => Some(Malformed::Field),
                Field::Pseudo(pseudo, value) => self.add_pseudo(pseudo, value).err(),
                Field::Header(name, value) => self.add_header(name, value).err(),
            }
        };
    }

    /// RFC 9113 section 8.3: once each, ahead of all other fields, and (section 8.3.1) not empty.
    fn add_pseudo(&mut self, pseudo: Pseudo, value: Bytes) -> Result<(), Malformed> {
        let has_begun = !self.headers.is_empty() || !self.cookies.is_empty();
        let slot = &mut self.pseudo[pseudo as usize];
        if has_begun || value.is_empty() || slot.is_some() {
            return Err(Malformed::Field);
        }
        *slot = Some(value);
        Ok(())
    }

    fn add_header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Malformed> {
        match name {
            header::COOKIE => {
                self.cookies.push(value);
                return Ok(());
            }
            // RFC 9113 section 8.2.2: HTTP/2 says none of this with fields.
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => return Err(Malformed::Field),
            header::TE if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => return Err(Malformed::Field),
            // Two would be two readings of where the message ends (RFC 9112 section 6.3), even if they agree.
            header::CONTENT_LENGTH => {
                let length = content_length(value.as_bytes()).ok_or(Malformed::Field)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Malformed::Field);
                }
            }
            header::HOST if value.is_empty() || self.headers.contains_key(header::HOST) => {
                return Err(Malformed::Field);
            }
            _ if name == "keep-alive" || name == "proxy-connection" => return Err(Malformed::Field),
            _ => {}
        }
        // The limit on fields is far below what a HeaderMap holds.
        self.headers.append(name, value);
        Ok(())
    }

    fn take(&mut self, pseudo: Pseudo) -> Option<Bytes> {
        self.pseudo[pseudo as usize].take()
    }

    fn joined_headers(&mut self) -> HeaderMap {
        match self.cookies.len() {
            0 => {}
            1 => self.headers.extend(self.cookies.pop().map(|cookie| (header::COOKIE, cookie))),
            _ => {
                let crumbs: Vec<&[u8]> = self.cookies.iter().map(HeaderValue::as_bytes).collect();
                let joined = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])));
                self.headers.insert(header::COOKIE, joined.expect("header values joined by text are one"));
            }
        }
        std::mem::take(&mut self.headers)
    }

    /// RFC 9113 section 8.3.1, RFC 8441 section 4.
    pub fn request(mut self, allows_extended_connect: bool) -> Result<RequestHead, RequestFault> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let protocol = self.take(Pseudo::Protocol);
        if self.pseudo[Pseudo::Status as usize].is_some() || protocol.is_some() && !allows_extended_connect {
            return Err(Malformed::Field.into());
        }
        let method = self.take(Pseudo::Method).ok_or(Malformed::Message)?;
        let method = Method::from_bytes(&method).map_err(|_| Malformed::Field)?;
        let target = self.target(&method, protocol.is_some())?;
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.headers = self.joined_headers();
        // The authority stands in the target.
        parts.headers.remove(header::HOST);
        parts.version = Version::HTTP_2;
        parts.uri = target.into_uri()?;
        let is_extended_connect = protocol.is_some();
        if let Some(protocol) = protocol {
            parts.method = Method::GET;
            let protocol = HeaderValue::from_maybe_shared(protocol).map_err(|_| Malformed::Field)?;
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        } else {
            parts.method = method;
        }
        Ok(RequestHead { content_length: self.content_length, parts, is_extended_connect })
    }

    fn target(&mut self, method: &Method, is_extended_connect: bool) -> Result<Target, Malformed> {
        let [scheme, path] = [Pseudo::Scheme, Pseudo::Path].map(|pseudo| self.take(pseudo));
        let authority = match self.take(Pseudo::Authority) {
            // RFC 9113 section 8.3.1: it goes before a Host field.
            Some(authority) => authority,
            None if is_extended_connect => return Err(Malformed::Message),
            None => {
                let host = self.headers.get(header::HOST).ok_or(Malformed::Message)?;
                Bytes::copy_from_slice(host.as_bytes())
            }
        };
        if !authority.iter().copied().all(is_authority_byte) {
            return Err(Malformed::Field);
        }
        if *method == Method::CONNECT && !is_extended_connect {
            // RFC 9113 section 8.5.
            return if scheme.is_some() || path.is_some() {
                Err(Malformed::Message)
            } else {
                Ok(Target { scheme: None, authority, path: None })
            };
        }
        if is_extended_connect && *method != Method::CONNECT {
            return Err(Malformed::Message);
        }
        let (Some(scheme), Some(path)) = (scheme, path) else { return Err(Malformed::Message) };
        let known = [&b"http"[..], b"https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let scheme = uri::Scheme::try_from(&*scheme).map_err(|_| Malformed::Field)?;
        if path.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return Err(Malformed::Field);
        }
        let is_asterisk = *path == *b"*" && *method == Method::OPTIONS;
        if known && !path.starts_with(b"/") && !is_asterisk {
            return Err(Malformed::Message);
        }
        Ok(Target { scheme: Some(scheme), authority, path: Some(path) })
    }

    /// RFC 9113 section 8.3.2.
    pub fn response(mut self) -> Result<ResponseHead, Malformed> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let status = self.take(Pseudo::Status).ok_or(Malformed::Message)?;
        if self.pseudo.iter().any(Option::is_some) || status.len() != 3 {
            return Err(Malformed::Field);
        }
        let status = StatusCode::from_bytes(&status).map_err(|_| Malformed::Field)?;
        // RFC 9113 section 8.6.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Malformed::Field);
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.headers = self.joined_headers();
        parts.version = Version::HTTP_2;
        parts.status = status;
        Ok(ResponseHead { parts, content_length: self.content_length })
    }

    /// RFC 9113 section 8.1: no pseudo-header fields; RFC 9110 section 6.5.1: nothing about framing.
    pub fn trailers(mut self) -> Result<HeaderMap, Malformed> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.pseudo.iter().any(Option::is_some) || self.content_length.is_some() {
            return Err(Malformed::Field);
        }
        Ok(self.joined_headers())
    }
}

/// The parts of a request's target.
struct Target {
    scheme: Option<uri::Scheme>,
    authority: Bytes,
    path: Option<Bytes>,
}

impl Target {
    fn into_uri(self) -> Result<Uri, RequestFault> {
        let unusable = RequestFault::UnusableTarget;
        if self.path.as_ref().is_some_and(|path| path.contains(&b'#')) {
            return Err(unusable); // RFC 9110 section 7.1: no fragment is part of a target
        }
        let mut parts = uri::Parts::default();
        parts.scheme = self.scheme;
        parts.authority = Some(uri::Authority::from_maybe_shared(self.authority).map_err(|_| unusable)?);
        parts.path_and_query = self.path.map(uri::PathAndQuery::from_maybe_shared).transpose().map_err(|_| unusable)?;
        Uri::from_parts(parts).map_err(|_| unusable)
    }
}

/// RFC 9110 section 8.6: digits and nothing else.
fn content_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// RFC 3986 section 3.2 without the user information, which RFC 9113 section 8.3.1 rules out.
fn is_authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

#[cfg(test)]
mod tests;
