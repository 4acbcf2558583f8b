//! Carries a plan out: runs the backend's program and sets up what is outside of the firewall.
//!
//! Fifth in the flow. Order matters here, because a pod may be killed at any point. The policy route and the address come
//! first: without the rules that mark packets they do nothing. Then comes the ruleset, in one transaction. What an older
//! ruleset needed goes last. So at every point traffic is handled by the whole old or the whole new ruleset, and running
//! again completes what was cut short.

use nftables::helper::{self, NftablesError};
use nftables::schema::Nftables;
use thiserror::Error;

use crate::netlink::{Netlink, NetlinkError};
use crate::nft;
use crate::plan::Plan;
use crate::rule::Family;

#[derive(Debug, Error)]
pub enum ApplyError {
    #[error("the program nft can't be run; is nftables installed?")]
    NoNft(#[source] NftablesError),
    #[error("CAP_NET_ADMIN is missing: nft may not change the rules of this network namespace ({0})")]
    NftPermission(String),
    #[error("nft refused the ruleset and left everything as it was: {0}")]
    Nft(String),
    #[error("CAP_NET_ADMIN is missing: the routes of this network namespace can't be changed")]
    RoutePermission(#[source] NetlinkError),
    #[error(transparent)]
    Netlink(NetlinkError),
}

impl From<NetlinkError> for ApplyError {
    fn from(error: NetlinkError) -> Self {
        if error.is_permission() { Self::RoutePermission(error) } else { Self::Netlink(error) }
    }
}

/// Puts a plan in the place of whatever weft-init set up before.
pub fn apply(plan: &Plan) -> Result<(), ApplyError> {
    let mut netlink = Netlink::open()?;
    for family in families(plan) {
        if let Some(route) = plan.policy_route {
            netlink.add_policy_route(route, *family)?;
        }
    }
    if plan.ipv6 {
        netlink.add_bypass_address()?;
    }
    run_nft(&nft::batch(plan))?;
    delete_leftovers(&mut netlink, plan)
}

/// Removes everything that weft-init ever set up.
pub fn cleanup() -> Result<(), ApplyError> {
    let mut netlink = Netlink::open()?;
    run_nft(&nft::cleanup_batch())?;
    delete_leftovers(&mut netlink, &Plan { rules: Vec::new(), policy_route: None, ipv6: false })
}

fn delete_leftovers(netlink: &mut Netlink, plan: &Plan) -> Result<(), ApplyError> {
    for family in [Family::V4, Family::V6] {
        let keep = plan.policy_route.filter(|_| families(plan).contains(&family));
        netlink.delete_policy_routes_except(keep, family)?;
    }
    if !plan.ipv6 {
        netlink.delete_bypass_address()?;
    }
    Ok(())
}

fn families(plan: &Plan) -> &'static [Family] {
    if plan.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

fn run_nft(batch: &Nftables<'_>) -> Result<(), ApplyError> {
    match helper::apply_ruleset(batch) {
        Ok(()) => Ok(()),
        Err(NftablesError::NftFailed { stderr, .. }) => {
            let message = stderr.trim().to_owned();
            let is_permission = message.contains("Operation not permitted");
            Err(if is_permission { ApplyError::NftPermission(message) } else { ApplyError::Nft(message) })
        }
        Err(error) => Err(ApplyError::NoNft(error)),
    }
}
