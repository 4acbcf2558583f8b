//! Who is at the other end of a stream, by its own words. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost::Message as _;
use weft_xds::pb::envoy::config::core::v3 as xds;
use weft_xds::pb::google::protobuf::{Struct, value};

use crate::model::ObjectName;
use crate::model::mesh::{InboundConflict, Instance, Mesh};
use crate::model::topology::{Locality, Position};
use crate::snapshot::views::Viewpoint;
use crate::translate::{Interception, SidecarInputs};

/// A client of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Sidecar(SidecarNode),
    /// An application that speaks xDS itself, as gRPC's libraries do (gRPC A27): any id, listeners by name.
    Proxyless(ProxylessNode),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxylessNode {
    pub id: String,
    /// Where it says that it runs, by its metadata or an id of a sidecar's form; what is exported to some namespaces only
    /// is for those who say that they are of one.
    pub namespace: Option<String>,
    /// Where it says that it stands.
    pub position: Position,
}

impl Node {
    /// Ids with a tilde are of proxies and have to be right; all others are of applications.
    pub fn parse(node: Option<&xds::Node>) -> Result<Self, NodeError> {
        let message = node.filter(|node| !node.id.is_empty()).ok_or(NodeError::Missing)?;
        if message.id.len() > ID_BYTES_MAX {
            return Err(NodeError::Length);
        }
        let bytes = message.encoded_len();
        if bytes > NODE_BYTES_MAX {
            return Err(NodeError::Size(bytes));
        }
        let generator = message.metadata.as_ref().and_then(|metadata| text(metadata, "GENERATOR"));
        if !message.id.contains('~') || generator == Some("grpc") {
            let namespace = Claims::of(Some(message)).namespaces.pop();
            let (id, position) = (message.id.clone(), position(message));
            return Ok(Self::Proxyless(ProxylessNode { id, namespace, position }));
        }
        SidecarNode::parse(message).map(Self::Sidecar)
    }

    pub fn id(&self) -> &str {
        match self {
            Self::Sidecar(sidecar) => &sidecar.id,
            Self::Proxyless(application) => &application.id,
        }
    }

    /// The way that people name it: `NAME.NAMESPACE` of its pod, or its id.
    pub fn name(&self) -> String {
        match self {
            Self::Sidecar(sidecar) => format!("{}.{}", sidecar.pod.name, sidecar.pod.namespace),
            Self::Proxyless(application) => application.id.clone(),
        }
    }

    pub fn pod(&self) -> Option<&ObjectName> {
        match self {
            Self::Sidecar(sidecar) => Some(&sidecar.pod),
            Self::Proxyless(_) => None,
        }
    }
}

impl ProxylessNode {
    /// From where it looks at a mesh.
    pub fn viewpoint(&self) -> Viewpoint {
        Viewpoint { namespace: self.namespace.clone(), position: self.position.clone() }
    }
}

/// A sidecar, from a node id of the form `sidecar~IP~POD.NAMESPACE~DOMAIN` and its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarNode {
    /// The whole node id.
    pub id: String,
    pub pod: ObjectName,
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// Of its pod, as the pod was when the proxy started.
    pub labels: BTreeMap<String, String>,
    pub interception: Interception,
    /// Where it says that it stands; its pod in the mesh counts more.
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error("the first request of a stream must carry `node` with an `id`")]
    Missing,
    #[error("node.id is longer than {ID_BYTES_MAX} bytes")]
    Length,
    #[error("node is {0} bytes long, more than {NODE_BYTES_MAX}; its metadata most likely")]
    Size(usize),
    #[error("node.id {0:?} is not of the form sidecar~IP~POD.NAMESPACE~DOMAIN")]
    Form(String),
    #[error("node.id: {0:?} proxies are not served, only \"sidecar\"")]
    ProxyType(String),
    #[error("node.id: {0:?} is not an IP address")]
    Address(String),
    #[error("node.id: {0:?} is not of the form POD.NAMESPACE")]
    Pod(String),
    #[error("node.metadata.INTERCEPTION_MODE: {0:?} is not served, only REDIRECT and TPROXY")]
    Interception(String),
}

/// Ids stand in logs and errors.
const ID_BYTES_MAX: usize = 1024;
/// Labels and annotations of a pod, which agents put into the metadata, may have as much, and more in between.
const NODE_BYTES_MAX: usize = 1024 * 1024;

/// Which workload a client says it is, where it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// By its id, and by its metadata.
    pub namespaces: Vec<String>,
    pub service_account: Option<String>,
}

impl Claims {
    pub fn of(node: Option<&xds::Node>) -> Self {
        let Some(node) = node else { return Self::default() };
        let of_metadata =
            |key: &str| node.metadata.as_ref().and_then(|metadata| text(metadata, key)).map(ToOwned::to_owned);
        let pod = node.id.split('~').nth(2);
        let of_id = pod.and_then(|pod| pod.rsplit_once('.')).map(|(_, namespace)| namespace.to_owned());
        let namespaces = of_id.into_iter().chain(of_metadata("NAMESPACE")).collect();
        Self { namespaces, service_account: of_metadata("SERVICE_ACCOUNT") }
    }
}

impl SidecarNode {
    fn parse(node: &xds::Node) -> Result<Self, NodeError> {
        let parts = node.id.split('~').collect::<Vec<_>>();
        let &[proxy_type, address, pod, _domain] = parts.as_slice() else {
            return Err(NodeError::Form(node.id.clone()));
        };
        if proxy_type != "sidecar" {
            return Err(NodeError::ProxyType(proxy_type.to_owned()));
        }
        let address = address.parse::<IpAddr>().map_err(|_| NodeError::Address(address.to_owned()))?;
        // Names of pods may hold dots, names of namespaces don't.
        let (name, namespace) = pod
            .rsplit_once('.')
            .filter(|(name, namespace)| !name.is_empty() && !namespace.is_empty())
            .ok_or_else(|| NodeError::Pod(pod.to_owned()))?;
        let metadata = node.metadata.as_ref();
        let mut addresses = vec![address];
        let others = metadata.and_then(|metadata| text(metadata, "INSTANCE_IPS")).unwrap_or_default();
        for other in others.split(',').filter_map(|text| text.trim().parse().ok()) {
            if !addresses.contains(&other) {
                addresses.push(other);
            }
        }
        Ok(Self {
            id: node.id.clone(),
            pod: ObjectName::new(namespace, name),
            addresses,
            labels: metadata.map(labels).unwrap_or_default(),
            interception: metadata.map_or(Ok(Interception::Redirect), interception)?,
            position: position(node),
        })
    }

    /// From where it looks at a mesh.
    pub fn viewpoint(&self, mesh: &Mesh) -> Viewpoint {
        let position = mesh.position(&self.pod).unwrap_or_else(|| {
            let node = self.position.node.as_ref().and_then(|name| mesh.nodes.get(name));
            let locality = node.map_or_else(|| self.position.locality.clone(), |node| node.locality.clone());
            Position { node: self.position.node.clone(), locality }
        });
        Viewpoint { namespace: Some(self.pod.namespace.clone()), position }
    }

    /// What its configuration depends on in a mesh. Its pod may have addresses that it does not tell of.
    pub fn inputs(&self, mesh: &Mesh) -> (SidecarInputs, Vec<InboundConflict>) {
        let mut addresses = self.addresses.clone();
        let pod = mesh.workloads.get(&self.pod);
        for address in pod.map(|pod| pod.addresses.as_slice()).unwrap_or_default() {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let instance = Instance { name: &self.pod, addresses: &addresses, labels: &self.labels };
        let (inbound, conflicts) = mesh.inbound_ports(&instance);
        (SidecarInputs { addresses, inbound, interception: self.interception }, conflicts)
    }
}

fn text<'a>(metadata: &'a Struct, key: &str) -> Option<&'a str> {
    match metadata.fields.get(key)?.kind.as_ref()? {
        value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn interception(metadata: &Struct) -> Result<Interception, NodeError> {
    match text(metadata, "INTERCEPTION_MODE") {
        None | Some("" | "REDIRECT") => Ok(Interception::Redirect),
        Some("TPROXY") => Ok(Interception::Tproxy),
        Some(other) => Err(NodeError::Interception(other.chars().take(80).collect())),
    }
}

fn position(node: &xds::Node) -> Position {
    let locality = node
        .locality
        .as_ref()
        .map(|locality| Locality { region: locality.region.clone(), zone: locality.zone.clone() });
    let node = node.metadata.as_ref().and_then(|metadata| text(metadata, "NODE_NAME"));
    Position {
        node: node.filter(|name| !name.is_empty()).map(ToOwned::to_owned),
        locality: locality.unwrap_or_default(),
    }
}

fn labels(metadata: &Struct) -> BTreeMap<String, String> {
    let Some(value::Kind::StructValue(labels)) = metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref())
    else {
        return BTreeMap::new();
    };
    labels.fields.keys().filter_map(|key| Some((key.clone(), text(labels, key)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use weft_xds::pb::google::protobuf::Value;

    use super::*;

    fn node(id: &str) -> xds::Node {
        xds::Node { id: id.to_owned(), ..xds::Node::default() }
    }

    fn sidecar(node: &xds::Node) -> SidecarNode {
        match Node::parse(Some(node)).unwrap() {
            Node::Sidecar(sidecar) => sidecar,
            Node::Proxyless(application) => panic!("{application:?}"),
        }
    }

    fn string(text: &str) -> Value {
        Value { kind: Some(value::Kind::StringValue(text.to_owned())) }
    }

    #[test]
    fn a_sidecar_is_named_by_its_id() {
        let parsed = sidecar(&node("sidecar~10.0.0.1~web.v1-0.shop~shop.svc.cluster.local"));
        assert_eq!(parsed.pod, ObjectName::new("shop", "web.v1-0"));
        assert_eq!(parsed.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(Node::Sidecar(parsed).name(), "web.v1-0.shop");
    }

    #[test]
    fn metadata_adds_addresses_and_labels() {
        let mut node = node("sidecar~10.0.0.1~web.shop~d");
        let labels = Struct { fields: [("app".to_owned(), string("web")), ("n".to_owned(), Value::default())].into() };
        let labels = Value { kind: Some(value::Kind::StructValue(labels)) };
        let ips = string("10.0.0.1, fd00::1,nonsense");
        node.metadata =
            Some(Struct { fields: [("INSTANCE_IPS".to_owned(), ips), ("LABELS".to_owned(), labels)].into() });
        let parsed = sidecar(&node);
        assert_eq!(parsed.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(parsed.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    }

    #[test]
    fn metadata_and_locality_say_how_traffic_comes_and_where_it_stands() {
        let mut node = node("sidecar~10.0.0.1~web.shop~d");
        let fields = [("INTERCEPTION_MODE", string("TPROXY")), ("NODE_NAME", string("n1"))];
        let fields = fields.map(|(key, value)| (key.to_owned(), value)).into();
        node.metadata = Some(Struct { fields });
        node.locality = Some(xds::Locality { region: "r1".to_owned(), zone: "a".to_owned(), ..Default::default() });
        let parsed = sidecar(&node);
        assert_eq!(parsed.interception, Interception::Tproxy);
        let mut mesh = Mesh::default();
        let locality = |zone: &str| Locality { region: "r1".to_owned(), zone: zone.to_owned() };
        let told = Position { node: Some("n1".to_owned()), locality: locality("a") };
        assert_eq!(parsed.viewpoint(&mesh), Viewpoint { namespace: Some("shop".to_owned()), position: told });
        let known = crate::model::workload::Node { name: "n1".to_owned(), locality: locality("b") };
        mesh.nodes = std::sync::Arc::new([("n1".to_owned(), std::sync::Arc::new(known))].into());
        assert_eq!(parsed.viewpoint(&mesh).position.locality, locality("b"), "the node itself knows better");
    }

    #[test]
    fn a_mode_of_interception_that_is_not_served_is_refused() {
        let mut node = node("sidecar~10.0.0.1~web.shop~d");
        node.metadata = Some(Struct { fields: [("INTERCEPTION_MODE".to_owned(), string("NONE"))].into() });
        assert_eq!(Node::parse(Some(&node)), Err(NodeError::Interception("NONE".to_owned())));
    }

    #[test]
    fn applications_may_have_any_id() {
        let application = ProxylessNode { id: "my-app".to_owned(), namespace: None, position: Position::default() };
        assert_eq!(Node::parse(Some(&node("my-app"))), Ok(Node::Proxyless(application)));
        let mut grpc = node("sidecar~10.0.0.1~web.shop~d");
        grpc.metadata = Some(Struct { fields: [("GENERATOR".to_owned(), string("grpc"))].into() });
        let namespace = |node: &xds::Node| match Node::parse(Some(node)) {
            Ok(Node::Proxyless(application)) => application.namespace,
            other => panic!("{other:?}"),
        };
        assert_eq!(namespace(&grpc).as_deref(), Some("shop"));
        let fields = [("NAMESPACE".to_owned(), string("bank"))];
        let told = xds::Node { metadata: Some(Struct { fields: fields.into() }), ..node("my-app") };
        assert_eq!(namespace(&told).as_deref(), Some("bank"));
    }

    #[test]
    fn claims_are_of_the_id_and_of_the_metadata() {
        let mut node = node("sidecar~10.0.0.1~web.v1-0.shop~shop.svc.cluster.local");
        let fields = [("NAMESPACE", "other"), ("SERVICE_ACCOUNT", "web")];
        let fields = fields.map(|(key, value)| (key.to_owned(), string(value)));
        node.metadata = Some(Struct { fields: fields.into() });
        let expected =
            Claims { namespaces: vec!["shop".to_owned(), "other".to_owned()], service_account: Some("web".to_owned()) };
        assert_eq!(Claims::of(Some(&node)), expected);
        assert_eq!(Claims::of(None), Claims::default());
    }

    #[test]
    fn a_node_has_a_size() {
        let mut node = node("an-app");
        node.metadata = Some(Struct { fields: [("x".to_owned(), string(&"x".repeat(NODE_BYTES_MAX)))].into() });
        assert!(matches!(Node::parse(Some(&node)), Err(NodeError::Size(_))));
    }

    #[test]
    fn other_ids_are_refused_with_the_part_that_is_wrong() {
        let error = |id: &str| Node::parse(Some(&node(id))).unwrap_err();
        assert_eq!(Node::parse(None), Err(NodeError::Missing));
        assert_eq!(error(""), NodeError::Missing);
        assert_eq!(error("sidecar~web"), NodeError::Form("sidecar~web".to_owned()));
        assert_eq!(error("router~10.0.0.1~a.b~c"), NodeError::ProxyType("router".to_owned()));
        assert_eq!(error("sidecar~nowhere~a.b~c"), NodeError::Address("nowhere".to_owned()));
        assert_eq!(error("sidecar~10.0.0.1~pod~c"), NodeError::Pod("pod".to_owned()));
        assert_eq!(error(&"x".repeat(2000)), NodeError::Length);
    }
}
