//! What several targets share.

use std::time::SystemTime;

use weft_proxy::{
    args::UnknownFields,
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
