//! weft-init: redirects the traffic of a pod's network namespace to its sidecar proxy.
//!
//! The flow: [`args`] (text) -> [`settings`] (typed) -> [`plan`] (rules) -> [`nft`] or [`iptables`] (the backend's terms) ->
//! [`apply`] -> [`verify`]. Everything up to the backend's terms is pure.
//!
//! Invariants: text ends at the settings, so nothing that a user writes can become a rule; a plan is applied
//! whole or not at all; nothing that weft-init did not set up is changed.

pub mod accounts;
pub mod apply;
pub mod args;
pub mod backend;
pub mod guard;
pub mod iptables;
pub mod machine;
pub mod netlink;
pub mod nft;
pub mod plan;
pub mod probe;
pub mod program;
pub mod rule;
pub mod settings;
pub mod value;
pub mod verify;
