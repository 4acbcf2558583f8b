//! What several targets share.

use std::time::SystemTime;

use weft_proxy::xds::resource::{self, Known, ResourceConfig};
use weft_xds::pb::{envoy::service::discovery::v3::DiscoveryResponse, google::protobuf::Any};

/// Decodes one resource of a kind, as out of an answer of the control plane.
pub fn decode<T: ResourceConfig>(bytes: &[u8]) {
    let any = Any { type_url: T::KIND.type_url().to_owned(), value: bytes.to_vec() };
    let mut answer = DiscoveryResponse { resources: vec![any], ..DiscoveryResponse::default() };
    let _ = resource::decode::<T>(&mut answer, &Known::nothing(), SystemTime::UNIX_EPOCH);
}
