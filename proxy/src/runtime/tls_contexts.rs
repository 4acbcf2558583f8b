//! The TLS contexts that name secrets, and the secrets: brings each to the others when it comes. Main thread only; the data
//! path sees a context's newest configuration at its next handshake.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::config::{
    FieldError,
    config_source::ResourceKey,
    tls::{DownstreamTls, Secret, UpstreamTls},
};

#[derive(Default)]
pub(super) struct TlsContexts {
    secrets: HashMap<ResourceKey, Arc<Secret>>,
    /// Those that live, and some that lived until lately.
    users: HashMap<ResourceKey, Vec<Context>>,
}

#[derive(Clone)]
enum Context {
    Downstream(Weak<DownstreamTls>),
    Upstream(Weak<UpstreamTls>),
}

impl TlsContexts {
    pub(super) fn add_downstream(&mut self, tls: &Arc<DownstreamTls>) {
        let keys = tls.secrets().map(|secret| secret.key.clone()).collect();
        self.add(keys, &Context::Downstream(Arc::downgrade(tls)));
    }

    pub(super) fn add_upstream(&mut self, tls: &Arc<UpstreamTls>) {
        let keys = tls.secrets().map(|secret| secret.key.clone()).collect();
        self.add(keys, &Context::Upstream(Arc::downgrade(tls)));
    }

    pub(super) fn update(&mut self, key: ResourceKey, secret: Arc<Secret>) {
        self.secrets.insert(key.clone(), secret);
        let Some(mut users) = self.users.remove(&key) else { return };
        users.retain(|context| self.refresh(context));
        self.users.insert(key, users);
    }

    /// Contexts keep what they were made with.
    pub(super) fn remove(&mut self, key: &ResourceKey) {
        self.secrets.remove(key);
        self.users.remove(key);
    }

    fn add(&mut self, keys: Vec<ResourceKey>, context: &Context) {
        if keys.is_empty() {
            return;
        }
        for key in keys {
            let users = self.users.entry(key).or_default();
            // Listeners and clusters come and go; the dead are buried before they outnumber the living.
            if users.len().is_power_of_two() {
                users.retain(Context::is_alive);
            }
            users.push(context.clone());
        }
        self.refresh(context);
    }

    /// Whether it lives.
    fn refresh(&self, context: &Context) -> bool {
        let find = |key: &ResourceKey| self.secrets.get(key).cloned();
        let refreshed: Result<(), FieldError> = match context {
            Context::Downstream(tls) => match tls.upgrade() {
                Some(tls) => tls.refresh(&find),
                None => return false,
            },
            Context::Upstream(tls) => match tls.upgrade() {
                Some(tls) => tls.refresh(&find),
                None => return false,
            },
        };
        if let Err(error) = refreshed {
            tracing::warn!(%error, "a TLS context stays as it was: its new secret does not fit");
        }
        true
    }
}

impl Context {
    fn is_alive(&self) -> bool {
        match self {
            Context::Downstream(tls) => tls.strong_count() > 0,
            Context::Upstream(tls) => tls.strong_count() > 0,
        }
    }
}
