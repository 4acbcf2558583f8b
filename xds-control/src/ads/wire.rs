//! The two variants of xDS as messages: requests into what a session understands, its responses into messages.

use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as XdsResource,
};

use super::subscription::{Request, RequestNames, Response, Variant};
use crate::snapshot::version::Version;

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
    type Request: Send + 'static;
    type Response: Send + 'static;
    const VARIANT: Variant;

    fn incoming(request: Self::Request) -> Incoming;
    fn outgoing(response: Response) -> Self::Response;
}

pub struct StateOfTheWorld;
pub struct Delta;

// `version_info` of a request repeats what the nonce says, and a first request is answered whatever it claims to have:
// a client that was away may have kept less than it says. Locators (xdstp) are not offered, so none is honoured.

impl Wire for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
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

    fn outgoing(response: Response) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: response.version,
            resources: response.resources.iter().map(|resource| resource.body.clone()).collect(),
            type_url: response.kind.type_url().to_owned(),
            nonce: response.nonce,
            ..DiscoveryResponse::default()
        }
    }
}

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
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

    fn outgoing(response: Response) -> DeltaDiscoveryResponse {
        let resource = |resource: &std::sync::Arc<crate::translate::resource::Resource>| XdsResource {
            name: resource.name.to_string(),
            version: Version::of(resource).to_string(),
            resource: Some(resource.body.clone()),
            ..XdsResource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: response.version,
            resources: response.resources.iter().map(resource).collect(),
            type_url: response.kind.type_url().to_owned(),
            removed_resources: response.removed,
            nonce: response.nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}
