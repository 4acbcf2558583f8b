//! A large mesh: one endpoint's change costs every client one small message, soon.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use prost::Message as _;
use weft_control::translate::resource::Kind;

use crate::harness::{Control, cluster_name};

const SERVICES: usize = 2_000;
const ENDPOINTS: usize = 10;
const FILES: usize = 20;
const CLIENTS: usize = 40;

/// One Service with its endpoints; `first` is the last byte of the first one's address.
fn service(index: usize, first: u8) -> String {
    let (high, low) = (index / 250, index % 250);
    let rest = (1..ENDPOINTS).map(|endpoint| format!("10.{}.{high}.{low}", endpoint + 10));
    let addresses = std::iter::once(format!("10.9.{high}.{first}")).chain(rest).collect::<Vec<_>>();
    crate::harness::service(
        &format!("s{index}"),
        &format!("10.96.{high}.{low}"),
        &addresses.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn file(number: usize, first: u8) -> String {
    let mut text = String::new();
    for index in (0..SERVICES).filter(|index| index % FILES == number) {
        let first = if index == number { first } else { 1 };
        writeln!(text, "---\n{}", service(index, first)).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_in_a_large_mesh_is_one_small_message_to_each_client() {
    let control = Control::start(&[]).await;
    for number in 0..FILES {
        control.write(&format!("{number}.yaml"), &file(number, 1));
    }
    crate::harness::eventually("all Services are known", async || {
        // The text is large; its length tells enough.
        control.page("/debug/registry").await.1.matches("\"publish_not_ready\"").count() == SERVICES
    })
    .await;
    let names = (0..SERVICES).map(|index| cluster_name(&format!("s{index}"))).collect::<Vec<_>>();
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = control.delta().await;
        client.subscribe(Kind::Endpoints, &names).await;
        let all = client.expect(Kind::Endpoints).await;
        assert_eq!(all.resources.len(), SERVICES);
        client.acknowledge(&all).await;
        clients.push(client);
    }
    let mut latencies = Vec::new();
    for round in 2..12 {
        let changed = usize::from(round) % FILES;
        let text = file(changed, round);
        let started = Instant::now();
        control.write(&format!("{changed}.yaml"), &text);
        for client in &mut clients {
            let news = client.expect(Kind::Endpoints).await;
            assert_eq!(news.resources.len(), 1);
            assert_eq!(news.resources[0].name, cluster_name(&format!("s{changed}")));
            assert!(news.encoded_len() < 1500, "{} bytes", news.encoded_len());
            client.acknowledge(&news).await;
            latencies.push(started.elapsed());
        }
    }
    latencies.sort();
    let (median, last) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
    println!("{CLIENTS} clients, {SERVICES} Services: median {median:?}, last {last:?}");
    // Far above what it takes; a change that costs a pass over everything for every client is far above this.
    assert!(median < Duration::from_secs(2), "median {median:?}");
}
