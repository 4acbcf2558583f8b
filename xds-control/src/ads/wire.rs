//! The two variants of xDS as messages: requests into what a session understands.

use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::subscription::{Request, RequestNames, Variant};

/// A request of either variant.
#[derive(Debug)]
pub struct Incoming {
    pub node: Option<Node>,
    /// Empty where a per-type service implies it.
    pub type_url: String,
    pub request: Request,
}

/// One variant of the protocol.
pub trait Wire: Send + 'static {
    type Request: prost::Message + Default + 'static;
    const VARIANT: Variant;

    fn incoming(request: Self::Request) -> Incoming;
}

pub struct StateOfTheWorld;
pub struct Delta;

// `version_info` of a request repeats what the nonce says, and a first request is answered whatever it claims to have:
// a client that was away may have kept less than it says. Locators (xdstp) are not offered, so none is honoured.

impl Wire for StateOfTheWorld {
    type Request = DiscoveryRequest;
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn incoming(request: DiscoveryRequest) -> Incoming {
        let DiscoveryRequest {
            version_info: _,
            node,
            resource_names,
            resource_locators: _,
            type_url,
            response_nonce,
            error_detail,
        } = request;
        let error = error_detail.map(|status| status.message);
        Incoming {
            node,
            type_url,
            request: Request { nonce: response_nonce, error, names: RequestNames::All(resource_names) },
        }
    }
}

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    const VARIANT: Variant = Variant::Delta;

    fn incoming(request: DeltaDiscoveryRequest) -> Incoming {
        let DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            resource_locators_subscribe: _,
            resource_locators_unsubscribe: _,
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        let names = RequestNames::Delta {
            subscribe: resource_names_subscribe,
            unsubscribe: resource_names_unsubscribe,
            initial_versions: initial_resource_versions,
        };
        let error = error_detail.map(|status| status.message);
        Incoming { node, type_url, request: Request { nonce: response_nonce, error, names } }
    }
}
