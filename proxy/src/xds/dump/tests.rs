use std::time::Duration;

use weft_xds::pb::envoy::config::listener::v3::Listener;

use super::*;
use crate::xds::resource::RefusedResource;

const AT: Duration = Duration::from_millis(1_500);

fn origin<T: prost::Name>(version_info: &str, message: &T) -> Arc<Origin> {
    Arc::new(Origin { version_info: version_info.into(), message: any::pack(message), updated_at: UNIX_EPOCH + AT })
}

fn yaml<T: prost::Name + Default>(text: &str) -> T {
    json::from_yaml(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn entries<'a>(origins: &'a [(Arc<str>, Arc<Origin>, Place)]) -> impl Iterator<Item = Entry<'a>> {
    origins.iter().map(|(name, origin, place)| Entry { name, origin, place: *place })
}

#[test]
fn clusters_stand_by_place_and_in_order() {
    let cluster = |name: &str| ClusterMessage { name: name.into(), ..Default::default() };
    let origins = [
        ("b".into(), origin("1", &cluster("b")), Place::Active),
        ("s".into(), origin("", &cluster("s")), Place::Static),
        ("a".into(), origin("1", &cluster("a")), Place::Active),
        ("a".into(), origin("2", &cluster("a")), Place::Warming),
    ];
    let dump = clusters("2", entries(&origins), &Failures::default());
    assert_eq!(dump.version_info, "2");
    assert_eq!(dump.static_clusters.len(), 1);
    let versions = |clusters: &[DynamicCluster]| {
        let named = clusters.iter().map(|cluster| {
            let message: ClusterMessage = any::unpack(cluster.cluster.as_ref().expect("a cluster")).expect("a cluster");
            format!("{} {}", message.name, cluster.version_info)
        });
        named.collect::<Vec<_>>()
    };
    assert_eq!(versions(&dump.dynamic_active_clusters), ["a 1", "b 1"]);
    assert_eq!(versions(&dump.dynamic_warming_clusters), ["a 2"]);
    let updated = dump.static_clusters[0].last_updated.as_ref().expect("a time");
    assert_eq!((updated.seconds, updated.nanos), (1, 500_000_000));
}

#[test]
fn listeners_show_what_serves_what_warms_and_what_was_refused() {
    let listener = |name: &str| Listener { name: name.into(), ..Default::default() };
    let origins = [
        ("l".into(), origin("1", &listener("l")), Place::Active),
        ("l".into(), origin("2", &listener("l")), Place::Warming),
    ];
    let mut failures = Failures::default();
    let refused = |name: &str| RefusedResource {
        name: name.into(),
        reason: "address: value is required".into(),
        origin: origin("3", &listener(name)),
    };
    failures.add(ResourceKind::Listener, &[refused("l"), refused("new")], UNIX_EPOCH + AT);
    let dump = listeners("2", entries(&origins), &failures);
    let names: Vec<&str> = dump.dynamic_listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["l", "new"]);
    let shown = &dump.dynamic_listeners[0];
    assert_eq!(shown.active_state.as_ref().expect("it serves").version_info, "1");
    assert_eq!(shown.warming_state.as_ref().expect("it warms").version_info, "2");
    let error = shown.error_state.as_ref().expect("it was refused");
    assert_eq!((error.version_info.as_str(), error.details.as_str()), ("3", "address: value is required"));

    failures.clear(ResourceKind::Listener, "l");
    let dump = listeners("2", entries(&origins), &failures);
    assert_eq!(dump.dynamic_listeners[0].error_state, None);
    assert!(dump.dynamic_listeners[1].error_state.is_some());
}

#[test]
fn tables_and_assignments_that_stand_elsewhere_are_shown_too() {
    let listener: Listener = yaml(
        "{name: l, filter_chains: [{filters: [{name: http, typed_config: {'@type': type.googleapis.com/envoy.extensions.\
         filters.network.http_connection_manager.v3.HttpConnectionManager, route_config: {name: inline}}}]}]}",
    );
    let cluster: ClusterMessage = yaml("{name: s, load_assignment: {cluster_name: s}}");
    let listeners = [("l".into(), origin("1", &listener), Place::Active)];
    let statics = [("s".into(), origin("", &cluster), Place::Static)];
    let failures = Failures::default();

    let tables = routes(std::iter::empty(), entries(&listeners), &failures);
    let table = tables.static_route_configs[0].route_config.as_ref().expect("a table");
    let table: weft_xds::pb::envoy::config::route::v3::RouteConfiguration = any::unpack(table).expect("a table");
    assert_eq!(table.name, "inline");

    let assignments = endpoints(std::iter::empty(), entries(&statics), &failures);
    assert_eq!(assignments.static_endpoint_configs.len(), 1);
}

#[test]
fn a_dump_prints_without_secrets_in_envoys_order() {
    let bootstrap_message: BootstrapMessage = yaml(
        "{static_resources: {secrets: [{name: s, tls_certificate: {private_key: {inline_string: very-private}}}]}}",
    );
    let failures = Failures::default();
    let dump = ConfigDump {
        bootstrap: bootstrap(bootstrap_message, UNIX_EPOCH),
        clusters: clusters("", std::iter::empty(), &failures),
        endpoints: Some(endpoints(std::iter::empty(), std::iter::empty(), &failures)),
        listeners: listeners("", std::iter::empty(), &failures),
        routes: routes(std::iter::empty(), std::iter::empty(), &failures),
        secrets: SecretsConfigDump::default(),
    };
    let value = dump.to_json().expect("JSON");
    assert!(!value.to_string().contains("very-private"));
    let parts = value["configs"].as_array().expect("parts");
    let types: Vec<&str> = parts
        .iter()
        .filter_map(|part| part["@type"].as_str()?.strip_prefix("type.googleapis.com/envoy.admin.v3."))
        .collect();
    assert_eq!(
        types,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "EndpointsConfigDump",
            "ListenersConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
}
