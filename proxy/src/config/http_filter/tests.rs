use super::*;
use crate::config::{
    fraction::Fraction,
    testing::{message, refusal},
};

const PREFIX: &str = "type.googleapis.com/envoy.extensions.filters.http";
const ROUTER: &str =
    "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

fn filters(filters: &str) -> Result<HttpFilters> {
    let filters: Vec<ProtoHttpFilter> =
        format!("{filters}\n---\n{ROUTER}").split("\n---\n").filter(|yaml| !yaml.is_empty()).map(message).collect();
    HttpFilters::from_proto(filters, "http_filters")
}

fn one(kind: &str, fields: &str) -> Result<NamedFilter> {
    filters(&format!("{{name: f, typed_config: {{'@type': {PREFIX}.{kind}, {fields}}}}}"))
        .map(|mut all| all.filters.remove(0))
}

fn of_route(kind: &str, fields: &str) -> Result<RouteFilterConfig> {
    let any: Any = message(&format!("{{'@type': {kind}, {fields}}}"));
    let mut all = RouteFilters::from_proto(HashMap::from([("f".to_owned(), any)]))?;
    Ok(all.0.remove("f").unwrap())
}

#[test]
fn filters_stand_before_the_router() {
    let all =
        filters(&format!("{{name: c, disabled: true, typed_config: {{'@type': {PREFIX}.cors.v3.Cors}}}}")).unwrap();
    let [NamedFilter { name, disabled: true, filter: HttpFilter::Cors }] = &all.filters[..] else { panic!("{all:?}") };
    assert_eq!(&**name, "c");
}

#[test]
fn a_fault_is_read_whole() {
    let fault = one(
        "fault.v3.HTTPFault",
        "delay: {fixed_delay: 2s, percentage: {numerator: 5, denominator: TEN_THOUSAND}}, abort: {grpc_status: 3}, \
         headers: [{name: x}], downstream_nodes: [n], max_active_faults: 0, upstream_cluster: c",
    );
    let HttpFilter::Fault(fault) = fault.unwrap().filter else { panic!("no fault") };
    assert_eq!(fault.delay.unwrap().share, Fraction { numerator: 5, denominator: 10_000 });
    let abort = fault.abort.unwrap();
    assert_eq!((abort.status, abort.share), (AbortStatus::Grpc(3), Fraction::NEVER));
    assert_eq!((fault.active_faults_max, fault.headers.len()), (Some(0), 1));
}

#[test]
fn routes_override_and_switch_off() {
    let config = of_route(&format!("{PREFIX}.buffer.v3.BufferPerRoute"), "buffer: {max_request_bytes: 9}").unwrap();
    assert!(matches!(config.filter, Some(RouteFilter::Buffer(BufferOverride::RequestBytesMax(9)))));
    const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let config = of_route(FILTER_CONFIG, "disabled: true").unwrap();
    assert!(config.disabled && config.filter.is_none());
    let config =
        of_route(FILTER_CONFIG, &format!("config: {{'@type': {PREFIX}.cors.v3.CorsPolicy, max_age: '1'}}")).unwrap();
    assert!(!config.disabled && matches!(config.filter, Some(RouteFilter::Cors(_))));
    let unknown = "config: {'@type': type.googleapis.com/google.protobuf.Empty, value: {}}";
    assert_eq!(
        refusal(of_route(FILTER_CONFIG, unknown)),
        "typed_per_filter_config[f].config.typed_config: google.protobuf.Empty is not supported"
    );
    let any: Any = message(&format!("{{'@type': {FILTER_CONFIG}, is_optional: true, {unknown}}}"));
    assert!(RouteFilters::from_proto(HashMap::from([("f".to_owned(), any)])).unwrap().is_empty());
}

#[test]
fn what_is_not_supported_is_refused() {
    for (kind, fields, expected) in [
        ("local_ratelimit.v3.LocalRateLimit", "stat_prefix: s, stage: 1", "stage: not supported"),
        (
            "local_ratelimit.v3.LocalRateLimit",
            "stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 0.01s}",
            "token_bucket.fill_interval: local rate limit token bucket fill timer must be >= 50ms",
        ),
        (
            "header_mutation.v3.HeaderMutation",
            "mutations: {request_mutations: [{remove: ':path'}]}",
            "mutations.request_mutations[0].remove: :-prefixed or host headers may not be removed",
        ),
        ("fault.v3.HTTPFault", "filter_metadata: {a: b}", "filter_metadata: not supported"),
    ] {
        assert_eq!(refusal(one(kind, fields)), format!("http_filters[0].typed_config.{expected}"));
    }
}
