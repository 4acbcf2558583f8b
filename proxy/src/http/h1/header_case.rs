//! Writing the names of fields.

use bytes::{BufMut as _, BytesMut};
use http::HeaderName;

use crate::config::http_protocol::HeaderCase;

impl HeaderCase {
    pub(super) fn put(self, name: &HeaderName, out: &mut BytesMut) {
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

    #[test]
    fn words_begin_with_capitals() {
        let mut out = BytesMut::new();
        HeaderCase::ProperWords.put(&HeaderName::from_static("x-b3_trace-1a"), &mut out);
        assert_eq!(&out[..], b"X-B3_Trace-1a");
    }
}
