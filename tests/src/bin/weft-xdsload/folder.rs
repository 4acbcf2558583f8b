//! A folder of generated Services, a file each, and edits of their endpoints.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

pub struct Folder {
    folder: TempDir,
    endpoints: usize,
    /// Makes each change another one.
    changes: Cell<usize>,
}

impl Folder {
    pub fn create(services: usize, endpoints: usize) -> Result<Self> {
        let folder = Self { folder: tempfile::tempdir()?, endpoints, changes: Cell::new(0) };
        for service in 0..services {
            let (high, low) = (service / 250, service % 250);
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: load}}\n\
                 spec: {{clusterIP: 10.96.{high}.{low}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
            );
            fs::write(folder.path().join(format!("s{service}.yaml")), text)?;
            folder.write_endpoints(service, 0)?;
        }
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces one endpoint of a Service; gives the moment from which on it could be seen.
    pub fn change(&self, service: usize) -> Result<Instant> {
        self.changes.set(self.changes.get() + 1);
        self.write_endpoints(service, self.changes.get())
    }

    fn write_endpoints(&self, service: usize, change: usize) -> Result<Instant> {
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: s{service}-x, namespace: load, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
             ports: [{{name: http, port: 8080}}]\nendpoints:\n"
        );
        writeln!(text, "- addresses: [10.200.{}.{}]", change / 250 % 250, change % 250)?;
        for endpoint in 1..self.endpoints {
            let (high, low) = (service / 250, service % 250);
            writeln!(text, "- addresses: [10.{}.{high}.{low}]", endpoint % 90 + 100)?;
        }
        let (temporary, file) = (self.path().join(".new"), self.path().join(format!("s{service}-endpoints.yaml")));
        fs::write(&temporary, text)?;
        let written = Instant::now();
        fs::rename(&temporary, &file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(written)
    }
}
