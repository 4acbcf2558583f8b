//! `x-forwarded-client-cert`: callers with a certificate and without, in every mode.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster};
use weft_tests::facts::Facts;
use weft_tests::process::Launch;

use crate::Case;
use crate::config::{ORIGIN_HTTP, Ports, local};
use crate::pair::Target;
use crate::scene::{one_host, to};

/// A listener each.
const MODES: &[(&str, &str)] = &[
    ("SANITIZE", "{}"),
    ("FORWARD_ONLY", "{}"),
    ("ALWAYS_FORWARD_ONLY", r#"{"subject": true}"#),
    ("APPEND_FORWARD", "{}"),
    ("SANITIZE_SET", "{}"),
    ("APPEND_FORWARD", r#"{"subject": true, "uri": true}"#),
    ("SANITIZE_SET", r#"{"subject": true, "cert": true, "chain": true, "dns": true, "uri": true, "issuer": true}"#),
    ("SANITIZE_SET", r#"{"subject": false, "dns": true}"#),
];

/// Who calls: with which certificate, and what it says itself.
const CALLERS: &[(&str, Option<&str>, &str)] = &[
    ("nobody", None, "By=a;Hash=b"),
    ("named", Some("named"), "By=a;Hash=b"),
    ("named, says nothing", Some("named"), ""),
    ("nameless", Some("nameless"), "x"),
];

pub(crate) fn cases() -> Vec<Case> {
    let of_mode = |at: usize| {
        CALLERS.iter().map(move |(name, certificate, says)| {
            let (mode, details) = MODES[at];
            let name: &'static str = Box::leak(format!("{mode} {details}: {name}").into_boxed_str());
            Case { name, observe: Box::new(move |target| observe(target, at, *certificate, says)) }
        })
    };
    (0..MODES.len()).flat_map(of_mode).collect()
}

fn observe(target: &Target, at: usize, certificate: Option<&str>, says: &str) -> Result<Facts> {
    let folder = target.folder();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut args =
        vec!["--silent".to_owned(), "--show-error".into(), "--insecure".into(), "--max-time".into(), "8".into()];
    if let Some(name) = certificate {
        args.extend(["--cert".into(), file(&format!("{name}.pem")), "--key".into(), file(&format!("{name}.key"))]);
    }
    if !says.is_empty() {
        args.extend(["--header".into(), format!("x-forwarded-client-cert: {says}")]);
    }
    args.push(format!("https://{}/headers", target.ports.scene(at)));
    let mut facts = Facts::default();
    facts.add_body(Launch::new(weft_tests::peers::tool("curl")?).args(args).run()?.as_bytes());
    Ok(facts.only(|name| name.contains("client-cert") || name == "application saw method"))
}

/// The same certificates for both: written when the first asks for them.
pub(crate) fn bootstrap(ports: Ports, access_log: &Path) -> String {
    let folder = access_log.parent().expect("a file is in a folder");
    if !folder.join("ca.pem").exists() {
        write_certificates(folder).expect("certificates can be written");
    }
    let file = |name: &str| json!({"filename": folder.join(name)});
    let listeners: Vec<Value> = MODES
        .iter()
        .enumerate()
        .map(|(at, (mode, details))| {
            let mut filter = http_filter("certs", &one_host(&[to("/", "origin", json!({}))]));
            filter["typed_config"]["forward_client_cert_details"] = json!(mode);
            filter["typed_config"]["set_current_client_cert_details"] =
                serde_json::from_str(details).expect("the details are written here");
            let at = ports.scene(at);
            let tls = json!({"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_certificates": [{"certificate_chain": file("server.pem"), "private_key": file("server.key")}],
                    "validation_context": {"trusted_ca": file("ca.pem")},
                },
            }});
            json!({"name": at.to_string(), "address": socket(&at.ip().to_string(), at.port()),
                   "filter_chains": [{"filters": [filter], "transport_socket": tls}]})
        })
        .collect();
    let document = json!({
        "admin": {"address": socket("127.0.0.1", ports.admin().port())},
        "static_resources": {"clusters": [static_cluster("origin", local(ORIGIN_HTTP))], "listeners": listeners},
    });
    format!("{document:#}\n")
}

fn write_certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let own = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let uri = |text: &str| -> Result<SanType> { Ok(SanType::URI(text.try_into()?)) };
    let dns = |text: &str| -> Result<SanType> { Ok(SanType::DnsName(text.try_into()?)) };
    let holders = [
        ("server", vec![uri("spiffe://test/ns/a/sa/server")?, uri("spiffe://test/second")?, dns("server.test")?]),
        ("named", vec![uri("spiffe://test/ns/a/sa/caller")?, uri("urn:second")?, dns("a.test")?, dns("b.test")?]),
        ("nameless", Vec::new()),
    ];
    for (name, names) in holders {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "A, \"B\"; C=D");
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        let key = KeyPair::generate()?;
        fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(fs::write(folder.join("ca.pem"), own)?)
}
