//! What holds the rules: the choice between nftables and iptables, and what each already holds.
//!
//! Used by [`crate::apply`] and [`crate::verify`]. nftables is preferred, since it takes everything in one transaction.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nftables::schema::Nftables;
use serde_json::Value;
use thiserror::Error;
use tracing::debug;

use crate::iptables::{self, ISTIO_PREFIX, PREFIX, Ruleset};
use crate::nft;
use crate::plan::Plan;
use crate::program::{self, Iptables, Program, ProgramError};
use crate::rule::{Family, Table};
use crate::settings::{BackendChoice, IptablesKind};

#[derive(Debug, Clone)]
pub enum Backend {
    /// The path of the program `nft`.
    Nft(PathBuf),
    Iptables(Iptables),
}

/// A backend, why it is the one, and what to use if the kernel refuses it after all.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub backend: Backend,
    pub reason: &'static str,
    pub instead: Option<Iptables>,
}

#[derive(Debug, Error)]
pub enum BackendError {
    #[error("--backend nft: there is no program nft; is nftables installed?")]
    NoNft,
    #[error(
        "--backend iptables: the programs iptables-save and iptables-restore of the kind asked for are not installed"
    )]
    NoIptables,
    #[error("neither nft nor iptables is installed")]
    None,
}

impl Backend {
    pub fn choose(choice: BackendChoice, lock_file: Option<&Path>) -> Result<Chosen, BackendError> {
        let asked = |backend| Chosen { backend, reason: "asked for", instead: None };
        match choice {
            BackendChoice::Nft => Ok(asked(Self::Nft(program::find("nft").ok_or(BackendError::NoNft)?))),
            BackendChoice::Iptables { iptables } => {
                let iptables = Iptables::find(iptables, lock_file).ok_or(BackendError::NoIptables)?;
                Ok(asked(Self::Iptables(iptables)))
            }
            BackendChoice::Auto { iptables } => auto(Iptables::find(iptables, lock_file)),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Nft(_) => "nft",
            Self::Iptables(iptables) => iptables.name,
        }
    }
}

/// The ruleset of a plan as text in the syntax of the backend that would be used. Runs no program and needs no privilege.
pub fn script(plan: &Plan, choice: BackendChoice) -> String {
    let is_nft = match choice {
        BackendChoice::Nft => true,
        BackendChoice::Iptables { .. } => false,
        // Where neither is installed, the one that would be preferred.
        BackendChoice::Auto { iptables } => program::find("nft").is_some() || Iptables::find(iptables, None).is_none(),
    };
    let rules = if is_nft { nft::script(plan) } else { iptables::script(plan) };
    rules + &plan.commentary()
}

/// What is installed decides; the kernel has its say when the rules are applied.
fn auto(iptables: Option<Iptables>) -> Result<Chosen, BackendError> {
    match (program::find("nft"), iptables) {
        (Some(nft), instead) => {
            Ok(Chosen { backend: Backend::Nft(nft), reason: "the program nft is installed", instead })
        }
        (None, Some(iptables)) => Ok(Chosen {
            backend: Backend::Iptables(iptables),
            reason: "the program nft is not installed",
            instead: None,
        }),
        (None, None) => Err(BackendError::None),
    }
}

/// The redirection rules that a network namespace holds, ours and Istio's.
#[derive(Debug, Default)]
pub struct InPlace {
    nft: Option<PathBuf>,
    /// Which of our tables nftables has.
    pub mesh_tables: BTreeSet<&'static str>,
    /// Which of Istio's tables nftables has.
    pub istio_tables: BTreeSet<String>,
    pub iptables: Vec<InPlaceIptables>,
}

/// What one kind of iptables holds for one family.
#[derive(Debug)]
pub struct InPlaceIptables {
    pub programs: Iptables,
    pub family: Family,
    pub ours: Ruleset,
    pub istio: Ruleset,
}

impl InPlace {
    /// Reads what nftables holds, what the programs of the iptables backend hold, and what any other kind of iptables
    /// holds that shows signs of being in use.
    pub fn read(backend: Option<&Backend>, lock_file: Option<&Path>) -> Result<Self, ProgramError> {
        let mut in_place = Self::default();
        let mut has_chains = false;
        let nft = match backend {
            Some(Backend::Nft(nft)) => Some(nft.clone()),
            Some(Backend::Iptables(_)) | None => program::find("nft"),
        };
        if let Some(nft) = nft {
            match list_chains(in_place.nft.insert(nft)) {
                Ok(chains) => has_chains = in_place.take_chains(&chains),
                Err(error @ ProgramError::Permission { .. }) => return Err(error),
                Err(error) if matches!(backend, Some(Backend::Nft(_))) => return Err(error),
                // A kernel without nftables holds nothing by it.
                Err(error) => debug!(%error, "nftables can't be read"),
            }
        }
        let mut kinds: Vec<Iptables> = Vec::new();
        if let Some(Backend::Iptables(iptables)) = backend {
            kinds.push(iptables.clone());
        }
        let others = [(has_chains, IptablesKind::Nft), (program::has_legacy_tables(), IptablesKind::Legacy)];
        for (is_in_use, kind) in others {
            // Where the programs don't say by their names which kind they are, there is but one.
            let find = || Iptables::find(kind, lock_file).or_else(|| Iptables::find(IptablesKind::InUse, lock_file));
            if let Some(iptables) = is_in_use.then(find).flatten()
                && kinds.iter().all(|known| known.name != iptables.name)
            {
                kinds.push(iptables);
            }
        }
        for programs in kinds {
            for read in program::for_both_families(|family| InPlaceIptables::read(&programs, family)) {
                in_place.iptables.extend(read?);
            }
        }
        Ok(in_place)
    }

    /// Whether nothing of ours is in place.
    pub fn is_empty(&self) -> bool {
        self.mesh_tables.is_empty() && self.iptables.iter().all(|iptables| iptables.ours.is_empty())
    }

    /// Checks that our rules lead what comes from outside to the proxy, and says what is missing.
    pub fn check_inbound(&self, ipv6: bool) -> Result<(), String> {
        if let Some(nft) = &self.nft
            && !self.mesh_tables.is_empty()
        {
            let mut jumps = Vec::new();
            for table in &self.mesh_tables {
                jumps.extend(list_jumps(nft, table).map_err(|error| error.to_string())?);
            }
            return check_paths(&jumps, &NFT_INBOUND_PATHS);
        }
        let families: &[_] = if ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] };
        for family in families {
            let of_family = self.iptables.iter().filter(|iptables| iptables.family == *family);
            let jumps: Vec<_> = of_family.flat_map(|iptables| iptables.ours.jumps()).map(owned).collect();
            check_paths(&jumps, &IPTABLES_INBOUND_PATHS)?;
        }
        Ok(())
    }

    /// What is in place of Istio's own, by name.
    pub fn istio(&self) -> Vec<String> {
        let tables = self.istio_tables.iter().map(|table| format!("table inet {table} of nftables"));
        let chains = self.iptables.iter().filter(|iptables| !iptables.istio.is_empty());
        let chains =
            chains.map(|iptables| format!("chains {ISTIO_PREFIX}* of {}", iptables.programs.name_for(iptables.family)));
        tables.chain(chains).collect()
    }

    /// Sorts out the chains that nft lists; says whether those of an iptables are among them.
    fn take_chains(&mut self, chains: &[NftChain]) -> bool {
        let ours = Table::ALL.map(nft::table_name);
        for chain in chains.iter().filter(|chain| chain.family == "inet") {
            self.mesh_tables.extend(ours.iter().find(|name| **name == chain.table));
            if chain.table.starts_with(ISTIO_TABLE_PREFIX) {
                self.istio_tables.insert(chain.table.clone());
            }
        }
        let is_iptables = |chain: &NftChain| chain.name.starts_with(PREFIX) || chain.name.starts_with(ISTIO_PREFIX);
        chains.iter().any(|chain| matches!(chain.family.as_str(), "ip" | "ip6") && is_iptables(chain))
    }
}

impl InPlaceIptables {
    /// `None` where there are no programs for the family, or no family.
    fn read(programs: &Iptables, family: Family) -> Result<Option<Self>, ProgramError> {
        let Some(save) = programs.save(family) else { return Ok(None) };
        let text = match program::run(&save, "") {
            Ok(text) => text,
            // A kernel without IPv6 holds nothing for it.
            Err(ProgramError::Failed { message, .. }) if family == Family::V6 => {
                debug!(%message, "the rules for IPv6 can't be read");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let ours = Ruleset::parse(&text, PREFIX);
        let istio = Ruleset::parse(&text, ISTIO_PREFIX);
        Ok(Some(Self { programs: programs.clone(), family, ours, istio }))
    }
}

/// A table, a chain in it, and a chain that it jumps to.
type Jump = (String, String, String);

fn owned((table, chain, target): (&str, &str, &str)) -> Jump {
    (table.to_owned(), chain.to_owned(), target.to_owned())
}

/// Checks that the jumps make up one of the paths, each a table and the chains from the kernel's to the last.
fn check_paths(jumps: &[Jump], paths: &[(&str, &[&str])]) -> Result<(), String> {
    let is_there = |table: &str, from: &str, to: &str| jumps.iter().any(|jump| *jump == owned((table, from, to)));
    let is_whole = |table, path: &[&str]| path.windows(2).all(|step| is_there(table, step[0], step[1]));
    if paths.iter().any(|(table, path)| is_whole(table, path)) {
        return Ok(());
    }
    Err("no rule of weft-init leads traffic from other pods to the proxy".to_owned())
}

fn list_jumps(nft: &Path, table: &str) -> Result<Vec<Jump>, ProgramError> {
    let listed = list(nft, &["list", "table", "inet", table])?;
    let mut jumps = Vec::new();
    for rule in listed.iter().filter_map(|object| object.get("rule")) {
        let chain = rule.get("chain").and_then(Value::as_str).unwrap_or_default();
        let statements = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let targets = statements.iter().filter_map(|statement| statement.get("jump")?.get("target")?.as_str());
        jumps.extend(targets.map(|target| owned((table, chain, target))));
    }
    Ok(jumps)
}

/// A chain as nft lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NftChain {
    family: String,
    table: String,
    name: String,
}

fn list_chains(nft: &Path) -> Result<Vec<NftChain>, ProgramError> {
    let listed = list(nft, &["list", "chains"])?;
    Ok(listed.iter().filter_map(|object| nft_chain(object.get("chain")?)).collect())
}

/// Lets nft list something. The objects are read one by one, since a namespace may hold what the crate has no type for.
fn list(nft: &Path, what: &[&str]) -> Result<Vec<Value>, ProgramError> {
    let arguments: Vec<_> = ["-j"].into_iter().chain(what.iter().copied()).collect();
    let text = program::run(&Program::new(nft, &arguments), "")?;
    let mut listed = serde_json::from_str::<Value>(&text)
        .map_err(|error| ProgramError::Failed { program: nft.to_owned(), message: error.to_string() })?;
    Ok(match listed.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => objects,
        Some(_) | None => Vec::new(),
    })
}

fn nft_chain(chain: &Value) -> Option<NftChain> {
    let text = |key| chain.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(NftChain { family: text("family")?, table: text("table")?, name: text("name")? })
}

/// Carries out one transaction. Run here rather than by the crate, which keeps nft's message to itself, and loses it when
/// nft gives up before it has read its input.
pub fn run_nft(nft: &Path, batch: &Nftables<'_>) -> Result<(), ProgramError> {
    let input = serde_json::to_string(batch).expect("rules are made of text and numbers");
    program::run(&Program::new(nft, &["-j", "-f", "-"]), &input).map(drop)
}

/// Istio's nftables variant names its tables so.
const ISTIO_TABLE_PREFIX: &str = "istio-proxy-";

/// The ways from the kernel to the proxy: by a rewritten destination, or by a transparent socket.
const NFT_INBOUND_PATHS: [(&str, &[&str]); 2] = [
    ("mesh-nat", &["prerouting", "mesh-inbound", "mesh-in-redirect"]),
    ("mesh-mangle", &["prerouting", "mesh-inbound", "mesh-tproxy"]),
];
const IPTABLES_INBOUND_PATHS: [(&str, &[&str]); 2] = [
    ("nat", &["PREROUTING", "MESH_PREROUTING", "MESH_INBOUND", "MESH_IN_REDIRECT"]),
    ("mangle", &["PREROUTING", "MESH_PREROUTING", "MESH_INBOUND", "MESH_TPROXY"]),
];
