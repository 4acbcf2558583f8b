//! The Services of the manifests in deploy/demo and tests/manifests: where callers find them and who is behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;

use crate::load::{Connections, Load, Plan};
use crate::mesh::Mesh;

/// The pod that calls the others.
pub const CLIENT: &str = "client";
/// HTTP, by three replicas.
pub const REVIEWS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 10)), 9080);
pub const REVIEWS_AUTHORITY: &str = "reviews:9080";
pub const REVIEWS_REPLICAS: [&str; 3] = ["reviews-v1-a", "reviews-v1-b", "reviews-v2-a"];
/// The file that lists the replicas.
pub const REVIEWS_SLICE: &str = "reviews-endpoints.yaml";
/// The same replicas by IPv6 (tests/manifests).
pub const REVIEWS_IPV6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd77, 0x96, 0, 0, 0, 0, 0, 0x10)), 9080);
/// TCP, answering line by line.
pub const TCP_ECHO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 20)), 9000);
/// gRPC, by two replicas (tests/manifests).
pub const GREETER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 40)), 9090);
/// The same application on a port whose protocol nobody has told.
pub const GREETER_UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 40)), 9191);
/// TCP, where the server speaks first (tests/manifests).
pub const DATABASE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 50)), 3306);
/// The same application on a port whose protocol nobody has told.
pub const DATABASE_UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 50)), 4406);
/// Where a sidecar calls its application from.
pub const INBOUND_SOURCE: &str = "127.0.0.6";

/// Three callers in the client's pod that ask reviews for `path`, a few hundred times a second together. Not more: a circuit
/// breaker's default is three retries under way at a time, and a dead replica must not use up more.
pub fn load_reviews(mesh: &Mesh, path: &str, connections: Connections) -> Result<Load> {
    let plan = Plan {
        target: REVIEWS,
        authority: REVIEWS_AUTHORITY.to_owned(),
        path: path.to_owned(),
        callers: 3,
        pause: Duration::from_millis(2),
        connections,
    };
    Ok(Load::start(&mesh.pod(CLIENT)?.namespace().entrance(), &plan))
}

/// Whether counters of this cluster are about reviews, at the caller or at a replica.
pub fn is_reviews(cluster: &str) -> bool {
    cluster.starts_with("outbound|9080||reviews.") || cluster.starts_with("inbound|9080|")
}
