use super::*;
use resources::{
    cluster, cluster_with_endpoints, dns_cluster, endpoints, listener, listener_with_inline_table, static_cluster,
    strict_table, table,
};

mod order;
mod resources;

const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
const MOMENT: Duration = Duration::from_millis(1);

/// A machine, its clock, and what it said last, in short.
struct Bench {
    warming: Warming,
    now: Instant,
    said: Vec<String>,
}

impl Bench {
    /// With a control plane for everything.
    fn start() -> Bench {
        Bench::start_with(Vec::new(), Vec::new())
    }

    fn start_with(clusters: Vec<Received<ClusterConfig>>, listeners: Vec<Received<Listener>>) -> Bench {
        let source = DiscoverySource { initial_fetch_timeout: Some(FETCH_TIMEOUT) };
        Bench::of(Start { clusters, listeners, cds: Some(source.clone()), lds: Some(source) })
    }

    fn of(start: Start) -> Bench {
        let now = Instant::now();
        let (warming, actions) = Warming::start(start, now);
        Bench { warming, now, said: actions.iter().map(short).collect() }
    }

    /// One listener `l` that routes by `r` to the cluster `a`, initialised.
    fn serving() -> Bench {
        let mut bench = Bench::start();
        bench.clusters([cluster("a", 0)]);
        bench.endpoints([endpoints("a", 1)]);
        bench.listeners([listener("l", 80, "r")]);
        bench.routes([table("r", &["a"])]);
        assert!(bench.warming.is_initialized());
        bench
    }

    fn clusters<const N: usize>(&mut self, resources: [Received<ClusterConfig>; N]) -> &[String] {
        self.on(Event::Clusters { resources: resources.into(), refused: HashSet::new() })
    }

    fn endpoints<const N: usize>(&mut self, resources: [Received<LoadAssignment>; N]) -> &[String] {
        self.on(Event::Endpoints(resources.into()))
    }

    fn listeners<const N: usize>(&mut self, resources: [Received<Listener>; N]) -> &[String] {
        self.on(Event::Listeners { resources: resources.into(), refused: HashSet::new() })
    }

    fn routes<const N: usize>(&mut self, resources: [Received<RouteTable>; N]) -> &[String] {
        self.on(Event::Routes(resources.into()))
    }

    fn on(&mut self, event: Event) -> &[String] {
        let outcome = self.warming.on(event, self.now);
        self.said = outcome.actions.iter().map(short).collect();
        self.said.extend(outcome.refusals.iter().map(|refusal| format!("refuse {}: {}", refusal.name, refusal.reason)));
        &self.said
    }

    /// Sleeps until the machine wants to be woken, which must be in this time.
    fn wait(&mut self, time: Duration) -> &[String] {
        let deadline = self.warming.deadline(self.now).expect("something to wait for");
        assert_eq!(deadline - self.now, time);
        self.now = deadline;
        self.on(Event::Time)
    }

    fn nothing_to_wait_for(&self) {
        assert_eq!(self.warming.deadline(self.now), None);
    }
}

fn short(action: &Action) -> String {
    let by = |warmed_by: &WarmedBy| match warmed_by {
        WarmedBy::Arrival => "",
        WarmedBy::Timeout => " by timeout",
    };
    let ports = |assignment: &LoadAssignment| {
        let localities = assignment.priorities.iter().flatten();
        let endpoints = localities.flat_map(|locality| &locality.endpoints);
        endpoints.map(|endpoint| endpoint.address.port().to_string()).collect::<Vec<_>>().join(",")
    };
    match action {
        Action::Subscribe(kind, Interest::Wildcard) => format!("subscribe {}", kind.service()),
        Action::Subscribe(kind, Interest::Names(names)) => {
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            format!("subscribe {} [{}]", kind.service(), names.join(" "))
        }
        Action::RequestAgain(kind) => format!("request {} again", kind.service()),
        Action::HoldClusterAck => "hold".to_owned(),
        Action::ReleaseClusterAck => "release".to_owned(),
        Action::ActivateCluster { cluster, assignment, warmed_by } => {
            let ports = assignment.as_ref().map(|assignment| format!(" [{}]", ports(assignment))).unwrap_or_default();
            format!("cluster {} {:?}{ports}{}", cluster.name, cluster.config.connect_timeout, by(warmed_by))
        }
        Action::PrepareCluster { cluster, .. } => format!("prepare {}", cluster.name),
        Action::AbandonCluster(name) => format!("abandon {name}"),
        Action::UpdateEndpoints { cluster, assignment } => format!("endpoints {cluster} [{}]", ports(assignment)),
        Action::RemoveCluster(name) => format!("remove cluster {name}"),
        Action::ActivateRoutes { table, warmed_by } => {
            let clusters: Vec<&str> = table.config.clusters().map(|(_, name)| &**name).collect();
            format!("routes {} [{}]{}", table.name, clusters.join(" "), by(warmed_by))
        }
        Action::RemoveRoutes(name) => format!("remove routes {name}"),
        Action::ActivateListener { listener, source: _, warmed_by } => {
            let port = listener.config.addresses[0].address.port();
            format!("listener {} {port}{}", listener.name, by(warmed_by))
        }
        Action::RemoveListener(name) => format!("remove listener {name}"),
        Action::FetchTimedOut(kind) => format!("{} timed out", kind.service()),
        Action::Initialized => "initialized".to_owned(),
    }
}

#[test]
fn a_cluster_of_names_is_looked_up_before_it_goes_live() {
    let clusters = vec![dns_cluster("d", ""), dns_cluster("now", "wait_for_warm_on_init: false")];
    let hash = clusters[0].config.hash;
    let listeners = vec![listener_with_inline_table("l", 80, &["d"], "")];
    let mut bench = Bench::of(Start { clusters, listeners, cds: None, lds: None });
    assert_eq!(bench.said, ["subscribe eds []", "prepare d", "cluster now 5s"]);
    assert_eq!(bench.on(Event::ClusterPrepared { name: "d".into(), hash: hash + 1 }), Vec::<String>::new());
    let prepared = bench.on(Event::ClusterPrepared { name: "d".into(), hash });
    assert_eq!(prepared, ["cluster d 5s", "listener l 80", "initialized"]);
}

#[test]
fn a_bootstrap_without_a_control_plane_serves_at_once() {
    let clusters = vec![static_cluster("s")];
    let listeners = vec![listener_with_inline_table("l", 80, &["s"], "")];
    let bench = Bench::of(Start { clusters, listeners, cds: None, lds: None });
    assert_eq!(bench.said, ["subscribe eds []", "cluster s 5s", "listener l 80", "initialized"]);
    bench.nothing_to_wait_for();
}

#[test]
fn starts_with_clusters_then_endpoints_then_listeners_then_routes() {
    let mut bench = Bench::start();
    assert_eq!(bench.said, ["subscribe cds", "subscribe eds []"]);
    assert_eq!(bench.clusters([cluster("a", 0), cluster("b", 0)]), ["subscribe eds [a b]", "hold"]);
    assert_eq!(bench.endpoints([endpoints("a", 1)]), ["cluster a 1s [1]"]);
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "subscribe lds"]);
    assert_eq!(bench.listeners([listener("l", 80, "r")]), ["subscribe rds [r]"]);
    assert!(!bench.warming.is_initialized());
    assert_eq!(bench.routes([table("r", &["a"])]), ["routes r [a]", "listener l 80", "initialized"]);
    assert!(bench.warming.is_initialized());
    bench.nothing_to_wait_for();
}

#[test]
fn an_empty_first_answer_is_complete() {
    let mut bench = Bench::start();
    assert_eq!(bench.clusters([]), ["subscribe lds"]);
    assert_eq!(bench.listeners([]), ["initialized"]);
}

#[test]
fn listeners_that_come_unasked_wait_for_the_clusters() {
    let mut bench = Bench::start();
    assert!(bench.listeners([listener_with_inline_table("l", 80, &["a"], "validate_clusters: false, ")]).is_empty());
    bench.clusters([cluster("a", 0)]);
    assert_eq!(
        bench.endpoints([endpoints("a", 1)]),
        ["cluster a 1s [1]", "release", "subscribe lds", "listener l 80", "initialized"]
    );
}

#[test]
fn static_listeners_wait_for_the_first_clusters() {
    let mut bench =
        Bench::start_with(vec![], vec![listener_with_inline_table("l", 80, &["a"], "validate_clusters: false, ")]);
    bench.clusters([cluster("a", 0)]);
    assert_eq!(bench.endpoints([endpoints("a", 1)]), ["cluster a 1s [1]", "release", "subscribe lds", "listener l 80"]);
    assert_eq!(bench.listeners([]), ["initialized"], "static listeners are never removed");
}

#[test]
fn a_control_plane_that_does_not_answer_delays_the_start_only() {
    let mut bench = Bench::start();
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["cds timed out", "subscribe lds"]);
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["lds timed out", "initialized"]);
    assert_eq!(bench.clusters([cluster("a", 0)]), ["subscribe eds [a]", "hold"], "it may come late");
}

#[test]
fn a_refused_first_answer_does_not_stop_the_start() {
    let mut bench = Bench::start();
    assert_eq!(bench.on(Event::AnswerRefused(ResourceKind::Cluster)), ["subscribe lds"]);
    assert_eq!(bench.on(Event::AnswerRefused(ResourceKind::Listener)), ["initialized"]);
}

#[test]
fn endpoints_that_never_come_leave_the_cluster_empty() {
    let mut bench = Bench::start();
    bench.clusters([cluster("a", 0)]);
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["cluster a 1s [] by timeout", "release", "subscribe lds"]);
    assert_eq!(bench.endpoints([endpoints("a", 1)]), ["endpoints a [1]"]);
}

#[test]
fn routes_that_never_come_leave_the_listener_without() {
    let mut bench = Bench::start();
    bench.clusters([]);
    bench.listeners([listener("l", 80, "r")]);
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["listener l 80 by timeout", "initialized"]);
    assert_eq!(bench.routes([table("r", &[])]), ["routes r []"]);
}

#[test]
fn new_endpoints_touch_only_their_cluster() {
    let mut bench = Bench::serving();
    assert_eq!(bench.endpoints([endpoints("a", 2)]), ["endpoints a [2]"]);
    assert!(bench.endpoints([endpoints("a", 2)]).is_empty(), "the same again");
    assert!(bench.endpoints([endpoints("unknown", 1)]).is_empty());
}

#[test]
fn unchanged_answers_change_nothing() {
    let mut bench = Bench::serving();
    assert!(bench.clusters([cluster("a", 0)]).is_empty());
    assert!(bench.listeners([listener("l", 80, "r")]).is_empty());
    assert!(bench.routes([table("r", &["a"])]).is_empty());
    bench.nothing_to_wait_for();
}

#[test]
fn a_changed_cluster_waits_for_its_endpoints_while_the_old_one_serves() {
    let mut bench = Bench::serving();
    assert_eq!(bench.clusters([cluster("a", 1)]), ["request eds again", "hold"]);
    assert_eq!(bench.endpoints([endpoints("a", 2)]), ["cluster a 2s [2]", "release"]);
}

#[test]
fn a_changed_cluster_whose_endpoints_do_not_come_keeps_those_it_has() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 1)]);
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["cluster a 2s [1] by timeout", "release"]);
}

#[test]
fn a_change_that_is_taken_back_leaves_the_old_cluster() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 1)]);
    assert_eq!(bench.clusters([cluster("a", 0)]), ["release"]);
    bench.nothing_to_wait_for();
}

#[test]
fn a_changed_name_of_endpoints_is_asked_for_and_the_old_one_given_up() {
    let mut bench = Bench::serving();
    assert_eq!(bench.clusters([cluster_with_endpoints("a", 0, "e")]), ["subscribe eds [a e]", "hold"]);
    assert_eq!(bench.endpoints([endpoints("a", 3)]), ["endpoints a [3]"], "the old one still serves");
    assert_eq!(bench.endpoints([endpoints("e", 2)]), ["cluster a 1s [2]", "subscribe eds [e]", "release"]);
}

#[test]
fn clusters_may_share_their_endpoints() {
    let mut bench = Bench::serving();
    assert_eq!(
        bench.clusters([cluster("a", 0), cluster_with_endpoints("b", 0, "a")]),
        ["hold", "cluster b 1s [1]", "release"]
    );
    assert_eq!(bench.endpoints([endpoints("a", 2)]), ["endpoints a [2]", "endpoints b [2]"]);
}

#[test]
fn a_dropped_cluster_stays_for_what_still_names_it() {
    let mut bench = Bench::serving();
    assert_eq!(bench.clusters([]), ["subscribe eds []"]);
    assert_eq!(bench.wait(ORDER_GRACE), ["remove cluster a"]);
    bench.nothing_to_wait_for();
}

#[test]
fn a_dropped_cluster_stays_until_the_routes_that_replace_it_are_live() {
    let mut bench = Bench::serving();
    assert_eq!(bench.clusters([cluster("b", 0)]), ["subscribe eds [b]", "hold"]);
    assert!(bench.routes([table("r", &["b"])]).is_empty());
    bench.now += ORDER_GRACE * 2;
    assert!(bench.on(Event::Time).is_empty(), "requests still go to a");
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "routes r [b]"]);
    assert_eq!(bench.wait(ORDER_GRACE), ["remove cluster a"], "requests routed before have had their time");
}

#[test]
fn a_dropped_cluster_that_comes_back_was_never_gone() {
    let mut bench = Bench::serving();
    bench.clusters([]);
    assert_eq!(bench.clusters([cluster("a", 0)]), ["subscribe eds [a]"]);
    bench.nothing_to_wait_for();
    assert!(bench.endpoints([endpoints("a", 1)]).is_empty());
}

#[test]
fn a_dropped_cluster_that_comes_back_changed_serves_as_it_was_until_warm() {
    let mut bench = Bench::serving();
    bench.clusters([]);
    assert_eq!(bench.clusters([cluster("a", 1)]), ["subscribe eds [a]", "hold"]);
    assert_eq!(bench.wait(FETCH_TIMEOUT), ["cluster a 2s [1] by timeout", "release"]);
}

#[test]
fn a_warming_cluster_that_is_dropped_never_goes_live() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    assert_eq!(bench.clusters([cluster("a", 0)]), ["subscribe eds [a]", "release"]);
    assert!(bench.endpoints([endpoints("b", 1)]).is_empty());
}

#[test]
fn routes_wait_for_their_clusters() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    assert!(bench.routes([table("r", &["a", "b"])]).is_empty());
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "routes r [a b]"]);
}

#[test]
fn routes_that_come_before_their_clusters_wait_for_them() {
    let mut bench = Bench::serving();
    assert!(bench.routes([table("r", &["b"])]).is_empty());
    bench.now += MOMENT;
    bench.clusters([cluster("b", 0)]);
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "routes r [b]"]);
}

#[test]
fn routes_to_a_cluster_that_does_not_exist_are_taken_after_a_moment() {
    let mut bench = Bench::serving();
    assert!(bench.routes([table("r", &["missing"])]).is_empty());
    assert_eq!(bench.wait(ORDER_GRACE), ["routes r [missing] by timeout"]);
}

#[test]
fn at_the_start_what_the_clusters_do_not_name_is_not_there() {
    let mut bench = Bench::start();
    bench.clusters([]);
    bench.listeners([listener("l", 80, "r")]);
    assert_eq!(
        bench.routes([table("r", &["missing"])]),
        ["routes r [missing] by timeout", "listener l 80", "initialized"]
    );
}

#[test]
fn routes_do_not_wait_for_ever_for_a_cluster_that_does() {
    let mut bench = Bench::serving();
    let mut patient = cluster("b", 0);
    let mut message: weft_xds::pb::envoy::config::cluster::v3::Cluster =
        weft_xds::any::unpack(&patient.origin.message).expect("a cluster");
    let source = message.eds_cluster_config.as_mut().and_then(|eds| eds.eds_config.as_mut()).expect("a source");
    source.initial_fetch_timeout = Some(Default::default());
    patient.config = Arc::new(ClusterConfig::from_proto(message).expect("a cluster"));
    bench.clusters([cluster("a", 0), patient]);
    bench.routes([table("r", &["b"])]);
    assert_eq!(bench.wait(DEPENDENCY_WAIT_MAX), ["routes r [b] by timeout"]);
    bench.nothing_to_wait_for();
}

#[test]
fn newer_routes_do_not_keep_older_ones_from_going_live() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    bench.routes([table("r", &["b"])]);
    bench.clusters([cluster("a", 0), cluster("b", 0), cluster("c", 0)]);
    bench.routes([table("r", &["c"])]);
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "routes r [b]"]);
    assert_eq!(bench.endpoints([endpoints("c", 3)]), ["cluster c 1s [3]", "release", "routes r [c]"]);
}

#[test]
fn newer_routes_that_are_ready_pass_older_ones_that_are_not() {
    let mut bench = Bench::serving();
    bench.routes([table("r", &["missing"])]);
    assert_eq!(bench.routes([table("r", &["a", "a"])]), ["routes r [a a]"]);
    bench.nothing_to_wait_for();
}

#[test]
fn routes_that_never_became_complete_give_way_to_newer_ones() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    bench.routes([table("r", &["missing"])]);
    bench.routes([table("r", &["b"])]);
    assert!(bench.wait(ORDER_GRACE).is_empty());
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "routes r [b]"]);
}

#[test]
fn routes_that_never_become_complete_are_not_replaced_for_ever() {
    let mut bench = Bench::serving();
    let begun = bench.now;
    for round in 0.. {
        let name = format!("missing-{round}");
        if !bench.routes([table("r", &[&name])]).is_empty() || round > 100 {
            break;
        }
        bench.now += ORDER_GRACE / 2;
    }
    assert!(bench.said[0].ends_with("by timeout"), "{:?}", bench.said);
    let waited = bench.now - begun;
    assert!(waited >= DEPENDENCY_WAIT_MAX && waited <= DEPENDENCY_WAIT_MAX + ORDER_GRACE, "{waited:?}");
}

#[test]
fn a_listener_waits_longer_for_routes_that_wait_for_clusters() {
    let mut bench = Bench::serving();
    bench.listeners([listener("l", 80, "r"), listener("m", 81, "s")]);
    bench.now += FETCH_TIMEOUT - MOMENT;
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    bench.routes([table("s", &["b"])]);
    bench.now += MOMENT;
    assert!(bench.on(Event::Time).is_empty(), "the routes came in time");
    assert_eq!(bench.endpoints([endpoints("b", 1)]), ["cluster b 1s [1]", "release", "routes s [b]", "listener m 81"]);
}

#[test]
fn an_answer_on_a_new_stream_is_held_again() {
    let mut bench = Bench::start();
    assert_eq!(bench.clusters([cluster("a", 0)]), ["subscribe eds [a]", "hold"]);
    assert_eq!(bench.clusters([cluster("a", 0)]), ["hold"]);
    assert_eq!(bench.endpoints([endpoints("a", 1)]), ["cluster a 1s [1]", "release", "subscribe lds"]);
}

#[test]
fn routes_that_are_taken_back_leave_the_live_ones() {
    let mut bench = Bench::serving();
    bench.routes([table("r", &["missing"])]);
    assert!(bench.routes([table("r", &["a"])]).is_empty());
    bench.nothing_to_wait_for();
}

#[test]
fn routes_that_demand_their_clusters_are_refused_without_them() {
    let mut bench = Bench::serving();
    let said = bench.routes([strict_table("r", &["missing"])]).to_vec();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("refuse r: ") && said[0].contains("unknown cluster 'missing'"), "{said:?}");
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    assert!(bench.routes([strict_table("r", &["b"])]).is_empty(), "a warming cluster is known");
}

#[test]
fn a_new_listener_waits_for_its_routes() {
    let mut bench = Bench::serving();
    assert_eq!(bench.listeners([listener("l", 80, "r"), listener("m", 81, "s")]), ["subscribe rds [r s]"]);
    assert_eq!(bench.routes([table("s", &["a"])]), ["routes s [a]", "listener m 81"]);
}

#[test]
fn a_changed_listener_waits_while_the_old_one_serves() {
    let mut bench = Bench::serving();
    assert_eq!(bench.listeners([listener("l", 80, "s")]), ["subscribe rds [r s]"]);
    assert_eq!(
        bench.routes([table("s", &["a"])]),
        ["routes s [a]", "listener l 80", "remove routes r", "subscribe rds [s]"]
    );
}

#[test]
fn a_listener_that_names_clusters_itself_waits_for_them() {
    let mut bench = Bench::serving();
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    let inline = || listener_with_inline_table("m", 81, &["b"], "");
    assert!(bench.listeners([listener("l", 80, "r"), inline()]).is_empty());
    assert_eq!(bench.endpoints([endpoints("b", 2)]), ["cluster b 1s [2]", "release", "listener m 81"]);
    let refused = bench.listeners([listener("l", 80, "r"), inline(), listener_with_inline_table("n", 82, &["x"], "")]);
    assert!(refused[0].contains("unknown cluster 'x'"), "{refused:?}");
}

#[test]
fn an_absent_listener_is_removed_at_once() {
    let mut bench = Bench::serving();
    assert_eq!(bench.listeners([]), ["remove listener l", "remove routes r", "subscribe rds []"]);
}

#[test]
fn what_is_refused_by_itself_keeps_the_version_before() {
    let mut bench = Bench::serving();
    let refused: HashSet<Arc<str>> = [Arc::from("l"), Arc::from("a")].into();
    assert!(bench.on(Event::Listeners { resources: vec![], refused: refused.clone() }).is_empty());
    assert!(bench.on(Event::Clusters { resources: vec![], refused }).is_empty());
}

#[test]
fn names_of_the_bootstrap_belong_to_the_bootstrap() {
    let mut bench = Bench::start_with(vec![static_cluster("s")], vec![listener_with_inline_table("l", 80, &["s"], "")]);
    assert_eq!(bench.clusters([cluster("s", 1)]), ["subscribe lds", "listener l 80"]);
    assert_eq!(bench.listeners([listener("l", 81, "r")]), ["initialized"]);
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let mut bench = Bench::serving();
    assert_eq!(
        bench.listeners([listener("l", 80, "r"), listener("m", 80, "r")]),
        ["refuse m: has duplicate address '127.0.0.1:80' as existing listener 'l'"]
    );
    assert_eq!(bench.listeners([listener("m", 80, "r")]), ["remove listener l", "listener m 80"], "l has gone");
}

#[test]
fn a_listener_that_cannot_start_gives_way_to_the_one_before() {
    let mut bench = Bench::serving();
    bench.listeners([listener("l", 81, "r")]);
    assert_eq!(bench.said, ["listener l 81"]);
    assert!(bench.on(Event::ListenerRefused("l".into())).is_empty());
    let active: Vec<u16> =
        bench.warming.listeners().active().map(|(l, _)| l.config.addresses[0].address.port()).collect();
    assert_eq!(active, [80]);
    assert_eq!(bench.listeners([listener("l", 81, "r")]), ["listener l 81"], "it is tried again with the next answer");
}

#[test]
fn a_new_listener_that_cannot_start_is_not_there() {
    let mut bench = Bench::serving();
    bench.listeners([listener("l", 80, "r"), listener("m", 81, "r")]);
    bench.on(Event::ListenerRefused("m".into()));
    assert_eq!(bench.warming.listeners().active_count(), 1);
}

#[test]
fn what_comes_shortly_before_its_owner_is_kept() {
    let mut bench = Bench::serving();
    bench.endpoints([endpoints("b", 2)]);
    bench.routes([table("s", &["b"])]);
    bench.now += MOMENT;
    bench.clusters([cluster("a", 0), cluster("b", 0)]);
    assert_eq!(bench.said, ["subscribe eds [a b]", "hold", "cluster b 1s [2]", "release"]);
    assert_eq!(
        bench.listeners([listener("l", 80, "r"), listener("m", 81, "s")]),
        ["subscribe rds [r s]", "routes s [b]", "listener m 81"]
    );
}

#[test]
fn what_nobody_names_is_forgotten() {
    let mut bench = Bench::serving();
    bench.endpoints([endpoints("b", 2)]);
    bench.routes([table("s", &["a"])]);
    assert!(bench.wait(ORDER_GRACE).is_empty());
    bench.nothing_to_wait_for();
    assert_eq!(bench.clusters([cluster("a", 0), cluster("b", 0)]), ["subscribe eds [a b]", "hold"]);
}
