//! Memory stays within bounds whatever clients do, or don't.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use weft_control::translate::resource::Kind;
use weft_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_xds::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::harness::{Process, cluster_name, node, service, sotw_of};

const SERVICES: usize = 200;
const CLIENTS: usize = 200;
const CHANGES: u8 = 40;
/// The least that HTTP/2 allows to ask for.
const WINDOW_BYTES: u32 = 65_535;
/// Each may hold its windows, what is on its way to the socket and in the kernel, and its subscriptions.
const KIB_PER_CLIENT_MAX: u64 = 512;

/// All Services in one file, of ten endpoints each, one of which is `last`.
fn mesh(last: u8) -> String {
    let of = |index: usize| {
        let addresses = (0..9).map(|n| format!("10.{n}.{}.{}", index / 250, index % 250));
        let addresses = addresses.chain([format!("10.100.{index}.{last}")]).collect::<Vec<_>>();
        let addresses = addresses.iter().map(String::as_str).collect::<Vec<_>>();
        service(&format!("s{index}"), &format!("10.96.{}.{}", index / 250, index % 250), &addresses)
    };
    (0..SERVICES).map(of).collect::<Vec<_>>().join("---\n")
}

/// Its own connection, with windows as small as can be.
async fn connect(process: &Process) -> AggregatedDiscoveryServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", process.xds)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    AggregatedDiscoveryServiceClient::new(endpoint.connect().await.unwrap())
}

/// Asks for everything, and again and again for what changes, and never reads an answer.
#[tokio::test]
async fn clients_that_never_read_hold_little_and_the_newest_state_reaches_who_reads() {
    let process = Process::start(&[("mesh.yaml", &mesh(1))]);
    let mut reader = sotw_of(process.xds).await;
    reader.subscribe().await;
    let before = process.memory_kib("VmRSS");
    let names = (0..SERVICES).map(|index| cluster_name(&format!("s{index}"))).collect::<Vec<_>>();
    let mut silent: Vec<Box<dyn std::any::Any>> = Vec::new();
    for index in 0..CLIENTS {
        let mut client = connect(&process).await;
        if index % 2 == 0 {
            let (requests, outgoing) = mpsc::channel(8);
            for (kind, resource_names) in
                [(Kind::Cluster, vec![]), (Kind::Endpoints, names.clone()), (Kind::Listener, vec![])]
            {
                let type_url = kind.type_url().to_owned();
                let node = node(crate::harness::NODE);
                let request = DiscoveryRequest { node, type_url, resource_names, ..DiscoveryRequest::default() };
                requests.send(request).await.unwrap();
            }
            let outgoing = ReceiverStream::new(outgoing);
            let responses = client.stream_aggregated_resources(outgoing).await.unwrap().into_inner();
            silent.push(Box::new((requests, responses)));
        } else {
            let (requests, outgoing) = mpsc::channel(8);
            for (kind, resource_names_subscribe) in
                [(Kind::Cluster, vec![]), (Kind::Endpoints, names.clone()), (Kind::Listener, vec![])]
            {
                let type_url = kind.type_url().to_owned();
                let node = node(crate::harness::NODE);
                let request = DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() };
                requests.send(request).await.unwrap();
            }
            let outgoing = ReceiverStream::new(outgoing);
            let responses = client.delta_aggregated_resources(outgoing).await.unwrap().into_inner();
            silent.push(Box::new((requests, responses)));
        }
    }
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    for last in 2..CHANGES {
        process.write("mesh.yaml", &mesh(last));
        let news = reader.expect(Kind::Endpoints).await;
        assert_eq!(news.resources.len(), SERVICES, "every Service changed");
        reader.ask(Kind::Endpoints, &names).await;
    }
    let after = process.memory_kib("VmRSS");
    let per_client = after.saturating_sub(before) / CLIENTS as u64;
    println!("{before} KiB before, {after} KiB after: {per_client} KiB a client");
    assert!(per_client < KIB_PER_CLIENT_MAX, "{before} KiB before, {after} KiB after");
    assert_eq!(silent.len(), CLIENTS);
}
