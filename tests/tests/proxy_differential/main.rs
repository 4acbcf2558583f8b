//! The same static bootstrap and the same requests, to the real Envoy and to weft-proxy: the answers, what the application saw and what the
//! access log says have to be the same, but for differences that we want, each named with its reason.
//!
//! Both run side by side in one network namespace with the application. A case gathers facts ([`Facts`]) from each; the
//! comparison names every fact that differs, of all cases, before it fails.

mod access_logs;
mod admin;
mod authorization;
mod client_certs;
mod config;
mod differences;
mod external_authorization;
mod filter_metadata;
mod filters;
mod frames;
mod health;
mod http1;
mod http1_framing;
mod http2;
mod http2_conformance;
mod http2_upstream;
mod limits;
mod listeners;
mod manager;
mod orders;
mod outliers;
mod pair;
mod proxy_protocol;
mod rate_limit_service;
mod raw_origin;
mod resilience;
mod retries;
mod retry_storm;
mod route_actions;
mod routes;
mod scene;
mod sessions;
mod stats;
mod tcp;
mod tokens;
mod tools;
mod tunnels;
mod upgrades;
mod upstream;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};

use pair::{Bootstrap, Pair, Target};
use weft_tests::facts::Facts;

/// One behaviour to compare.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Gathers the facts from one of the two.
    pub(crate) observe: Observe,
}

pub(crate) type Observe = Box<dyn Fn(&Target) -> Result<Facts> + Send + Sync>;

fn compare(cases: &[Case]) -> Result<()> {
    compare_on(cases, &config::bootstrap)
}

/// Runs every case against both and reports all differences together.
fn compare_on(cases: &[Case], bootstrap: &Bootstrap<'_>) -> Result<()> {
    compare_with(cases, &Pair::start(bootstrap)?)
}

fn compare_with(cases: &[Case], pair: &Pair) -> Result<()> {
    // Much of a case is waiting for a connection to close, so several run at a time.
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    let facts_compared = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CASES_AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (compared, differences) = case.compare(pair);
                    facts_compared.fetch_add(compared, Ordering::Relaxed);
                    complaints.lock().expect("no other case panics").extend(differences);
                }
            });
        }
    });
    let complaints = complaints.into_inner().expect("no case panics");
    println!("{} cases, {} facts compared", cases.len(), facts_compared.into_inner());
    ensure!(complaints.is_empty(), "{} differences:\n{}\n\n{}", complaints.len(), complaints.join("\n"), pair.logs());
    Ok(())
}

impl Case {
    /// How many facts were compared, and what is wrong.
    fn compare(&self, pair: &Pair) -> (usize, Vec<String>) {
        let name = self.name;
        let observed = [&pair.envoy, &pair.weft].map(|target| {
            pair.enter(|| (self.observe)(target)).with_context(|| format!("{} in case {name:?}", target.name))
        });
        match observed {
            [Ok(mut envoy), Ok(mut weft)] => {
                envoy.drop_derived();
                weft.drop_derived();
                let differences = envoy.differences(&weft, &differences::of(name));
                (envoy.count(), differences.into_iter().map(|difference| format!("{name}: {difference}")).collect())
            }
            failed => (0, failed.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect()),
        }
    }
}

const CASES_AT_A_TIME: usize = 8;

#[test]
fn http1_answers_are_envoys() -> Result<()> {
    compare(&http1::cases())
}

#[test]
fn http1_framing_is_judged_as_by_envoy() -> Result<()> {
    compare(&http1_framing::cases())
}

#[test]
fn http2_and_grpc_answers_are_envoys() -> Result<()> {
    compare(&http2::cases())
}

#[test]
fn what_http2_applications_do_wrong_ends_as_envoys() -> Result<()> {
    compare(&http2_upstream::cases())
}

#[test]
fn tcp_connections_go_as_envoys() -> Result<()> {
    compare(&tcp::cases())
}

#[test]
fn tcp_connections_are_logged_and_counted_as_envoys() -> Result<()> {
    compare_on(&tcp::counted_cases(), &tcp::bootstrap)
}

#[test]
fn upstreams_are_told_of_downstreams_as_by_envoy() -> Result<()> {
    compare_on(&proxy_protocol::cases(), &proxy_protocol::bootstrap)
}

#[test]
fn connections_are_limited_as_by_envoy() -> Result<()> {
    compare_on(&limits::global_cases(), &limits::bootstrap)?;
    compare_on(&limits::cases(), &limits::bootstrap)
}

#[test]
fn the_admin_server_says_what_envoys_does() -> Result<()> {
    compare_on(&admin::cases(), &admin::bootstrap)
}

#[test]
fn statistics_have_envoys_names_and_values() -> Result<()> {
    compare_on(&stats::cases(), &stats::bootstrap)
}

#[test]
fn listeners_take_connections_as_envoys() -> Result<()> {
    compare_on(&listeners::cases(), &listeners::bootstrap)
}

#[test]
fn well_known_clients_see_the_same() -> Result<()> {
    compare(&tools::cases())
}

#[test]
fn connection_managers_do_as_envoys() -> Result<()> {
    scene::compare_scenes(&manager::scenes(), manager::EXCHANGES)
}

#[test]
fn orders_are_taken_as_by_envoy() -> Result<()> {
    scene::compare_scenes(&orders::scenes(), orders::EXCHANGES)
}

#[test]
fn routes_go_where_envoys_do() -> Result<()> {
    scene::compare_scenes(&routes::scenes(), routes::EXCHANGES)
}

#[test]
fn routes_act_as_envoys() -> Result<()> {
    scene::compare_scenes(&route_actions::scenes(), route_actions::EXCHANGES)
}

#[test]
fn access_logs_say_what_envoys_do() -> Result<()> {
    scene::compare_scenes(&access_logs::scenes(), access_logs::EXCHANGES)
}

#[test]
fn filters_do_as_envoys() -> Result<()> {
    scene::compare_scenes(&filters::scenes(), filters::EXCHANGES)
}

#[test]
fn filters_leave_what_envoys_do() -> Result<()> {
    scene::compare_scenes(&filter_metadata::scenes(), filter_metadata::EXCHANGES)
}

#[test]
fn rates_are_limited_as_by_envoy() -> Result<()> {
    let (scenes, exchanges) = (rate_limit_service::scenes(), rate_limit_service::EXCHANGES);
    scene::compare_scenes_with(&scenes, exchanges, rate_limit_service::start)
}

#[test]
fn connections_are_upgraded_as_by_envoy() -> Result<()> {
    compare(&upgrades::cases())
}

#[test]
fn client_certificates_are_told_as_by_envoy() -> Result<()> {
    compare_on(&client_certs::cases(), &client_certs::bootstrap)
}

#[test]
fn tunnels_go_as_through_envoy() -> Result<()> {
    compare_with(
        &tunnels::cases(),
        &Pair::start_with(&tunnels::bootstrap, |namespace| namespace.enter(tunnels::start_origins))?,
    )
}

#[test]
fn hosts_are_chosen_as_envoys() -> Result<()> {
    compare_with(&upstream::cases(), &Pair::start_with(&upstream::bootstrap, upstream::start_peers)?)
}

#[test]
fn access_is_controlled_as_by_envoy() -> Result<()> {
    scene::compare_scenes(&authorization::scenes(), &authorization::exchanges())
}

#[test]
fn tokens_are_judged_as_by_envoy() -> Result<()> {
    scene::compare_scenes(&tokens::scenes(), &tokens::exchanges())
}

#[test]
fn others_are_asked_as_by_envoy() -> Result<()> {
    scene::compare_scenes(&external_authorization::scenes(), &external_authorization::exchanges())
}

#[test]
fn outliers_are_found_as_by_envoy() -> Result<()> {
    compare_scenarios(outliers::scenarios)
}

#[test]
fn hosts_are_checked_as_by_envoy() -> Result<()> {
    compare_scenarios(health::scenarios)
}

#[test]
fn requests_are_tried_again_as_by_envoy() -> Result<()> {
    compare_scenarios(retries::scenarios)
}

#[test]
fn sessions_and_checks_are_answered_as_by_envoy() -> Result<()> {
    scene::compare_scenes(&sessions::scenes(), sessions::EXCHANGES)
}

#[test]
fn a_dead_leaf_sees_few_more_requests_than_are_made() -> Result<()> {
    retry_storm::compare()
}

fn compare_scenarios(scenarios: fn() -> Vec<resilience::Scenario>) -> Result<()> {
    let written = scenarios();
    let bootstrap = |ports, log: &std::path::Path| resilience::bootstrap(&written, ports, log);
    compare_with(&resilience::cases(scenarios()), &Pair::start_with(&bootstrap, resilience::start_hosts)?)
}
