//! Which of a server's certificates a client gets, by the server name that it asks for and the keys that it understands, as
//! Envoy chooses. Pure.

use std::{collections::HashMap, sync::Arc};

use rustls::{ServerConfig, SignatureScheme, server::ClientHello, sign::CertifiedKey};

use crate::tls::CertificateFacts;

/// One certificate with the configuration that shows it.
#[derive(Clone)]
pub struct Choice {
    pub config: Arc<ServerConfig>,
    pub certificate: Arc<CertifiedKey>,
}

/// Never empty.
pub(super) struct Selection {
    choices: Vec<Choice>,
    is_ecdsa: Vec<bool>,
    /// Lower case names, those that begin with `*.` too, to the certificates that have them.
    by_name: HashMap<String, Vec<usize>>,
    /// A certificate whose key the client understands is looked for among all where none has the name.
    scans_all: bool,
}

impl Selection {
    pub(super) fn new(choices: Vec<Choice>, scans_all: bool) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, choice) in choices.iter().enumerate() {
            for name in names(&choice.certificate) {
                by_name.entry(name).or_default().push(at);
            }
        }
        let is_ecdsa = choices.iter().map(|choice| is_ecdsa(&choice.certificate)).collect();
        Self { choices, is_ecdsa, by_name, scans_all }
    }

    pub(super) fn only(&self) -> Option<&Choice> {
        match &self.choices[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> &Choice {
        let understands_ecdsa = hello.signature_schemes().iter().any(|scheme| {
            let ecdsa = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384];
            ecdsa.contains(scheme) || *scheme == SignatureScheme::ECDSA_NISTP521_SHA512
        });
        &self.choices[self.place(hello.server_name(), understands_ecdsa)]
    }

    fn place(&self, server_name: Option<&str>, understands_ecdsa: bool) -> usize {
        let wildcard = |name: &str| name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let named = server_name
            .map(str::to_ascii_lowercase)
            .and_then(|name| self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard(&name)?)));
        if let Some(named) = named {
            return self.best(named.iter().copied(), understands_ecdsa).unwrap_or(named[0]);
        }
        let scans = server_name.is_none() || self.scans_all;
        let scanned = scans.then(|| self.best(0..self.choices.len(), understands_ecdsa)).flatten();
        scanned.unwrap_or(0)
    }

    /// The first with an ECDSA key where the client understands that, else the first with another.
    fn best(&self, mut among: impl Iterator<Item = usize> + Clone, understands_ecdsa: bool) -> Option<usize> {
        let others = among.clone();
        let ecdsa = understands_ecdsa.then(|| among.find(|at| self.is_ecdsa[*at])).flatten();
        ecdsa.or_else(|| others.into_iter().find(|at| !self.is_ecdsa[*at]))
    }
}

/// A certificate without DNS names goes by its common name.
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(facts) = key.cert.first().and_then(|leaf| CertificateFacts::parse(leaf)) else { return Vec::new() };
    let mut names: Vec<String> = facts.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    if names.is_empty() {
        names.extend(facts.common_name.map(|name| name.to_ascii_lowercase()));
    }
    names.dedup();
    names
}

fn is_ecdsa(key: &CertifiedKey) -> bool {
    key.key.algorithm() == rustls::SignatureAlgorithm::ECDSA
}
