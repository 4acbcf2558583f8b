use super::*;
use crate::model::service::Addressing;
use crate::model::topology::Distribution;

fn parse_yaml(text: &str) -> Result<Content, FieldProblem> {
    parse(&Document { number: 1, line: 1, text }, Syntax::Yaml)
}

fn keys(content: &Content) -> Vec<String> {
    content.objects.iter().map(|(key, _)| key.to_string()).collect()
}

fn refused(text: &str) -> String {
    parse_yaml(text).unwrap_err().to_string()
}

#[test]
fn a_file_is_cut_at_its_markers() {
    let text = "# a comment\n---\na: 1\n--- # another\nb: |\n  --- not one\n---\n\n---\n...\n--- {c: 3}\n";
    let documents = split(text);
    let lines = documents.iter().map(|document| (document.number, document.line)).collect::<Vec<_>>();
    assert_eq!(lines, [(1, 2), (2, 4), (3, 11)]);
    assert_eq!(documents[2].text.trim(), "{c: 3}");
    assert!(split("").is_empty());
    assert!(split("---\n---\n").is_empty());
    assert_eq!(split("a: 1").len(), 1);
    assert_eq!(split("---x: 1").len(), 1, "not a marker");
}

#[test]
fn lists_hold_objects_whose_kind_may_be_implied() {
    let typed = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}]}";
    assert_eq!(keys(&parse_yaml(typed).unwrap()), ["Namespace a"]);
    let implied = "{apiVersion: v1, kind: NamespaceList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}";
    assert_eq!(keys(&parse_yaml(implied).unwrap()), ["Namespace a", "Namespace b"]);
}

#[test]
fn a_missing_namespace_is_the_default_one() {
    let content = parse_yaml("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None}}").unwrap();
    assert_eq!(keys(&content), ["Service default/a"]);
}

#[test]
fn kinds_without_meaning_are_passed_over_and_unknown_ones_remarked_on() {
    let content = parse_yaml("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}").unwrap();
    assert!(content.objects.is_empty() && content.ignored.is_empty());
    let content = parse_yaml("{apiVersion: v1, kind: Servize, metadata: {name: a}}").unwrap();
    assert!(content.objects.is_empty());
    assert_eq!(content.ignored[0].reason, "apiVersion \"v1\" with kind \"Servize\" is not known");
    let content = parse_yaml("{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice}").unwrap();
    assert_eq!(content.ignored.len(), 1);
}

#[test]
fn unknown_fields_are_remarked_on_with_their_path() {
    let text =
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None, ports: [{port: 1, prt: 2}]}}";
    let content = parse_yaml(text).unwrap();
    assert_eq!(keys(&content), ["Service default/a"]);
    assert_eq!(content.ignored[0].to_string(), "spec.ports[0].prt: is not a field of this kind");
}

#[test]
fn what_is_wrong_is_refused_with_its_path() {
    let service =
        |spec: &str| refused(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {spec}}}"));
    assert!(service("{ports: [{port: 80}, {port: many}]}").starts_with("spec.ports[1].port: invalid type: string"));
    assert_eq!(service("{ports: [{port: 70000}]}"), "spec.ports[0].port: 70000 is not a port between 1 and 65535");
    assert_eq!(service("{clusterIP: 10.0.0.300}"), "spec.clusterIP: \"10.0.0.300\" is not an IP address");
    assert_eq!(
        service("{ports: [{port: 1, name: a}, {port: 1, name: b}]}"),
        "spec.ports[1].port: 1 is the number of an earlier port"
    );
    assert_eq!(
        service("{ports: [{port: 1, protocol: ICMP}]}"),
        "spec.ports[0].protocol: \"ICMP\" is not one of TCP, UDP, SCTP"
    );
    assert_eq!(refused("{apiVersion: v1, kind: Service, metadata: {name: a}}"), "spec: is required");
    assert_eq!(refused("{apiVersion: v1, kind: Service, spec: {}}"), "metadata.name: is required");
    assert_eq!(refused("{kind: Service}"), "apiVersion: is required");
    assert_eq!(refused("{apiVersion: v1, kind: 5}"), "kind: is not a string");
    assert!(refused("[1, 2]").contains("is not an object"));
    assert!(
        refused("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {version: 1.0}}}")
            .starts_with("metadata.labels.version: invalid type")
    );
    assert!(
        refused("{apiVersion: v1, kind: Service, metadata: {name: 'a|b'}, spec: {}}")
            .starts_with("metadata.name: \"a|b\" is not a name")
    );
}

#[test]
fn problems_within_a_list_name_the_item() {
    let text = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}, \
                {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 0}]}}]}";
    assert_eq!(refused(text), "items[1].spec.ports[0].port: 0 is not a port between 1 and 65535");
    let text =
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: 5}}]}";
    assert!(refused(text).starts_with("items[0].spec.ports: invalid type"));
}

#[test]
fn broken_yaml_is_refused_with_its_place() {
    let document = Document { number: 2, line: 10, text: "\na: 1\nb: [1, 2\n" };
    let error = parse(&document, Syntax::Yaml).unwrap_err();
    assert!(error.reason.starts_with("line 1"), "{}", error.reason);
    assert!(refused("{apiVersion: v1, apiVersion: v1, kind: Service}").contains("duplicate"));
}

#[test]
fn hostile_nesting_and_aliases_are_refused() {
    refused(&"[".repeat(100_000));
    refused(&format!("{}1{}", "{a: ".repeat(100_000), "}".repeat(100_000)));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = level - 1;
        let aliases = vec![format!("*a{previous}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    refused(&bomb);
    parse(&Document { number: 1, line: 1, text: &"[".repeat(100_000) }, Syntax::Json).unwrap_err();
}

/// The Service that a document is.
fn service(metadata: &str, spec: &str) -> (crate::model::service::Service, Vec<String>) {
    let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: a, {metadata}}}, spec: {spec}}}");
    let content = parse_yaml(&text).unwrap();
    let [(_, Some(Object::Service(service)))] = content.objects.as_slice() else { panic!("{text}") };
    ((**service).clone(), content.ignored.iter().map(ToString::to_string).collect())
}

#[test]
fn an_external_name_is_a_host_name() {
    let (service, remarks) =
        service("", "{type: ExternalName, externalName: x.example., ports: [{port: 80, name: http}]}");
    assert_eq!(service.addressing, Addressing::External("x.example".to_owned()));
    assert_eq!(remarks, [""; 0]);
    let spec = |spec: &str| refused(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {spec}}}"));
    assert_eq!(spec("{type: ExternalName}"), "spec.externalName: is required");
    assert!(spec("{type: ExternalName, externalName: 'a b'}").starts_with("spec.externalName: \"a b\" is not a name"));
}

#[test]
fn bytes_to_an_external_name_are_remarked_on() {
    let (_, remarks) = service(
        "",
        "{type: ExternalName, externalName: x.example, ports: [{port: 5432, name: tcp}, {port: 443, name: https}]}",
    );
    assert_eq!(remarks.len(), 1);
    assert!(remarks[0].starts_with("spec.ports[0]: bytes to an external name can't be told"), "{remarks:?}");
}

#[test]
fn settings_have_the_values_that_the_api_server_takes() {
    let spec = |spec: &str| refused(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {spec}}}"));
    assert_eq!(spec("{sessionAffinity: Cookie}"), "spec.sessionAffinity: \"Cookie\" is not one of None, ClientIP");
    assert_eq!(
        spec("{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}}"),
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not between 1 and 86400"
    );
    assert_eq!(
        spec("{internalTrafficPolicy: Here}"),
        "spec.internalTrafficPolicy: \"Here\" is not one of Cluster, Local"
    );
    assert_eq!(
        spec("{trafficDistribution: Far}"),
        "spec.trafficDistribution: \"Far\" is not one of PreferClose, PreferSameZone, PreferSameNode"
    );
    assert_eq!(spec("{ipFamilies: [IPv5]}"), "spec.ipFamilies[0]: \"IPv5\" is not one of IPv4, IPv6");
    assert_eq!(
        spec("{clusterIPs: [10.0.0.1, 10.0.0.2]}"),
        "spec.clusterIPs[1]: is of the same address family as an earlier one"
    );
    let dotted = "{apiVersion: v1, kind: Service, metadata: {name: a.b}, spec: {}}";
    assert!(refused(dotted).starts_with("metadata.name: \"a.b\" has a dot"));
}

#[test]
fn istios_annotations_count_where_kubernetes_has_nothing_to_say() {
    let distribution = "annotations: {networking.istio.io/traffic-distribution: PreferSameNode}";
    assert_eq!(service(distribution, "{}").0.distribution, Some(Distribution::SameNode));
    assert_eq!(
        service(distribution, "{trafficDistribution: PreferClose}").0.distribution,
        Some(Distribution::SameZone)
    );
    let (unclear, remarks) = service("annotations: {networking.istio.io/traffic-distribution: Somewhere}", "{}");
    assert_eq!(unclear.distribution, None);
    assert!(remarks[0].contains("\"Somewhere\" is not one of"), "{remarks:?}");
    let seen = |text: &str| {
        service(&format!("namespace: own, annotations: {{networking.istio.io/exportTo: '{text}'}}"), "{}").0
    };
    assert!(
        seen("*").is_visible_everywhere() && seen("").is_visible_everywhere() && seen("x, *").is_visible_everywhere()
    );
    assert!(seen(".").is_visible_in("own") && !seen(".").is_visible_in("other"));
    assert!(
        seen("other, .").is_visible_in("own")
            && seen("other").is_visible_in("other")
            && !seen("other").is_visible_in("own")
    );
    assert!(!seen("~").is_visible_in("own"));
}

#[test]
fn amounts_may_be_numbers_and_nulls_are_nothing() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: null}, spec: {containers: [{name: c, \
                resources: {limits: {cpu: 1, memory: 1Gi}}}], volumes: [{name: v, emptyDir: {sizeLimit: 5}}]}, status: {}}";
    let content = parse_yaml(text).unwrap();
    assert_eq!(keys(&content), ["Pod default/a"]);
    assert!(content.ignored.is_empty(), "{:?}", content.ignored);
}
