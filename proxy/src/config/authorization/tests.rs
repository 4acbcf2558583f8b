use super::*;
use crate::config::testing::{message, refusal};

fn engines(rules: &str) -> Result<Engines> {
    Engines::from_proto((Some(message(rules)), None), (None, None))
}

fn permission(rule: &str) -> Result<Engines> {
    engines(&format!("policies: {{p: {{permissions: [{rule}], principals: [{{any: true}}]}}}}"))
}

fn principal(rule: &str) -> Result<Engines> {
    engines(&format!("policies: {{p: {{permissions: [{{any: true}}], principals: [{rule}]}}}}"))
}

#[test]
fn policies_are_in_the_order_of_their_names() {
    let all = "{permissions: [{any: true}], principals: [{any: true}]}";
    let engines = engines(&format!("action: DENY\npolicies: {{b: {all}, a: {all}, c: {all}}}")).unwrap();
    let Some(Engine::Policies(engine)) = engines.enforced else { panic!("no policies") };
    let names: Vec<&str> = engine.policies.iter().map(|policy| &*policy.name).collect();
    assert_eq!((engine.action, &names[..]), (Action::Deny, &["a", "b", "c"][..]));
    assert!(engines.shadow.is_none());
}

#[test]
fn what_is_not_known_is_refused_by_its_path() {
    let path = "rules.policies[p]";
    for (rule, expected) in [
        (
            "{destination_port_range: {start: 9, end: 9}}",
            "destination_port_range.start: range start 9 cannot be greater or equal than range end 9",
        ),
        (
            "{destination_port_range: {start: -1, end: 9}}",
            "destination_port_range.start: range start -1 is out of bounds",
        ),
        (
            "{destination_port_range: {start: 1, end: 65537}}",
            "destination_port_range.end: range end 65537 is out of bounds",
        ),
        (
            "{not_rule: {and_rules: {rules: [{any: true}, {header: {name: 'a b'}}]}}}",
            "not_rule.and_rules.rules[1].header.name: not a header name",
        ),
        ("{matcher: {name: x}}", "matcher.typed_config: value is required"),
        (
            "{matcher: {name: x, typed_config: {'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: a}}}",
            "matcher.typed_config: envoy.config.rbac.v3.Action is not supported",
        ),
    ] {
        assert_eq!(refusal(permission(rule)), format!("{path}.permissions[0].{expected}"), "{rule}");
    }
    let mtls = "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
    assert_eq!(
        refusal(principal(&format!("{{custom: {{name: x, typed_config: {{'@type': {mtls}}}}}}}"))),
        format!(
            "{path}.principals[0].custom.typed_config: one of san_matcher and any_validated_client_certificate is required"
        )
    );
    principal(&format!(
        "{{custom: {{name: x, typed_config: {{'@type': {mtls}, any_validated_client_certificate: true}}}}}}"
    ))
    .unwrap();
    let deep = format!("{}{{any: true}}{}", "{not_rule: ".repeat(40), "}".repeat(40));
    assert!(refusal(permission(&deep)).ends_with("nested more than 32 deep"));
}

#[test]
fn loggers_and_conditions_are_refused() {
    let all = "permissions: [{any: true}], principals: [{any: true}]";
    assert_eq!(
        refusal(engines(&format!("policies: {{p: {{{all}, condition: {{const_expr: {{bool_value: true}}}}}}}}"))),
        "rules.policies[p].condition: not supported"
    );
    assert_eq!(
        refusal(engines("audit_logging_options: {audit_condition: ON_DENY}")),
        "rules.audit_logging_options: not supported"
    );
}
