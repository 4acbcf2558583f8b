//! weft-init's rules, proved by real connections in network namespaces. Needs root, nftables, iptables and iproute2.
#![expect(clippy::unwrap_used, reason = "in tests, a panic is the report; the lint's own exception misses helpers")]

mod arguments;
mod differential;
mod lifecycle;
mod pod;
mod privilege;
mod server;
mod text;
mod tproxy;
mod verify;
