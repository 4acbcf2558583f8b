//! Carries a plan out: runs the backend's programs and sets up what is outside of the firewall.
//!
//! Fifth in the flow. Order matters here, because a pod may be killed at any point. The policy route and the address come
//! first: without the rules that mark packets they do nothing. Then comes the ruleset, in one transaction. What an older
//! ruleset needed goes last. So at every point traffic is handled by the whole old or the whole new ruleset, running again
//! completes what was cut short, and a failure is taken back.
//!
//! The iptables backend's transactions hold one table of one family only, so its changes are made in a process of their
//! own ([`crate::guard`]) that survives the kill of this one.

use nftables::batch::Batch;
use nftables::schema::{NfCmd, NfListObject, NfObject, Nftables, Table as NftTable};
use nftables::types::NfFamily;
use std::path::Path;
use thiserror::Error;
use tracing::{info, warn};

use crate::backend::{Backend, BackendError, Chosen, InPlace, run_nft};
use crate::guard::{self, GuardError};
use crate::iptables::{self, PREFIX, Ruleset};
use crate::netlink::{Netlink, NetlinkError};
use crate::nft;
use crate::plan::Plan;
use crate::program::{self, Iptables, ProgramError};
use crate::rule::Family;
use crate::settings::{BackendChoice, Foreign};

#[derive(Debug, Error)]
pub enum ApplyError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("there is no {0}-restore for the IPv6 part of the rules; nothing was changed")]
    NoIp6tables(&'static str),
    #[error("CAP_NET_ADMIN is missing: the routes of this network namespace can't be changed")]
    RoutePermission(#[source] NetlinkError),
    #[error(transparent)]
    Netlink(NetlinkError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error(
        "Istio's own redirection is in place ({0}) and would act before or after this one; --reconcile replaces it, \
         --force-apply leaves it there"
    )]
    Foreign(String),
}

impl From<NetlinkError> for ApplyError {
    fn from(error: NetlinkError) -> Self {
        if error.is_permission() { Self::RoutePermission(error) } else { Self::Netlink(error) }
    }
}

/// Who did what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Here,
    /// Another process, which did all that the command line says and ended with this status.
    Guarded(u8),
}

/// Puts a plan in the place of whatever weft-init set up before, by whichever backend.
pub fn apply(
    plan: &Plan,
    choice: BackendChoice,
    foreign: Foreign,
    lock_file: Option<&Path>,
) -> Result<Done, ApplyError> {
    let Chosen { backend, reason, instead } = Backend::choose(choice, lock_file)?;
    if matches!(backend, Backend::Iptables(_)) && !guard::is_guarded() {
        return Ok(Done::Guarded(guard::run()?));
    }
    info!(backend = backend.name(), reason, "backend chosen");
    let applied = apply_by(plan, &backend, foreign, lock_file);
    match (applied, instead) {
        // The kernel may have no nftables, or not all of it that the rules need.
        (
            Err(ApplyError::Program(error @ (ProgramError::Failed { .. } | ProgramError::Run { .. }))),
            Some(iptables),
        ) => {
            warn!(backend = iptables.name, reason = %error, "the rules were refused, another backend is tried");
            apply_by(plan, &Backend::Iptables(iptables), foreign, lock_file)
        }
        (applied, _) => applied,
    }
}

/// Removes everything that weft-init ever set up.
pub fn cleanup(lock_file: Option<&Path>) -> Result<Done, ApplyError> {
    if program::find("nft").is_none() && program::find("iptables-save").is_none() {
        return Err(BackendError::None.into());
    }
    let in_place = InPlace::read(None, lock_file)?;
    if !in_place.iptables.iter().all(|iptables| iptables.ours.is_empty()) && !guard::is_guarded() {
        return Ok(Done::Guarded(guard::run()?));
    }
    let mut netlink = Netlink::open()?;
    delete_rules(&in_place, None, Foreign::Keep)?;
    delete_leftovers(&mut netlink, &Plan::nothing())?;
    Ok(Done::Here)
}

fn apply_by(plan: &Plan, backend: &Backend, foreign: Foreign, lock_file: Option<&Path>) -> Result<Done, ApplyError> {
    let in_place = InPlace::read(Some(backend), lock_file)?;
    let istio = in_place.istio();
    if !istio.is_empty() {
        match foreign {
            Foreign::Refuse => return Err(ApplyError::Foreign(istio.join(", "))),
            Foreign::Replace => info!(rules = ?istio, "Istio's own redirection is replaced"),
            Foreign::Keep => warn!(rules = ?istio, "Istio's own redirection stays in place, as asked for"),
        }
    }
    let uses_iptables =
        matches!(backend, Backend::Iptables(_)) || in_place.iptables.iter().any(|one| !one.ours.is_empty());
    if uses_iptables && !guard::is_guarded() {
        return Ok(Done::Guarded(guard::run()?));
    }
    let mut netlink = Netlink::open()?;
    let before = netlink.in_place()?;
    let changed = prepare(&mut netlink, plan).and_then(|()| match backend {
        Backend::Nft(nft) => Ok(run_nft(nft, &replacement(plan, &in_place, foreign))?),
        Backend::Iptables(iptables) => restore_all(plan, iptables, &in_place),
    });
    if let Err(error) = changed {
        // The first failure is the one to be told.
        if let Err(second) = netlink.restore(&before) {
            warn!(error = %second, "what was set up outside of the firewall could not be taken back");
        }
        return Err(error);
    }
    delete_rules(&in_place, Some(backend), foreign)?;
    delete_leftovers(&mut netlink, plan)?;
    Ok(Done::Here)
}

/// What does nothing by itself, and has to be there when the rules come.
fn prepare(netlink: &mut Netlink, plan: &Plan) -> Result<(), ApplyError> {
    for family in families(plan) {
        if let Some(route) = plan.policy_route {
            netlink.add_policy_route(route, *family)?;
        }
    }
    if plan.ipv6 {
        netlink.add_bypass_address()?;
    }
    Ok(())
}

/// What only an older ruleset needed.
fn delete_leftovers(netlink: &mut Netlink, plan: &Plan) -> Result<(), ApplyError> {
    for family in [Family::V4, Family::V6] {
        let keep: Vec<_> = plan.policy_route.filter(|_| families(plan).contains(&family)).into_iter().collect();
        netlink.delete_policy_routes_except(&keep, family)?;
    }
    if !plan.ipv6 {
        netlink.delete_bypass_address()?;
    }
    Ok(())
}

/// Deletes the rules of all backends but `except`; Istio's along with them, if they are to be replaced.
fn delete_rules(in_place: &InPlace, except: Option<&Backend>, foreign: Foreign) -> Result<(), ApplyError> {
    let nothing = Ruleset::default();
    if !matches!(except, Some(Backend::Nft(_)))
        && let Some(nft) = program::find("nft")
    {
        let replaces_istio = foreign == Foreign::Replace && !in_place.istio_tables.is_empty();
        if replaces_istio || !in_place.mesh_tables.is_empty() {
            run_nft(&nft, &replacement(&Plan::nothing(), in_place, foreign))?;
        }
    }
    for iptables in &in_place.iptables {
        let Some(restore) = iptables.programs.restore(iptables.family) else { continue };
        let is_backend = matches!(except, Some(Backend::Iptables(backend)) if backend.name == iptables.programs.name);
        if !is_backend && !iptables.ours.is_empty() {
            program::run(&restore, &iptables::transition(&iptables.ours, &nothing))?;
        }
        if foreign == Foreign::Replace && !iptables.istio.is_empty() {
            program::run(&restore, &iptables::transition(&iptables.istio, &nothing))?;
        }
    }
    Ok(())
}

/// The transaction of a plan; Istio's tables go in the same one, so that there is no moment without either.
fn replacement(plan: &Plan, in_place: &InPlace, foreign: Foreign) -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.add_all(nft::batch(plan).objects.into_owned());
    if foreign == Foreign::Replace {
        for name in &in_place.istio_tables {
            let table = NftTable { family: NfFamily::INet, name: name.clone().into(), handle: None };
            batch.add_all([NfObject::CmdObject(NfCmd::Delete(NfListObject::Table(table)))]);
        }
    }
    batch.to_nftables()
}

/// Restores both families, or neither: when one fails, what was there before comes back.
fn restore_all(plan: &Plan, iptables: &Iptables, in_place: &InPlace) -> Result<(), ApplyError> {
    if plan.ipv6 && iptables.restore(Family::V6).is_none() {
        return Err(ApplyError::NoIp6tables(iptables.name));
    }
    let restored = program::for_both_families(|family| {
        let is_planned = families(plan).contains(&family);
        let target = if is_planned { Ruleset::of_plan(plan, family) } else { Ruleset::default() };
        restore(iptables, family, &before(in_place, iptables, family), &target)
    });
    let failed = restored.into_iter().find_map(Result::err);
    if failed.is_some() {
        program::for_both_families(|family| take_back(iptables, family, &before(in_place, iptables, family)));
    }
    failed.map_or(Ok(()), Err)
}

fn before(in_place: &InPlace, iptables: &Iptables, family: Family) -> Ruleset {
    let mut known = in_place.iptables.iter();
    let found = known.find(|known| known.programs.name == iptables.name && known.family == family);
    found.map(|found| found.ours.clone()).unwrap_or_default()
}

fn restore(iptables: &Iptables, family: Family, current: &Ruleset, target: &Ruleset) -> Result<(), ApplyError> {
    let input = iptables::transition(current, target);
    match iptables.restore(family) {
        Some(restore) if !input.is_empty() => program::run(&restore, &input).map(drop).map_err(ApplyError::from),
        Some(_) | None => Ok(()),
    }
}

/// Brings one family back to what it was. A second failure leaves nothing to be done but to say so.
fn take_back(iptables: &Iptables, family: Family, before: &Ruleset) {
    let Some(save) = iptables.save(family) else { return };
    let taken_back = program::run(&save, "")
        .map_err(ApplyError::from)
        .and_then(|text| restore(iptables, family, &Ruleset::parse(&text, PREFIX), before));
    if let Err(error) = taken_back {
        warn!(%error, program = iptables.name_for(family), "the older rules could not be brought back");
    }
}

fn families(plan: &Plan) -> &'static [Family] {
    if plan.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] }
}
