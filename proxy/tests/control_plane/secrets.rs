//! Secrets that come apart from the TLS contexts which name them (SDS).

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use weft_xds::type_url::{LISTENER, SECRET};

use crate::{
    Serving, by_rds, listener,
    proxy::{Proxy, eventually, free_address, origin},
    serving,
};

const FIXTURES: &str = "tests/fixtures/tls";

/// Speaks TLS with the certificate of this name, which comes by `source`.
fn secure_listener(address: SocketAddr, routes: &str, source: &str) -> String {
    let socket = format!(
        "transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.\
         tls.v3.DownstreamTlsContext, common_tls_context: {{tls_certificate_sds_secret_configs: [{{name: own, sds_config: \
         {{resource_api_version: V3, {source}}}}}]}}}}}}"
    );
    listener("s", address, routes).replace("filter_chains: [{", &format!("filter_chains: [{{{socket}, "))
}

/// `name` is that of the fixture.
fn certificate(name: &str) -> String {
    format!(
        "{{name: own, tls_certificate: {{certificate_chain: {{filename: {FIXTURES}/{name}.pem}}, private_key: {{filename: \
         {FIXTURES}/{name}.key}}}}}}"
    )
}

async fn connect(address: SocketAddr) -> Option<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from("app.test").expect("a name");
    let stream = TcpStream::connect(address).await.ok()?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

/// Who it is, is looked at afterwards.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the server shows the certificate of the fixture of this name.
fn shows(stream: &TlsStream<TcpStream>, name: &str) -> bool {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).expect("a certificate");
    *shown == CertificateDer::from_pem_file(format!("{FIXTURES}/{name}.pem")).expect("a certificate")
}

/// A request on an open connection, which stays open.
async fn answered(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("a request");
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_listener_waits_for_its_certificate_and_follows_it() {
    let Serving { mut stream, proxy, listening, server: _server } = serving(origin("a").await).await;
    let secure = free_address().await;
    let both = [listener("l", listening, &by_rds("r")), secure_listener(secure, &by_rds("r"), "ads: {}")];
    stream.answer(LISTENER, "2", "2", &both);
    stream.acknowledged(LISTENER, "2", "2").await;
    assert_eq!(stream.request_for(SECRET).await.resource_names, ["own"]);
    assert!(TcpStream::connect(secure).await.is_err(), "it waits for its certificate");
    let dumped = proxy.dumped("SecretsConfigDump").await;
    assert_eq!(dumped["dynamic_warming_secrets"][0]["name"], "own");

    stream.answer(SECRET, "1", "1", &[certificate("leaf")]);
    stream.acknowledged(SECRET, "1", "1").await;
    eventually("it listens", async || connect(secure).await.is_some()).await;
    let mut before = connect(secure).await.expect("a connection");
    assert!(shows(&before, "leaf"));
    assert_eq!(answered(&mut before).await, "HTTP/1.1 200 OK");

    stream.answer(SECRET, "2", "2", &[certificate("other")]);
    stream.acknowledged(SECRET, "2", "2").await;
    assert!(shows(&connect(secure).await.expect("a connection"), "other"));
    assert_eq!(answered(&mut before).await, "HTTP/1.1 200 OK", "a connection keeps what it was made with");

    // A secret that is none changes nothing.
    stream.answer(SECRET, "3", "3", &["{name: own, generic_secret: {secret: {inline_string: x}}}".to_owned()]);
    let reason = stream.refused(SECRET, "2", "3").await;
    assert_eq!(reason, "Error adding/updating secret(s) own: generic_secret: not supported");
    assert!(shows(&connect(secure).await.expect("a connection"), "other"));

    let inline = certificate("leaf");
    let key = std::fs::read_to_string(format!("{FIXTURES}/leaf.key")).expect("a key").replace('\n', "\\n");
    let inline = inline.replace(&format!("filename: {FIXTURES}/leaf.key"), &format!("inline_string: \"{key}\""));
    stream.answer(SECRET, "4", "4", &[inline]);
    stream.acknowledged(SECRET, "4", "4").await;
    let dump = proxy.config_dump().await.to_string();
    assert!(dump.contains("[redacted]") && !dump.contains("PRIVATE KEY"), "{dump}");
}

#[tokio::test]
async fn secrets_in_files_are_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let copy = |name: &str| {
        for (extension, to) in [("pem", "own.pem"), ("key", "own.key")] {
            std::fs::copy(format!("{FIXTURES}/{name}.{extension}"), at("new")).expect("a copy");
            std::fs::rename(at("new"), at(to)).expect("renamed");
        }
    };
    copy("leaf");
    let secret = format!(
        "resources: [{{'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: own, \
         tls_certificate: {{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}}}]",
        at("own.pem").display(),
        at("own.key").display(),
    );
    std::fs::write(at("sds.yaml"), secret).expect("written");
    let secure = free_address().await;
    let table = "route_config: {name: inline, virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, \
                 direct_response: {status: 204}}]}]}";
    let source = format!("path_config_source: {{path: {}}}", at("sds.yaml").display());
    let one = secure_listener(secure, table, &source);
    let typed = one.replacen('{', "{'@type': type.googleapis.com/envoy.config.listener.v3.Listener, ", 1);
    std::fs::write(at("lds.yaml"), format!("resources: [{typed}]")).expect("written");
    let lds =
        format!("lds_config: {{resource_api_version: V3, path_config_source: {{path: {}}}}}", at("lds.yaml").display());
    let proxy = Proxy::start_from(free_address().await, &lds).await;
    proxy.becomes_ready().await;
    let mut before = connect(secure).await.expect("a connection");
    assert!(shows(&before, "leaf"));
    copy("other");
    eventually("the files are read again", async || {
        connect(secure).await.is_some_and(|stream| shows(&stream, "other"))
    })
    .await;
    assert_eq!(answered(&mut before).await, "HTTP/1.1 204 No Content");
}
