//! `x-forwarded-client-cert`: what passes of what the request brings, and what is said of the caller's own certificate.
//!
//! Names of certificates stand in the value as they are, as Envoy has them; only a PEM is percent-encoded.

use aws_lc_rs::digest::SHA256;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    config::http_connection_manager::{ClientCertDetail, ClientCertForwarding, ForwardClientCert},
    listener::connection::Downstream,
    tls::{TlsSession, pem_encoded},
};

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

pub fn forward(headers: &mut HeaderMap, options: &ForwardClientCert, downstream: &Downstream) {
    if options.forwarding == ClientCertForwarding::AlwaysForwardOnly {
        return;
    }
    let shown = downstream.tls.as_deref().filter(|tls| !tls.peer_chain().is_empty());
    let own = match (options.forwarding, shown) {
        (ClientCertForwarding::Sanitize, _) | (_, None) => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
            return;
        }
        (ClientCertForwarding::ForwardOnly | ClientCertForwarding::AlwaysForwardOnly, Some(_)) => return,
        (ClientCertForwarding::AppendForward | ClientCertForwarding::SanitizeSet, Some(tls)) => {
            element(tls, &options.details)
        }
    };
    let value = match headers.get(X_FORWARDED_CLIENT_CERT) {
        Some(before) if options.forwarding == ClientCertForwarding::AppendForward => {
            Bytes::from([before.as_bytes(), b",", own.as_bytes()].concat())
        }
        _ => Bytes::from(own),
    };
    match HeaderValue::from_maybe_shared(value) {
        Ok(value) => {
            headers.insert(X_FORWARDED_CLIENT_CERT, value);
        }
        // A name that cannot stand in a header is not to be mistaken for what the caller says.
        Err(_) => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
        }
    }
}

/// What is said of this hop.
fn element(tls: &TlsSession, details: &[ClientCertDetail]) -> String {
    let mut pairs = Vec::new();
    let names = |local: bool| if local { tls.local() } else { tls.peer() };
    pairs.extend(names(true).iter().flat_map(|local| &local.uri_names).map(|name| format!("By={name}")));
    pairs.extend(tls.fingerprints(&SHA256).next().map(|hash| format!("Hash={hash}")));
    for detail in details {
        match detail {
            ClientCertDetail::Cert => pairs.extend(tls.peer_pem_encoded().map(|pem| format!("Cert=\"{pem}\""))),
            ClientCertDetail::Chain => {
                let chain: String = tls.peer_chain().iter().map(|certificate| pem_encoded(certificate)).collect();
                pairs.push(format!("Chain=\"{chain}\""));
            }
            // These keys are there even if there is nothing to say.
            ClientCertDetail::Subject => {
                let subject = names(false).map_or("", |peer| &peer.subject);
                pairs.push(format!("Subject=\"{subject}\""));
            }
            ClientCertDetail::Issuer => {
                let issuer = names(false).map_or("", |peer| &peer.issuer);
                pairs.push(format!("Issuer=\"{issuer}\""));
            }
            ClientCertDetail::Uri => match names(false).map_or(&[][..], |peer| &peer.uri_names) {
                [] => pairs.push("URI=".to_owned()),
                uris => pairs.extend(uris.iter().map(|uri| format!("URI={uri}"))),
            },
            ClientCertDetail::Dns => {
                let dns_names = names(false).map_or(&[][..], |peer| &peer.dns_names);
                pairs.extend(dns_names.iter().map(|name| format!("DNS={name}")));
            }
        }
    }
    pairs.join(";")
}
