//! Writing the names of fields: in one way for all, or as the other side has written them.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Extensions, HeaderName};

use crate::config::http_protocol::{HeaderCase, PreserveCase};

/// How the names of one message are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    case: HeaderCase,
    original: Option<&'a Original>,
}

/// How a peer has written a message's names. Goes with its head, as an extension, to where it is written again.
#[derive(Clone, Debug)]
struct OriginalNames(Arc<Original>);

#[derive(Debug)]
struct Original {
    names: Vec<Bytes>,
    /// For names that are not among them.
    otherwise: HeaderCase,
    reason: Option<Bytes>,
}

/// Keeps what `parsed`, which are parts of `bytes`, says besides its meaning.
pub(super) fn keep(
    extensions: &mut Extensions,
    options: PreserveCase,
    bytes: &Bytes,
    parsed: &[httparse::Header<'_>],
    reason: Option<&str>,
) {
    let names = parsed.iter().map(|field| bytes.slice_ref(field.name.as_bytes())).collect();
    let reason = reason.filter(|_| options.forward_reason_phrase).map(|reason| bytes.slice_ref(reason.as_bytes()));
    extensions.insert(OriginalNames(Arc::new(Original { names, otherwise: options.otherwise, reason })));
}

impl<'a> Names<'a> {
    pub(super) fn of(case: HeaderCase, extensions: &'a Extensions) -> Names<'a> {
        Names { case, original: extensions.get::<OriginalNames>().map(|OriginalNames(original)| &**original) }
    }

    pub(super) fn put(self, name: &HeaderName, out: &mut BytesMut) {
        let Some(original) = self.original else { return self.case.put(name, out) };
        match original.names.iter().find(|given| given.eq_ignore_ascii_case(name.as_str().as_bytes())) {
            Some(given) => out.put_slice(given),
            None => original.otherwise.put(name, out),
        }
    }

    /// The phrase of the status line, where it is to be passed on.
    pub(super) fn reason(self) -> Option<&'a Bytes> {
        self.original?.reason.as_ref()
    }
}

impl From<HeaderCase> for Names<'_> {
    fn from(case: HeaderCase) -> Self {
        Names { case, original: None }
    }
}

impl HeaderCase {
    fn put(self, name: &HeaderName, out: &mut BytesMut) {
        match self {
            HeaderCase::Lower => out.put_slice(name.as_str().as_bytes()),
            HeaderCase::ProperWords => {
                let mut begins = true;
                for &byte in name.as_str().as_bytes() {
                    out.put_u8(if begins { byte.to_ascii_uppercase() } else { byte });
                    begins = !byte.is_ascii_alphanumeric();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(names: Names<'_>, name: &'static str) -> BytesMut {
        let mut out = BytesMut::new();
        names.put(&HeaderName::from_static(name), &mut out);
        out
    }

    #[test]
    fn words_begin_with_capitals() {
        assert_eq!(&written(HeaderCase::ProperWords.into(), "x-b3_trace-1a")[..], b"X-B3_Trace-1a");
    }

    #[test]
    fn names_are_written_as_they_came() {
        let bytes = Bytes::from_static(b"X-fOO: 1");
        let name = std::str::from_utf8(&bytes[..5]).expect("ASCII");
        let parsed = [httparse::Header { name, value: &bytes[7..] }];
        let mut extensions = Extensions::new();
        let options = PreserveCase { forward_reason_phrase: false, otherwise: HeaderCase::ProperWords };
        keep(&mut extensions, options, &bytes, &parsed, None);
        let names = Names::of(HeaderCase::Lower, &extensions);
        assert_eq!((&written(names, "x-foo")[..], &written(names, "x-bar")[..]), (&b"X-fOO"[..], &b"X-Bar"[..]));
        assert!(names.reason().is_none());
    }
}
