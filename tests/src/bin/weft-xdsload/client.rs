//! A fleet of delta clients, each a task with a connection of its own, subscribed to the endpoints of all Services.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;
use weft_xds::pb::envoy::config::core::v3::Node;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_xds::type_url;

pub struct Fleet {
    clients: usize,
    news: mpsc::UnboundedReceiver<News>,
    tasks: JoinSet<Result<()>>,
}

/// A response that a client got.
#[derive(Clone, Debug)]
pub struct News {
    pub client: usize,
    pub services: Vec<usize>,
    pub bytes: usize,
    pub at: Instant,
}

const PATIENCE: Duration = Duration::from_secs(120);
const CONNECTING_AT_A_TIME: usize = 16;

impl Fleet {
    /// Returns once every client has everything.
    pub async fn connect(address: SocketAddr, clients: usize, services: usize) -> Result<Self> {
        let names = (0..services).map(|service| format!("outbound|80||s{service}.load.svc.cluster.local"));
        let names = Arc::new(names.collect::<Vec<_>>());
        let (news_in, mut news) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let mut waiting = 0;
        for client in 0..clients {
            tasks.spawn(run(address, client, names.clone(), news_in.clone()));
            waiting += 1;
            // All at once would measure how this program decodes.
            while waiting >= CONNECTING_AT_A_TIME || (waiting > 0 && client + 1 == clients) {
                let first = tokio::time::timeout(PATIENCE, news.recv()).await.context("a client got nothing")?;
                let first = first.context("the clients ended")?;
                ensure!(first.services.len() == services, "the first answer held {} Services", first.services.len());
                waiting -= 1;
            }
        }
        Ok(Self { clients, news, tasks })
    }

    pub fn size(&self) -> usize {
        self.clients
    }

    /// The response about a Service at every client.
    pub async fn expect_from_all(&mut self, service: usize) -> Result<Vec<News>> {
        let mut all = Vec::new();
        while all.len() < self.clients {
            let news = self.next().await?;
            ensure!(news.services == [service], "news of {:?} where {service} changed", news.services);
            all.push(news);
        }
        Ok(all)
    }

    /// How long after each change each client had it, or a newer one of the same Service; sorted.
    pub async fn lags(&mut self, written: &[(usize, Instant)]) -> Result<Vec<Duration>> {
        let mut newest = HashMap::new();
        for (service, at) in written {
            newest.insert(*service, *at);
        }
        let mut seen: HashMap<(usize, usize), Vec<Instant>> = HashMap::new();
        // Every client has the last state of every Service.
        let mut missing = self.clients * newest.len();
        while missing > 0 {
            let news = self.next().await?;
            for service in news.services {
                let moments = seen.entry((news.client, service)).or_default();
                let was_last = moments.last().is_some_and(|last| *last >= newest[&service]);
                moments.push(news.at);
                if !was_last && news.at >= newest[&service] {
                    missing -= 1;
                }
            }
        }
        let mut lags = Vec::new();
        for (service, at) in written {
            for client in 0..self.clients {
                let first = seen[&(client, *service)].iter().find(|moment| *moment >= at);
                lags.push(first.context("a change that never came")?.duration_since(*at));
            }
        }
        lags.sort();
        Ok(lags)
    }

    async fn next(&mut self) -> Result<News> {
        tokio::select! {
            news = tokio::time::timeout(PATIENCE, self.news.recv()) => {
                news.context("no news in time")?.context("the clients ended")
            }
            Some(ended) = self.tasks.join_next() => match ended? {
                Ok(()) => bail!("the control plane ended a stream"),
                Err(error) => Err(error.context("a client failed")),
            },
        }
    }
}

async fn run(
    address: SocketAddr,
    client: usize,
    names: Arc<Vec<String>>,
    news: mpsc::UnboundedSender<News>,
) -> Result<()> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let (requests, outgoing) = mpsc::channel(16);
    let node = Node {
        id: format!("sidecar~10.250.{}.{}~client-{client}.load~load.svc.cluster.local", client / 250, client % 250),
        ..Node::default()
    };
    let subscribe = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: type_url::CLUSTER_LOAD_ASSIGNMENT.to_owned(),
        resource_names_subscribe: names.to_vec(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(subscribe).await?;
    let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(1 << 30);
    let mut responses: Streaming<DeltaDiscoveryResponse> =
        service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let (at, bytes) = (Instant::now(), response.encoded_len());
        let services = response.resources.iter().map(|resource| number(&resource.name)).collect::<Result<Vec<_>>>()?;
        let acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(acknowledgement).await?;
        // Nobody listens any more: the measurement is over.
        if news.send(News { client, services, bytes, at }).is_err() {
            break;
        }
    }
    Ok(())
}

/// Of the Service in a cluster's name.
fn number(name: &str) -> Result<usize> {
    let digits = name.strip_prefix("outbound|80||s").and_then(|rest| rest.split('.').next());
    digits.context("another cluster's name")?.parse().context("a Service's number")
}
