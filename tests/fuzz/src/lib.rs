//! What several targets share.

use std::time::SystemTime;

use bytes::BytesMut;
use weft_proxy::{
    args::UnknownFields,
    http::h1::chunked::{ChunkedDecoder, Decoded, TrailerLimits},
    xds::resource::{self, Known, Parcel, ResourceConfig},
};
use weft_xds::pb::{envoy::service::discovery::v3::DiscoveryResponse, google::protobuf::Any};

/// Decodes one resource of a kind, as out of an answer of the control plane.
pub fn decode<T: ResourceConfig>(bytes: &[u8]) {
    let any = Any { type_url: T::KIND.type_url().to_owned(), value: bytes.to_vec() };
    let answer = DiscoveryResponse { resources: vec![any], ..DiscoveryResponse::default() };
    for unknown_fields in [UnknownFields::Ignored, UnknownFields::Refused] {
        let parcel = Parcel::whole(answer.clone());
        let _ = resource::decode::<T>(parcel, &Known::nothing(), unknown_fields, SystemTime::UNIX_EPOCH);
    }
}

/// Reads a chunked body at once, and in two parts.
pub fn same_body_however_cut(bytes: &[u8], cut: usize) {
    let whole = read_body([bytes, b""]);
    let (front, back) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(read_body([front, back]), whole);
}

/// The body's data, and what came behind it; or that it breaks a rule.
fn read_body(parts: [&[u8]; 2]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let mut decoder = ChunkedDecoder::new(TrailerLimits { bytes_max: 8 * 1024, fields_max: 100 });
    let (mut input, mut data) = (BytesMut::new(), Vec::new());
    let mut has_ended = false;
    for part in parts {
        input.extend_from_slice(part);
        while !has_ended {
            match decoder.decode(&mut input).ok()? {
                Decoded::Data(piece) => data.extend_from_slice(&piece),
                Decoded::End(_) => has_ended = true,
                Decoded::More => break,
            }
        }
    }
    Some((data, has_ended.then(|| input.to_vec())))
}
