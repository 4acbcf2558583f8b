//! The Kubernetes manifests of a mesh, as the harness reads them: it plays the kubelet (Pods become namespaces and processes) and
//! the cluster's DNS (Services become names).
//!
//! The same files are what `weft-control` watches. [`EndpointSliceFile`] edits them as a person or a controller would, by
//! replacing the file.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// What a folder of manifests says.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
}

/// A pod and the one container that its application is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    pub command: Vec<String>,
    pub uid: u32,
    pub interception: Interception,
    /// `HOSTNAME.SUBDOMAIN`, by which DNS knows pods of headless Services.
    pub dns_name: Option<String>,
}

/// How inbound traffic comes to the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interception {
    Redirect,
    Tproxy,
}

/// A Service with virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
}

impl Manifests {
    /// Reads every YAML file right in `folder`, in the order of their names.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut manifests = Self::default();
        for file in yaml_files(folder)? {
            let text = fs::read_to_string(&file)?;
            manifests.add(&text).with_context(|| format!("in {}", file.display()))?;
        }
        Ok(manifests)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let documents: Vec<Value> =
            serde_saphyr::from_str_multiple::<Value, _>(text).map_err(|e| anyhow::anyhow!("{e}"))?;
        for document in documents {
            match document["kind"].as_str() {
                Some("Pod") => self.pods.push(Pod::try_from(serde_json::from_value::<PodDocument>(document)?)?),
                Some("Service") => {
                    self.services.push(Service::from(serde_json::from_value::<ServiceDocument>(document)?))
                }
                // The kubelet and the DNS do not look at these.
                Some("EndpointSlice" | "Namespace" | "Node" | "ServiceAccount") => {}
                other => bail!("unexpected kind {other:?}"),
            }
        }
        Ok(())
    }

    /// What a pod of `namespace` would get from the cluster's DNS.
    pub fn hosts_for(&self, namespace: &str) -> Vec<(IpAddr, Vec<String>)> {
        let names = |service: &Service| {
            let long = format!("{}.{}", service.name, service.namespace);
            let mut names = vec![format!("{long}.svc.cluster.local"), format!("{long}.svc"), long];
            if service.namespace == namespace {
                names.insert(0, service.name.clone());
            }
            names
        };
        let of_services = self
            .services
            .iter()
            .flat_map(|service| service.addresses.iter().map(move |address| (*address, names(service))));
        let of_pods = self.pods.iter().filter_map(|pod| {
            let name = format!("{}.{}.svc.cluster.local", pod.dns_name.as_ref()?, pod.namespace);
            Some((*pod.addresses.first()?, vec![name]))
        });
        of_services.chain(of_pods).collect()
    }
}

/// Copies the YAML files of `from` into `to`.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in yaml_files(from)? {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(&file, to.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_kustomization = path.file_stem().is_some_and(|stem| stem == "kustomization");
        if path.extension().is_some_and(|extension| extension == "yaml") && !is_kustomization {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file with one EndpointSlice in it, and the endpoints that it had at first.
#[derive(Debug, Clone)]
pub struct EndpointSliceFile {
    path: PathBuf,
    document: Value,
}

impl EndpointSliceFile {
    /// Edits will be made to `path`, starting from what `original` says.
    pub fn open(original: &Path, path: &Path) -> Result<Self> {
        let text = fs::read_to_string(original).with_context(|| format!("cannot read {}", original.display()))?;
        let document =
            serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", original.display()))?;
        Ok(Self { path: path.to_owned(), document })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file with only those of the original endpoints whose pod `wanted` says yes to.
    pub fn keep(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        self.write(|endpoint| {
            wanted(endpoint["targetRef"]["name"].as_str().unwrap_or_default()).then(|| endpoint.clone())
        })
    }

    /// Writes the file with all of the original endpoints, `change`d or left out.
    pub fn write(&self, change: impl Fn(&Value) -> Option<Value>) -> Result<()> {
        let mut document = self.document.clone();
        let endpoints = document["endpoints"].as_array_mut().context("an EndpointSlice has endpoints")?;
        *endpoints = endpoints.iter().filter_map(change).collect();
        let text = serde_saphyr::to_string(&document)?;
        // Written beside and renamed, as editors do, so that no reader sees half a file.
        let beside = self.path.with_extension("yaml.new");
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, &self.path)?)
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct PodDocument {
    metadata: Metadata,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    containers: Vec<Container>,
    hostname: Option<String>,
    subdomain: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    security_context: SecurityContext,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: u32,
}

#[derive(Debug, Deserialize)]
struct PodStatus {
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: IpAddr,
}

#[derive(Debug, Deserialize)]
struct ServiceDocument {
    metadata: Metadata,
    spec: ServiceSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Vec<String>,
}

impl TryFrom<PodDocument> for Pod {
    type Error = anyhow::Error;

    fn try_from(document: PodDocument) -> Result<Self> {
        let PodDocument { metadata: Metadata { name, namespace, labels, annotations }, spec, status } = document;
        let [container] = <[Container; 1]>::try_from(spec.containers).map_err(|containers| {
            anyhow::anyhow!("pod {name} has {} containers; the harness runs one", containers.len())
        })?;
        let command = [container.command, container.args].concat();
        let addresses = status.pod_ips.into_iter().map(|pod_ip| pod_ip.ip).collect();
        let interception = match annotations.get("sidecar.istio.io/interceptionMode").map(String::as_str) {
            None | Some("REDIRECT") => Interception::Redirect,
            Some("TPROXY") => Interception::Tproxy,
            Some(other) => bail!("pod {name} wants its traffic intercepted by {other:?}"),
        };
        let dns_name = spec.hostname.zip(spec.subdomain).map(|(hostname, subdomain)| format!("{hostname}.{subdomain}"));
        let uid = container.security_context.run_as_user;
        Ok(Self { name, namespace, labels, addresses, command, uid, interception, dns_name })
    }
}

impl From<ServiceDocument> for Service {
    fn from(document: ServiceDocument) -> Self {
        let ServiceDocument { metadata, spec } = document;
        // A headless Service says "None" where an address would be.
        let addresses = spec.cluster_ips.iter().filter_map(|address| address.parse().ok()).collect();
        Self { name: metadata.name, namespace: metadata.namespace, addresses }
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: a}}
spec:
  hostname: a-0
  subdomain: headless
  containers:
  - {name: app, image: x, command: [weft-origin], args: [--http, '9080'], securityContext: {runAsUser: 1000}}
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: shop}
spec: {clusterIPs: [10.96.0.1], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: other}
spec: {clusterIPs: [None]}
";

    #[test]
    fn reads_pods_and_names_services() {
        let mut manifests = Manifests::default();
        manifests.add(POD).unwrap();
        let pod = &manifests.pods[0];
        assert_eq!((pod.name.as_str(), pod.uid, pod.addresses.len()), ("a", 1000, 2));
        assert_eq!(pod.command, ["weft-origin", "--http", "9080"]);
        let hosts = manifests.hosts_for("shop");
        assert_eq!(hosts.len(), 2, "a headless Service has no virtual address");
        assert_eq!(hosts[1].1, ["a-0.headless.shop.svc.cluster.local"]);
        assert_eq!(hosts[0].1, ["s", "s.shop.svc.cluster.local", "s.shop.svc", "s.shop"]);
        assert!(!manifests.hosts_for("other")[0].1.contains(&"s".to_owned()));
    }

    #[test]
    fn refuses_kinds_that_it_would_not_play() {
        let error = Manifests::default().add("kind: Deployment").unwrap_err().to_string();
        assert!(error.contains("Deployment"), "{error}");
    }

    #[test]
    fn an_edited_slice_keeps_everything_but_the_endpoints_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slice.yaml");
        let text = "kind: EndpointSlice\nports: [{port: 80}]\nendpoints:\n- {addresses: [10.0.0.1], targetRef: {name: a}}\n- {addresses: [10.0.0.2], targetRef: {name: b}}\n";
        fs::write(&path, text).unwrap();
        let file = EndpointSliceFile::open(&path, &path).unwrap();
        file.keep(|pod| pod == "b").unwrap();
        let edited = EndpointSliceFile::open(&path, &path).unwrap();
        assert_eq!(edited.document["endpoints"].as_array().unwrap().len(), 1);
        assert_eq!(edited.document["endpoints"][0]["addresses"][0], "10.0.0.2");
        assert_eq!(edited.document["ports"], file.document["ports"]);
        file.keep(|_| true).unwrap();
        assert_eq!(EndpointSliceFile::open(&path, &path).unwrap().document, file.document);
    }
}
