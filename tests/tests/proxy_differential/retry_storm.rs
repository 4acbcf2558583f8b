//! Four hops and a leaf that fails: how many requests reach the leaf for each that is made, with a mesh's default retries at
//! every hop.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::bootstrap::{http_filter, socket, static_cluster};
use weft_tests::http1::Connection;

use crate::config::{Ports, local};
use crate::pair::{Pair, TIMEOUT, Target};
use crate::resilience::{HOSTS, start_hosts};

const HOPS: usize = 4;
const CALLERS: usize = 10;

/// Prints the figures of both.
pub(crate) fn compare() -> Result<()> {
    let pair = Pair::start_with(&bootstrap, start_hosts)?;
    // Envoy makes up to 81 requests of one, with pauses between: a few tell.
    let envoys = pair.enter(|| leaf_load(&pair.envoy, 2))?;
    let ours = pair.enter(|| leaf_load(&pair.weft, 60))?;
    println!("requests at the leaf for each that is made: Envoy {envoys:.2}, ours {ours:.2}");
    ensure!(ours <= 1.2, "{ours:.2} requests at the leaf for each");
    ensure!(envoys > ours, "Envoy makes fewer: {envoys:.2}");
    Ok(())
}

/// Each caller makes so many.
fn leaf_load(target: &Target, requests: usize) -> Result<f64> {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut connection = Connection::open(target.ports.scene(0), TIMEOUT)?;
                    for _ in 0..requests {
                        let answer = connection.get("any.test", "/", &[("x-do", "9501=503")])?;
                        ensure!(answer.status == 503, "status {}", answer.status);
                        let hint = answer.header("x-weft-retries-exhausted");
                        ensure!(hint.is_none(), "the caller is told {hint:?}, which counts no tries");
                    }
                    Ok(())
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    let counted = target.counters(&["envoy_cluster_upstream_rq_total"])?;
    let of = |cluster: &str| -> Result<f64> {
        let name = format!("envoy_cluster_upstream_rq_total{{envoy_cluster_name=\"{cluster}\"}}");
        Ok(counted.value(&name).context("not counted")?.parse()?)
    };
    Ok(of("leaf")? / (CALLERS * requests) as f64)
}

fn bootstrap(ports: Ports, _access_log: &Path) -> String {
    let address = |at: SocketAddr| socket(&at.ip().to_string(), at.port());
    let name = |hop: usize| if hop == HOPS { "leaf".to_owned() } else { format!("hop-{hop}") };
    let cluster = |hop: usize| {
        let at = if hop == HOPS { local(HOSTS[0]) } else { ports.scene(hop) };
        let mut cluster = static_cluster(&name(hop), at);
        cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": u32::MAX}]});
        cluster
    };
    let listener = |hop: usize| {
        json!({
            "name": format!("hop-{hop}"),
            "address": address(ports.scene(hop)),
            "filter_chains": [{"filters": [http_filter(&format!("hop-{hop}"), &routes(&name(hop + 1)))]}],
        })
    };
    let document = json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(ports.admin())},
        "static_resources": {
            "clusters": (1..=HOPS).map(cluster).collect::<Vec<_>>(),
            "listeners": (0..HOPS).map(listener).collect::<Vec<_>>(),
        },
    });
    format!("{document:#}\n")
}

/// What a sidecar does with every request that leaves its pod.
fn routes(cluster: &str) -> Value {
    let policy = json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "retriable_status_codes": [503],
        "num_retries": 2,
        "host_selection_retry_max_attempts": "5",
        "retry_host_predicate": [{"name": "previous", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        }}],
    });
    json!({"virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "include_request_attempt_count": true,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "retry_policy": policy, "timeout": "0s"}}],
    }]})
}
