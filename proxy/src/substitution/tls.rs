//! What TLS says of a downstream connection: its own and the peer's certificate, as Envoy writes them.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::text;
use crate::{
    config::substitution::Fact,
    listener::connection::Downstream,
    tls::{CertificateFacts, OtherName, TlsSession, cipher_name, version_name},
};

/// False: there is no such value.
pub(super) fn write(fact: Fact, downstream: &Downstream, out: &mut Vec<u8>) -> bool {
    let Some(tls) = downstream.tls.as_deref() else { return false };
    write_session(fact, tls, out) || write_peer(fact, tls, out) || write_local(fact, tls, out)
}

/// None: the peer has shown no certificate.
pub(super) fn peer_time(is_end: bool, downstream: &Downstream) -> Option<SystemTime> {
    let facts = downstream.tls.as_deref()?.peer()?;
    let seconds = if is_end { facts.not_after_s } else { facts.not_before_s };
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

fn write_session(fact: Fact, tls: &TlsSession, out: &mut Vec<u8>) -> bool {
    let fingerprint = |algorithm| tls.fingerprints(algorithm).next();
    match fact {
        Fact::DownstreamTlsVersion => text(out, tls.version.map(version_name)),
        Fact::DownstreamTlsCipher => text(out, tls.cipher_suite.map(cipher_name)),
        Fact::DownstreamPeerFingerprint256 => text(out, fingerprint(&SHA256)),
        Fact::DownstreamPeerFingerprint1 => text(out, fingerprint(&SHA1_FOR_LEGACY_USE_ONLY)),
        Fact::DownstreamPeerChainFingerprints256 => fingerprints(tls, &SHA256, out),
        Fact::DownstreamPeerChainFingerprints1 => fingerprints(tls, &SHA1_FOR_LEGACY_USE_ONLY, out),
        Fact::DownstreamPeerCertificate => text(out, tls.peer_pem_encoded()),
        Fact::DownstreamPeerChainSerials => {
            let facts = tls.peer_chain().iter().filter_map(|certificate| CertificateFacts::parse(certificate));
            list(out, facts.map(|facts| facts.serial))
        }
        _ => false,
    }
}

fn fingerprints(tls: &TlsSession, algorithm: &'static Algorithm, out: &mut Vec<u8>) -> bool {
    list(out, tls.fingerprints(algorithm))
}

fn write_peer(fact: Fact, tls: &TlsSession, out: &mut Vec<u8>) -> bool {
    let Some(peer) = tls.peer() else { return false };
    match fact {
        Fact::DownstreamPeerSubject => list(out, [&peer.subject]),
        Fact::DownstreamPeerIssuer => list(out, [&peer.issuer]),
        Fact::DownstreamPeerSerial => list(out, [&peer.serial]),
        Fact::DownstreamPeerUriNames => list(out, &peer.uri_names),
        Fact::DownstreamPeerDnsNames => list(out, &peer.dns_names),
        Fact::DownstreamPeerEmailNames => list(out, &peer.email_names),
        Fact::DownstreamPeerIpNames => list(out, peer.ip_names.iter().map(IpAddr::to_string)),
        Fact::DownstreamPeerOtherNames => list(out, peer.other_names.iter().map(|OtherName { value, .. }| value)),
        _ => false,
    }
}

fn write_local(fact: Fact, tls: &TlsSession, out: &mut Vec<u8>) -> bool {
    let Some(local) = tls.local() else { return false };
    match fact {
        Fact::DownstreamLocalSubject => list(out, [&local.subject]),
        Fact::DownstreamLocalUriNames => list(out, &local.uri_names),
        Fact::DownstreamLocalDnsNames => list(out, &local.dns_names),
        Fact::DownstreamLocalEmailNames => list(out, &local.email_names),
        Fact::DownstreamLocalIpNames => list(out, local.ip_names.iter().map(IpAddr::to_string)),
        Fact::DownstreamLocalOtherNames => list(out, local.other_names.iter().map(|OtherName { value, .. }| value)),
        _ => false,
    }
}

/// False: it is empty.
fn list(out: &mut Vec<u8>, items: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
    let begin = out.len();
    for item in items {
        if out.len() > begin {
            out.push(b',');
        }
        out.extend_from_slice(item.as_ref().as_bytes());
    }
    out.len() > begin
}
