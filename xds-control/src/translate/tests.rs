//! Golden files: what sidecars are sent for a small mesh, as Envoy's own JSON in YAML's clothes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use weft_xds::json::{FieldNames, any_to_value};

use super::*;
use crate::ads::node::Node;
use crate::ads::stream::snapshot_of;
use crate::model::registry::Registry;
use crate::snapshot::service_resources::Work;
use crate::snapshot::shared::{Conflict, Shared, Translator};
use crate::snapshot::{Snapshot, consistency};
use crate::source::manifests::Folder;
use crate::translate::resource::Kind;

fn settings() -> MeshSettings {
    MeshSettings {
        cluster_domain: "cluster.local".to_owned(),
        outbound_policy: OutboundPolicy::AllowAny,
        load_balancing: LoadBalancing::LeastRequest,
        access_log: None,
        detection_timeout: Duration::from_millis(100),
    }
}

fn shared(manifests: &str, settings: MeshSettings) -> Shared {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("mesh.yaml"), manifests).unwrap();
    let mut folder = Folder::new(temp.path().to_owned());
    let changes = folder.rescan(&HashSet::new()).unwrap();
    assert_eq!(folder.problems().map(|problem| problem.to_string()).collect::<Vec<_>>(), [""; 0]);
    let mut registry = Registry::default();
    changes.inserted.into_iter().for_each(|object| registry.insert(object));
    Translator::new(Arc::new(settings)).update(&registry.publish()).shared
}

fn node(id: &str) -> Node {
    let node = weft_xds::pb::envoy::config::core::v3::Node { id: id.to_owned(), ..Default::default() };
    Node::parse(Some(&node)).unwrap()
}

/// The resources of a kind as text.
fn render(snapshot: &Snapshot, kind: Kind) -> String {
    let mut text = String::new();
    for resource in snapshot.view(kind).iter() {
        let value = any_to_value(&resource.any(), FieldNames::Proto).unwrap();
        let yaml = serde_saphyr::to_string(&value).unwrap();
        writeln!(text, "--- # {}\n{yaml}", resource.name).unwrap();
    }
    text
}

const MESH: &str = include_str!("../../tests/fixtures/mesh.yaml");

fn snapshot(settings: MeshSettings) -> Snapshot {
    snapshot_of(&node("sidecar~10.244.0.10~reviews-v1-0.shop~shop.svc.cluster.local"), &shared(MESH, settings))
}

#[test]
fn clusters() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Cluster));
}

#[test]
fn endpoints() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Endpoints));
}

#[test]
fn listeners() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Listener));
}

#[test]
fn routes() {
    insta::assert_snapshot!(render(&snapshot(settings()), Kind::Route));
}

#[test]
fn an_application_without_sidecar() {
    let shared = shared(MESH, settings());
    let snapshot = snapshot_of(&node("an-app"), &shared);
    let listeners = snapshot.view(Kind::Listener);
    assert!(listeners.lookup("reviews.shop.svc.cluster.local:9090").is_some());
    assert!(listeners.lookup("reviews.shop:9090").is_some());
    assert!(listeners.lookup("reviews.shop:6379").is_none(), "no requests are routed there");
    let of_grpc = |kind: Kind| {
        let text = render(&snapshot, kind);
        text.split_inclusive("\n--- ").filter(|part| part.contains("9090")).collect::<String>()
    };
    insta::assert_snapshot!(format!("{}{}", of_grpc(Kind::Listener), of_grpc(Kind::Cluster)));
}

#[test]
fn every_reference_leads_somewhere() {
    assert_eq!(consistency::check(&snapshot(settings())).unwrap(), []);
    assert_eq!(consistency::check(&snapshot_of(&node("an-app"), &shared(MESH, settings()))).unwrap(), []);
    assert_eq!(consistency::check(&snapshot_of(&node(REACH_CLIENT), &shared(REACH, settings()))).unwrap(), []);
}

#[test]
fn everything_obeys_the_rules_of_its_messages() {
    use weft_xds::any::unpack_valid;
    use weft_xds::pb::envoy::config::{cluster, endpoint, listener, route};
    let reach = snapshot_of(&node(REACH_CLIENT), &shared(REACH, settings()));
    let both = [snapshot(settings()), reach];
    for (snapshot, kind) in both.iter().flat_map(|snapshot| Kind::ALL.map(|kind| (snapshot, kind))) {
        for resource in snapshot.view(kind).iter() {
            let body = &resource.any();
            match kind {
                Kind::Cluster => _ = unpack_valid::<cluster::v3::Cluster>(body).unwrap(),
                Kind::Endpoints => _ = unpack_valid::<endpoint::v3::ClusterLoadAssignment>(body).unwrap(),
                Kind::Listener => _ = unpack_valid::<listener::v3::Listener>(body).unwrap(),
                Kind::Route => _ = unpack_valid::<route::v3::RouteConfiguration>(body).unwrap(),
                Kind::Secret | Kind::ExtensionConfig => panic!("{body:?}"),
            }
        }
    }
}

#[test]
fn settings_change_what_they_say() {
    let strict = MeshSettings {
        outbound_policy: OutboundPolicy::RegistryOnly,
        load_balancing: LoadBalancing::RoundRobin,
        access_log: Some(AccessLog { file: "/dev/stdout".to_owned(), format: AccessLogFormat::Default }),
        ..settings()
    };
    let snapshot = snapshot(strict);
    assert!(!render(&snapshot, Kind::Cluster).contains("LEAST_REQUEST"));
    let listeners = render(&snapshot, Kind::Listener);
    assert!(!listeners.contains("cluster: PassthroughCluster"));
    assert!(listeners.contains("path: /dev/stdout"));
}

#[test]
fn a_pod_of_both_families_is_reached_by_both() {
    let shared = shared(MESH, settings());
    let snapshot = snapshot_of(&node("sidecar~10.244.0.11~dual-0.shop~shop.svc.cluster.local"), &shared);
    let outbound =
        any_to_value(&snapshot.view(Kind::Listener).lookup("virtualOutbound").unwrap().any(), FieldNames::Proto);
    let outbound = outbound.unwrap();
    assert_eq!(outbound["address"]["socket_address"]["address"], "0.0.0.0");
    assert_eq!(outbound["additional_addresses"][0]["address"]["socket_address"]["address"], "::");
    let passthrough = snapshot.view(Kind::Cluster).lookup("InboundPassthroughCluster").unwrap().clone();
    let passthrough = any_to_value(&passthrough.any(), FieldNames::Proto).unwrap();
    assert_eq!(passthrough["upstream_bind_config"]["source_address"]["address"], "127.0.0.6");
    assert_eq!(passthrough["upstream_bind_config"]["extra_source_addresses"][0]["address"]["address"], "::6");
}

/// What `/debug/registry` and the log tell of.
fn conflicts(manifests: &str) -> (Shared, Vec<String>) {
    let shared = shared(manifests, settings());
    let text = |conflict: &Conflict| format!("{}: {}, not {}", conflict.listener, conflict.kept, conflict.refused);
    let conflicts = shared.conflicts.iter().map(text).collect();
    (shared, conflicts)
}

#[test]
fn of_two_services_at_one_address_the_older_keeps_it() {
    let service = |name: &str, created: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, {created}}}, spec: {{clusterIP: 10.0.0.1, ports: [{{port: 80, name: http}}]}}}}\n---\n"
        )
    };
    for (b, kept, refused) in [("", "a", "b"), ("creationTimestamp: 2026-01-01T00:00:00Z", "b", "a")] {
        let (shared, conflicts) = conflicts(&format!("{}{}", service("b", b), service("a", "")));
        assert_eq!(conflicts, [format!("10.0.0.1_80: default/{kept}, not default/{refused}")]);
        let snapshot = snapshot_of(&node("an-app"), &shared);
        assert!(snapshot.view(Kind::Listener).lookup(&format!("{refused}.default:80")).is_some(), "told apart by name");
        let snapshot = Snapshot { shared: shared.sets, ..Snapshot::default() };
        let listener = snapshot.view(Kind::Listener).lookup("10.0.0.1_80").unwrap().clone();
        assert_eq!(
            consistency::references(&listener).unwrap(),
            [(Kind::Route, format!("outbound|80||{kept}.default.svc.cluster.local"))]
        );
    }
}

#[test]
fn of_two_headless_services_with_one_pod_the_older_keeps_it_unless_they_agree() {
    let service = |name: &str, port: &str, created: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, {created}}}, spec: {{clusterIP: None, selector: {{app: a}}, ports: [{{port: 80, name: {port}}}]}}}}\n---\n"
        )
    };
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: a}}, spec: {containers: []}, status: {podIP: 10.0.0.9}}";
    let created = "creationTimestamp: 2026-01-01T00:00:00Z";
    let (_, none) = conflicts(&format!("{}{}{pod}", service("a", "http", ""), service("b", "http2", "")));
    assert_eq!(none, ["*_80: default/a, not default/b"], "one speaks HTTP/1.1 to it, the other HTTP/2");
    let (_, none) = conflicts(&format!("{}{}{pod}", service("a", "http", ""), service("b", "http", "")));
    assert_eq!(none, [""; 0]);
    let (shared, bytes_lose) = conflicts(&format!("{}{}{pod}", service("a", "http", ""), service("b", "tcp", "")));
    assert_eq!(bytes_lose, ["*_80: default/a, not default/b"]);
    assert!(!render_shared(&shared, Kind::Listener).contains("outbound|80||b."));
    let (shared, bytes_win) = conflicts(&format!("{}{}{pod}", service("a", "http", ""), service("b", "tcp", created)));
    assert_eq!(bytes_win, ["*_80: default/b, not default/a"]);
    assert!(render_shared(&shared, Kind::Listener).contains("cluster: outbound|80||b."));
    assert!(!render_shared(&shared, Kind::Route).contains("10.0.0.9"));
}

fn render_shared(shared: &Shared, kind: Kind) -> String {
    render(&Snapshot { shared: shared.sets.clone(), ..Snapshot::default() }, kind)
}

const REACH: &str = include_str!("../../tests/fixtures/reach.yaml");
const REACH_CLIENT: &str = "sidecar~10.244.0.50~client.shop~shop.svc.cluster.local";

/// Resources whose names contain one of these, of one kind.
fn golden_of(node_id: &str, kind: Kind, wanted: &[&str]) -> String {
    let snapshot = snapshot_of(&node(node_id), &shared(REACH, settings()));
    let text = render(&snapshot, kind);
    let is_wanted = |part: &&str| {
        let name = part.lines().next().unwrap_or_default();
        wanted.iter().any(|wanted| name.contains(wanted))
    };
    text.split("--- # ").filter(is_wanted).map(|part| format!("--- # {part}")).collect()
}

#[test]
fn services_without_an_address_share_a_listener_a_port() {
    insta::assert_snapshot!(golden_of(
        REACH_CLIENT,
        Kind::Listener,
        &["0.0.0.0_5432", "0.0.0.0_8080", "0.0.0.0_9999", "0.0.0.0_443"]
    ));
}

#[test]
fn services_without_an_address_are_told_apart_by_host() {
    insta::assert_snapshot!(golden_of(REACH_CLIENT, Kind::Route, &["8080", "9999"]));
}

#[test]
fn services_without_an_address_have_clusters_without_endpoints() {
    insta::assert_snapshot!(golden_of(REACH_CLIENT, Kind::Cluster, &["||db", "||payments"]));
    assert_eq!(golden_of(REACH_CLIENT, Kind::Endpoints, &["||db", "||payments"]), "");
}

#[test]
fn clients_that_stay_with_an_endpoint_are_hashed() {
    let of = |kind: Kind| golden_of(REACH_CLIENT, kind, &["||sticky", "10.96.0.20_90"]);
    insta::assert_snapshot!([of(Kind::Cluster), of(Kind::Listener), of(Kind::Route)].concat());
}

#[test]
fn endpoints_are_ranked_by_where_a_client_stands() {
    insta::assert_snapshot!(golden_of(REACH_CLIENT, Kind::Endpoints, &["||near", "||local"]));
    let elsewhere = golden_of("sidecar~10.244.9.9~stranger.shop~d", Kind::Endpoints, &["||near", "||local"]);
    assert!(
        !elsewhere.contains("priority") && elsewhere.contains("10.244.0.31") && !elsewhere.contains("10.244.0.40"),
        "{elsewhere}"
    );
}

#[test]
fn clients_of_grpc_are_sent_near_endpoints_too() {
    let mut node = weft_xds::pb::envoy::config::core::v3::Node { id: "an-app".to_owned(), ..Default::default() };
    node.locality =
        Some(weft_xds::pb::envoy::config::core::v3::Locality { zone: "zone-b".to_owned(), ..Default::default() });
    let shared = shared(REACH, settings());
    let snapshot = snapshot_of(&Node::parse(Some(&node)).unwrap(), &shared);
    assert_eq!(consistency::check(&snapshot).unwrap(), []);
    let near = snapshot.view(Kind::Endpoints).lookup("outbound|80||near.shop.svc.cluster.local").unwrap().clone();
    let near = any_to_value(&near.any(), FieldNames::Proto).unwrap();
    assert_eq!(near["endpoints"][0]["locality"]["zone"], "zone-b");
    assert_eq!(near["endpoints"][1]["priority"], 1);
    let clusters = render(&snapshot, Kind::Cluster);
    assert!(clusters.contains("type: LOGICAL_DNS") && clusters.contains("lb_policy: RING_HASH"), "{clusters}");
}

#[test]
fn what_is_exported_to_some_is_seen_by_them_alone() {
    let shared = shared(REACH, settings());
    let sees = |id: &str| {
        let snapshot = snapshot_of(&node(id), &shared);
        assert_eq!(consistency::check(&snapshot).unwrap(), [], "{id}");
        snapshot.view(Kind::Listener).lookup("10.96.0.23_80").is_some()
    };
    assert!(sees(REACH_CLIENT));
    assert!(!sees("sidecar~10.244.9.9~client.other~d"));
}

#[test]
fn what_is_exported_to_some_is_seen_by_clients_of_grpc_among_them() {
    use weft_xds::pb::google::protobuf::{Struct, Value, value};
    let shared = shared(REACH, settings());
    let sees = |namespace: Option<&str>| {
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        let fields = namespace.map(|namespace| ("NAMESPACE".to_owned(), text(namespace))).into_iter().collect();
        let message = weft_xds::pb::envoy::config::core::v3::Node {
            id: "an-app".to_owned(),
            metadata: Some(Struct { fields }),
            ..Default::default()
        };
        let snapshot = snapshot_of(&Node::parse(Some(&message)).unwrap(), &shared);
        assert_eq!(consistency::check(&snapshot).unwrap(), [], "{namespace:?}");
        snapshot.view(Kind::Listener).lookup("secret.shop.svc.cluster.local:80").is_some()
    };
    assert!(sees(Some("shop")));
    assert!(!sees(Some("other")) && !sees(None));
}

#[test]
fn bare_names_are_for_the_same_namespace() {
    let of = |id: &str| golden_of(id, Kind::Route, &["8080"]);
    let (own, other) = (of(REACH_CLIENT), of("sidecar~10.244.9.9~client.other~d"));
    assert!(own.contains("- db\n") && own.contains("- payments\n"), "{own}");
    assert!(!other.contains("- db\n") && other.contains("- db.shop\n"), "{other}");
}

#[test]
fn what_is_unknown_is_refused_at_shared_ports_too() {
    let strict = MeshSettings { outbound_policy: OutboundPolicy::RegistryOnly, ..settings() };
    let snapshot = snapshot_of(&node(REACH_CLIENT), &shared(REACH, strict));
    assert!(!render(&snapshot, Kind::Listener).contains("cluster: PassthroughCluster"));
    let routes = render(&snapshot, Kind::Route);
    assert!(routes.contains("status: 502") && !routes.contains("PassthroughCluster"));
    assert_eq!(consistency::check(&snapshot).unwrap(), []);
}

#[test]
fn traffic_that_comes_as_it_is_keeps_its_addresses() {
    let mut node = weft_xds::pb::envoy::config::core::v3::Node { id: REACH_CLIENT.to_owned(), ..Default::default() };
    let mode = weft_xds::pb::google::protobuf::value::Kind::StringValue("TPROXY".to_owned());
    let mode = weft_xds::pb::google::protobuf::Value { kind: Some(mode) };
    node.metadata =
        Some(weft_xds::pb::google::protobuf::Struct { fields: [("INTERCEPTION_MODE".to_owned(), mode)].into() });
    let snapshot = snapshot_of(&Node::parse(Some(&node)).unwrap(), &shared(REACH, settings()));
    let listener = snapshot.view(Kind::Listener).lookup("virtualInbound").unwrap().clone();
    let listener = any_to_value(&listener.any(), FieldNames::Proto).unwrap();
    assert_eq!(listener["transparent"], true);
    assert_eq!(listener["listener_filters"][1]["name"], "envoy.filters.listener.original_src");
    assert!(!render(&snapshot, Kind::Cluster).contains("upstream_bind_config"));
}

#[test]
fn the_access_log_has_the_form_that_was_asked_for() {
    let of = |format: AccessLogFormat| {
        let access_log = Some(AccessLog { file: "/dev/stdout".to_owned(), format });
        render(&snapshot(MeshSettings { access_log, ..settings() }), Kind::Listener)
    };
    let text = of(AccessLogFormat::Text("%PROTOCOL%\n".to_owned()));
    assert!(text.contains("text_format_source:") && text.contains("%PROTOCOL%\n"), "{text}");
    let json = of(AccessLogFormat::Json([("a".to_owned(), "%PROTOCOL%".to_owned())].into()));
    assert!(json.contains("json_format:\n") && json.contains("a: \"%PROTOCOL%\""), "{json}");
}

/// The work that a change of one fixture's Service costs.
fn work_of_change(change: impl FnOnce(&str) -> String) -> Work {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("mesh.yaml");
    let mut folder = Folder::new(temp.path().to_owned());
    let (mut registry, mut translator) = (Registry::default(), Translator::new(Arc::new(settings())));
    let mut load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let changes = folder.rescan(&HashSet::new()).unwrap();
        changes.removed.iter().for_each(|key| registry.remove(key));
        changes.inserted.into_iter().for_each(|object| registry.insert(object));
        translator.update(&registry.publish()).work
    };
    let all = load(REACH);
    assert!(all.services > 5 && all.endpoints >= 6 && all.wildcard_ports == 4, "{all:?}");
    load(&change(REACH))
}

#[test]
fn a_change_costs_what_depends_on_it() {
    let nothing = Work::default();
    assert_eq!(work_of_change(|text| format!("# another comment\n{text}")), nothing);
    let node = "{apiVersion: v1, kind: Node, metadata: {name: unrelated}}\n---\n";
    assert_eq!(work_of_change(|text| format!("{node}{text}")), nothing);
    let endpoint = work_of_change(|text| text.replace("10.244.0.21]", "10.244.0.29]"));
    assert_eq!(endpoint, Work { services: 0, endpoints: 3, wildcard_ports: 3 }, "three ports of one headless Service");
    let settings = work_of_change(|text| text.replace("sessionAffinity: ClientIP", "sessionAffinity: None"));
    assert_eq!(settings, Work { services: 1, endpoints: 0, wildcard_ports: 0 });
    let mesh = MESH.replace("  name: node-a\n", "  name: node-z\n");
    let added = work_of_change(|text| format!("{text}---\n{mesh}"));
    assert_eq!((added.services, added.wildcard_ports), (2, 0));
}

#[test]
fn one_endpoint_costs_the_endpoints_of_its_ports() {
    let mut registry = Registry::default();
    let mut translator = Translator::new(Arc::new(settings()));
    let temp = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(temp.path().to_owned());
    for text in [MESH.to_owned(), MESH.replace("10.244.1.10", "10.244.1.19")] {
        std::fs::write(temp.path().join("mesh.yaml"), text).unwrap();
        folder.rescan(&HashSet::new()).unwrap().inserted.into_iter().for_each(|object| registry.insert(object));
        translator.update(&registry.publish());
    }
    std::fs::write(temp.path().join("mesh.yaml"), MESH).unwrap();
    folder.rescan(&HashSet::new()).unwrap().inserted.into_iter().for_each(|object| registry.insert(object));
    let update = translator.update(&registry.publish());
    assert_eq!(update.work, Work { services: 0, endpoints: 4, wildcard_ports: 0 }, "the ports of one Service");
}

#[test]
fn a_view_stays_the_same_when_nothing_in_it_changed() {
    let temp = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(temp.path().to_owned());
    let (mut registry, mut translator) = (Registry::default(), Translator::new(Arc::new(settings())));
    let mut load = |text: &str| {
        std::fs::write(temp.path().join("mesh.yaml"), text).unwrap();
        let changes = folder.rescan(&HashSet::new()).unwrap();
        changes.inserted.into_iter().for_each(|object| registry.insert(object));
        snapshot_of(&node(REACH_CLIENT), &translator.update(&registry.publish()).shared)
    };
    let before = load(REACH);
    let after = load(&REACH.replace("sessionAffinity: ClientIP", "sessionAffinity: None"));
    let particular = |snapshot: &Snapshot, kind: Kind| snapshot.particular.of(kind).clone();
    for kind in Kind::ALL {
        assert!(Arc::ptr_eq(&particular(&before, kind), &particular(&after, kind)), "{kind:?}");
    }
    assert!(!particular(&after, Kind::Endpoints).is_empty());
    let moved = load(&REACH.replace("10.244.0.31", "10.244.0.39"));
    let (moved_view, after_view) = (moved.view(Kind::Endpoints), after.view(Kind::Endpoints));
    let changes = moved_view.changes_since(&after_view);
    let changed = changes.changed.iter().map(|resource| &*resource.name).collect::<Vec<_>>();
    assert_eq!((changed, changes.gone.len()), (vec!["outbound|80||near.shop.svc.cluster.local"], 0));
}
