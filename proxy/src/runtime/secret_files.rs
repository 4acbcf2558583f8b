//! Files that secrets name: says when one is to be read again.

use std::collections::HashMap;

use futures_util::future::select_all;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{config::config_source::ResourceKey, xds::files::Watch};

/// Changes that wait to be looked at; while it is full, those who report them wait.
const CHANGES_QUEUE: usize = 16;

pub(super) struct SecretFiles {
    changes: mpsc::Sender<ResourceKey>,
    tasks: HashMap<ResourceKey, JoinHandle<()>>,
}

impl SecretFiles {
    pub(super) fn new() -> (SecretFiles, mpsc::Receiver<ResourceKey>) {
        let (changes, changed) = mpsc::channel(CHANGES_QUEUE);
        (SecretFiles { changes, tasks: HashMap::new() }, changed)
    }

    /// From now on these are what the secret names.
    pub(super) fn follow(&mut self, key: ResourceKey, watches: Vec<Watch>) {
        self.forget(&key);
        if watches.is_empty() {
            return;
        }
        let (changes, secret) = (self.changes.clone(), key.clone());
        let task = tokio::spawn(async move {
            loop {
                select_all(watches.iter().map(|watch| Box::pin(watch.changed()))).await;
                if changes.send(secret.clone()).await.is_err() {
                    return;
                }
            }
        });
        self.tasks.insert(key, task);
    }

    pub(super) fn forget(&mut self, key: &ResourceKey) {
        if let Some(task) = self.tasks.remove(key) {
            task.abort();
        }
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}
