//! Each sentence of the transport's rules, from a client's side.

use weft_xds::pb::envoy::config::cluster::v3::Cluster;
use weft_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::pb::envoy::config::listener::v3::Listener;
use weft_xds::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::*;
use crate::ads::subscription::{Refusal, RequestNames};
use crate::snapshot::Sets;
use crate::snapshot::version::Version;
use crate::translate::resource::Resource;

/// `(kind, name, content)`.
type Item<'a> = (Kind, &'a str, &'a str);

fn resource((kind, name, content): Item<'_>) -> Resource {
    let (name, content) = (name.to_owned(), content.to_owned());
    match kind {
        Kind::Cluster => Resource::cluster(Cluster { name, alt_stat_name: content, ..Cluster::default() }),
        Kind::Endpoints => {
            let named_endpoints = [(content, Default::default())].into();
            Resource::endpoints(ClusterLoadAssignment { cluster_name: name, named_endpoints, ..Default::default() })
        }
        Kind::Listener => Resource::listener(Listener { name, stat_prefix: content, ..Listener::default() }),
        Kind::Route => {
            let virtual_hosts = vec![VirtualHost { name: content, ..VirtualHost::default() }];
            Resource::route(RouteConfiguration { name, virtual_hosts, ..RouteConfiguration::default() })
        }
        Kind::Secret | Kind::ExtensionConfig => panic!("none are made"),
    }
}

fn snapshot(items: &[Item<'_>]) -> Snapshot {
    let (shared, refused) = Sets::sort(items.iter().copied().map(resource).collect());
    assert!(refused.is_empty());
    Snapshot { shared, own: Sets::default() }
}

/// A client at the other end of a session.
struct Client {
    session: Session,
    now: Instant,
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Client {
    fn new(variant: Variant, items: &[Item<'_>]) -> Self {
        Self { session: Session::new(variant, 7, snapshot(items)), now: Instant::now() }
    }

    fn sotw(items: &[Item<'_>]) -> Self {
        Self::new(Variant::StateOfTheWorld, items)
    }

    fn delta(items: &[Item<'_>]) -> Self {
        Self::new(Variant::Delta, items)
    }

    fn ask(&mut self, kind: Kind, nonce: &str, names: &[&str]) -> Reaction {
        let names = RequestNames::All(strings(names));
        self.session.request(kind, Request { nonce: nonce.to_owned(), error: None, names })
    }

    fn refuse(&mut self, kind: Kind, nonce: &str, names: &[&str]) -> Reaction {
        let names = RequestNames::All(strings(names));
        self.session.request(kind, Request { nonce: nonce.to_owned(), error: Some("bad".to_owned()), names })
    }

    fn amend(&mut self, kind: Kind, nonce: &str, subscribe: &[&str], unsubscribe: &[&str]) -> Reaction {
        self.resume(kind, nonce, subscribe, unsubscribe, &[])
    }

    fn resume(
        &mut self,
        kind: Kind,
        nonce: &str,
        subscribe: &[&str],
        unsubscribe: &[&str],
        initial: &[(&str, String)],
    ) -> Reaction {
        let names = RequestNames::Delta {
            subscribe: strings(subscribe),
            unsubscribe: strings(unsubscribe),
            initial_versions: initial.iter().map(|(name, version)| (name.to_string(), version.clone())).collect(),
        };
        self.session.request(kind, Request { nonce: nonce.to_owned(), error: None, names })
    }

    fn next(&mut self) -> Option<Response> {
        self.session.next_response(self.now)
    }

    fn expect(&mut self, kind: Kind, names: &[&str]) -> Response {
        let response = self.next().unwrap_or_else(|| panic!("no response, {kind:?} {names:?} expected"));
        assert_eq!(response.kind, kind);
        assert_eq!(sorted(&response), names, "{kind:?}");
        response
    }

    fn expect_nothing(&mut self) {
        assert_eq!(self.next(), None);
    }

    fn acknowledge(&mut self, response: &Response, names: &[&str]) {
        assert_eq!(self.ask(response.kind, &response.nonce, names), Reaction::Accepted);
    }

    fn acknowledge_delta(&mut self, response: &Response) {
        assert_eq!(self.amend(response.kind, &response.nonce, &[], &[]), Reaction::Accepted);
    }

    fn change(&mut self, items: &[Item<'_>]) {
        self.session.set_snapshot(snapshot(items));
    }
}

fn sorted(response: &Response) -> Vec<String> {
    let mut names = response.resources.iter().map(|resource| resource.name.to_string()).collect::<Vec<_>>();
    names.sort();
    names
}

const A: Item<'_> = (Kind::Cluster, "a", "1");
const A2: Item<'_> = (Kind::Cluster, "a", "2");
const B: Item<'_> = (Kind::Cluster, "b", "1");
const EA: Item<'_> = (Kind::Endpoints, "a", "1");
const EA2: Item<'_> = (Kind::Endpoints, "a", "2");
const EB: Item<'_> = (Kind::Endpoints, "b", "1");
const L: Item<'_> = (Kind::Listener, "l", "1");
const L2: Item<'_> = (Kind::Listener, "l", "2");
const R: Item<'_> = (Kind::Route, "r", "1");
const R2: Item<'_> = (Kind::Route, "r", "2");

#[test]
fn sotw_acknowledgement_brings_nothing_until_something_changes() {
    let mut client = Client::sotw(&[A, B]);
    assert_eq!(client.ask(Kind::Cluster, "", &[]), Reaction::Subscribed);
    let response = client.expect(Kind::Cluster, &["a", "b"]);
    client.acknowledge(&response, &[]);
    client.expect_nothing();
    client.change(&[A, B]);
    client.expect_nothing();
    client.change(&[A2, B]);
    let second = client.expect(Kind::Cluster, &["a", "b"]);
    assert_ne!(second.version, response.version);
    assert_ne!(second.nonce, response.nonce);
}

#[test]
fn sotw_versions_follow_the_content_and_nothing_else() {
    let version = |items: &[Item<'_>]| {
        let mut client = Client::sotw(items);
        client.ask(Kind::Cluster, "", &[]);
        client.next().unwrap().version
    };
    assert_eq!(version(&[A, B]), version(&[B, A]));
    assert_ne!(version(&[A, B]), version(&[A]));
    let mut client = Client::sotw(&[A]);
    client.ask(Kind::Cluster, "", &[]);
    let first = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&first, &[]);
    client.change(&[A2]);
    let second = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&second, &[]);
    client.change(&[A]);
    assert_eq!(client.expect(Kind::Cluster, &["a"]).version, first.version, "back to the same content");
}

#[test]
fn sotw_refusal_is_recorded_and_the_same_is_not_sent_again() {
    let mut client = Client::sotw(&[A]);
    client.ask(Kind::Cluster, "", &[]);
    let good = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&good, &[]);
    client.change(&[A2]);
    let bad = client.expect(Kind::Cluster, &["a"]);
    let refusal = Refusal { version: bad.version.clone(), reason: "bad".to_owned(), resources: vec![] };
    assert_eq!(client.refuse(Kind::Cluster, &bad.nonce, &[]), Reaction::Refused(refusal.clone()));
    client.expect_nothing();
    client.change(&[A2]);
    client.expect_nothing();
    let subscription = client.session.subscription(Kind::Cluster).unwrap();
    assert_eq!(subscription.refusal(), Some(&refusal));
    assert_eq!(subscription.accepted_version(), Some(good.version.as_str()));
    client.change(&[A]);
    let mended = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&mended, &[]);
    assert_eq!(client.session.subscription(Kind::Cluster).unwrap().refusal(), None);
}

#[test]
fn sotw_stale_nonce_is_ignored_with_all_it_says() {
    let mut client = Client::sotw(&[EA, EB]);
    client.ask(Kind::Endpoints, "", &["a"]);
    let first = client.expect(Kind::Endpoints, &["a"]);
    client.acknowledge(&first, &["a"]);
    client.change(&[EA2, EB]);
    client.expect(Kind::Endpoints, &["a"]);
    assert_eq!(client.ask(Kind::Endpoints, &first.nonce, &["a", "b"]), Reaction::Stale);
    assert_eq!(client.ask(Kind::Endpoints, "", &["b"]), Reaction::Stale);
    client.expect_nothing();
}

#[test]
fn sotw_first_request_of_a_stream_may_carry_an_old_nonce() {
    let mut client = Client::sotw(&[A]);
    assert_eq!(client.ask(Kind::Cluster, "from-an-earlier-stream", &[]), Reaction::Subscribed);
    client.expect(Kind::Cluster, &["a"]);
}

#[test]
fn sotw_names_added_are_sent_alone_where_absence_deletes_nothing() {
    let mut client = Client::sotw(&[EA, EB]);
    client.ask(Kind::Endpoints, "", &["a"]);
    let first = client.expect(Kind::Endpoints, &["a"]);
    assert_eq!(client.ask(Kind::Endpoints, &first.nonce, &["a", "b"]), Reaction::Accepted);
    let second = client.expect(Kind::Endpoints, &["b"]);
    client.acknowledge(&second, &["a", "b"]);
    client.change(&[EA2, EB]);
    client.expect(Kind::Endpoints, &["a"]);
    client.expect_nothing();
}

#[test]
fn sotw_name_dropped_and_taken_up_again_is_sent_again() {
    let mut client = Client::sotw(&[EA]);
    client.ask(Kind::Endpoints, "", &["a"]);
    let first = client.expect(Kind::Endpoints, &["a"]);
    client.acknowledge(&first, &[]);
    client.expect_nothing();
    client.acknowledge(&first, &["a"]);
    client.expect(Kind::Endpoints, &["a"]);
}

#[test]
fn sotw_name_that_does_not_exist_is_answered_only_where_absence_says_so() {
    let mut client = Client::sotw(&[A]);
    client.ask(Kind::Endpoints, "", &["nowhere"]);
    client.expect_nothing();
    client.ask(Kind::Listener, "", &["nowhere"]);
    client.expect(Kind::Listener, &[]);
    // The nonce is still empty, as nothing was answered.
    assert_eq!(client.ask(Kind::Endpoints, "", &["nowhere", "a"]), Reaction::Amended);
    client.expect_nothing();
    client.change(&[A, EA]);
    client.expect(Kind::Endpoints, &["a"]);
}

#[test]
fn sotw_wildcard_ends_with_the_first_name() {
    let mut client = Client::sotw(&[A, B]);
    client.ask(Kind::Cluster, "", &[]);
    let first = client.expect(Kind::Cluster, &["a", "b"]);
    client.acknowledge(&first, &["a"]);
    let second = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&second, &[]);
    client.change(&[A2, B]);
    client.expect_nothing();
    client.acknowledge(&second, &["*"]);
    client.expect(Kind::Cluster, &["a", "b"]);
}

#[test]
fn sotw_absence_deletes_clusters() {
    let mut client = Client::sotw(&[A, B]);
    client.ask(Kind::Cluster, "", &[]);
    let first = client.expect(Kind::Cluster, &["a", "b"]);
    client.acknowledge(&first, &[]);
    client.change(&[A]);
    let second = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&second, &[]);
    client.change(&[]);
    client.expect(Kind::Cluster, &[]);
}

#[test]
fn sotw_endpoints_that_are_gone_are_not_news_and_are_sent_when_they_return() {
    let mut client = Client::sotw(&[EA, EB]);
    client.ask(Kind::Endpoints, "", &["a", "b"]);
    let first = client.expect(Kind::Endpoints, &["a", "b"]);
    client.acknowledge(&first, &["a", "b"]);
    client.change(&[EB]);
    client.expect_nothing();
    client.change(&[EA, EB]);
    client.expect(Kind::Endpoints, &["a"]);
}

#[test]
fn a_changed_cluster_is_followed_by_its_endpoints() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut client = Client::new(variant, &[A, B, EA, EB]);
        let names = ["a", "b"];
        match variant {
            Variant::StateOfTheWorld => {
                client.ask(Kind::Cluster, "", &[]);
                client.ask(Kind::Endpoints, "", &names);
            }
            Variant::Delta => {
                client.amend(Kind::Cluster, "", &[], &[]);
                client.amend(Kind::Endpoints, "", &names, &[]);
            }
        }
        let clusters = client.expect(Kind::Cluster, &names);
        let endpoints = client.expect(Kind::Endpoints, &names);
        match variant {
            Variant::StateOfTheWorld => {
                client.acknowledge(&clusters, &[]);
                client.acknowledge(&endpoints, &names);
            }
            Variant::Delta => {
                client.acknowledge_delta(&clusters);
                client.acknowledge_delta(&endpoints);
            }
        }
        client.change(&[A2, B, EA, EB]);
        let changed = client.next().unwrap();
        assert_eq!(changed.kind, Kind::Cluster);
        client.expect(Kind::Endpoints, &["a"]);
        client.expect_nothing();
    }
}

/// A client that has taken everything.
fn settled(items: &[Item<'_>]) -> Client {
    let mut client = Client::sotw(items);
    client.ask(Kind::Cluster, "", &[]);
    client.ask(Kind::Endpoints, "", &["a", "b"]);
    client.ask(Kind::Listener, "", &[]);
    client.ask(Kind::Route, "", &["r"]);
    while let Some(response) = client.next() {
        let names: &[&str] = match response.kind {
            Kind::Endpoints => &["a", "b"],
            Kind::Route => &["r"],
            _ => &[],
        };
        client.acknowledge(&response, names);
    }
    client
}

#[test]
fn what_is_new_is_made_before_what_refers_to_it() {
    let mut client = settled(&[A, EA, L, R]);
    client.change(&[A, B, EA, EB, L2, R2]);
    let clusters = client.expect(Kind::Cluster, &["a", "b"]);
    let endpoints = client.expect(Kind::Endpoints, &["b"]);
    client.acknowledge(&endpoints, &["a", "b"]);
    client.expect_nothing();
    client.acknowledge(&clusters, &[]);
    client.expect(Kind::Listener, &["l"]);
    client.expect(Kind::Route, &["r"]);
    client.expect_nothing();
}

#[test]
fn what_is_gone_goes_after_what_referred_to_it() {
    let mut client = settled(&[A, B, EA, EB, L, R]);
    client.change(&[A, EA, L2, R2]);
    let listeners = client.expect(Kind::Listener, &["l"]);
    let routes = client.expect(Kind::Route, &["r"]);
    client.expect_nothing();
    client.acknowledge(&routes, &["r"]);
    client.expect_nothing();
    client.acknowledge(&listeners, &[]);
    client.expect(Kind::Cluster, &["a"]);
}

#[test]
fn a_replaced_cluster_is_there_twice_until_the_routes_moved() {
    let mut client = settled(&[A, EA, L, R]);
    client.change(&[B, EB, L, R2]);
    let both = client.expect(Kind::Cluster, &["a", "b"]);
    let endpoints = client.expect(Kind::Endpoints, &["b"]);
    client.acknowledge(&endpoints, &["a", "b"]);
    client.acknowledge(&both, &[]);
    let routes = client.expect(Kind::Route, &["r"]);
    client.expect_nothing();
    client.acknowledge(&routes, &["r"]);
    let after = client.expect(Kind::Cluster, &["b"]);
    assert_ne!(after.version, both.version);
    client.acknowledge(&after, &[]);
    client.expect_nothing();
}

#[test]
fn a_cluster_that_nothing_led_to_yet_goes_at_once() {
    let mut client = settled(&[A, EA, L, R]);
    // The client waits for endpoints of `b`, and does not answer before they come.
    client.change(&[A, B, EA, L, R]);
    client.expect(Kind::Cluster, &["a", "b"]);
    client.change(&[A, EA, L2, R]);
    client.expect_nothing();
    client.now += PUSH_PAUSE;
    let without = client.expect(Kind::Cluster, &["a"]);
    client.expect_nothing();
    client.acknowledge(&without, &[]);
    client.expect(Kind::Listener, &["l"]);
}

#[test]
fn a_refusal_of_clusters_does_not_hold_up_the_rest() {
    let mut client = settled(&[A, EA, L, R]);
    client.change(&[A2, EA, L2, R]);
    let clusters = client.expect(Kind::Cluster, &["a"]);
    client.expect(Kind::Endpoints, &["a"]);
    client.expect_nothing();
    client.refuse(Kind::Cluster, &clusters.nonce, &[]);
    client.expect(Kind::Listener, &["l"]);
}

#[test]
fn clusters_go_too_when_their_routes_are_gone_without_a_word() {
    let mut client = settled(&[A, B, EA, EB, L, R]);
    client.change(&[A, EA, L2]);
    let listeners = client.expect(Kind::Listener, &["l"]);
    client.expect_nothing();
    client.acknowledge(&listeners, &[]);
    let clusters = client.expect(Kind::Cluster, &["a"]);
    client.acknowledge(&clusters, &[]);
    client.expect_nothing();
    assert_eq!(client.session.wake_at(client.now), None);
}

#[test]
fn a_client_that_never_answers_gets_its_news_after_a_while_and_only_the_newest() {
    let mut client = settled(&[A, EA, L, R]);
    client.change(&[A2, EA, L2, R]);
    client.expect(Kind::Cluster, &["a"]);
    client.expect(Kind::Endpoints, &["a"]);
    client.change(&[A, B, EA, EB, L2, R2]);
    client.change(&[A, EA, L2, R2]);
    client.expect_nothing();
    assert_eq!(client.session.wake_at(client.now), Some(client.now + PUSH_PAUSE));
    client.now += PUSH_PAUSE;
    client.expect(Kind::Cluster, &["a"]);
    client.expect(Kind::Endpoints, &["a"]);
    client.expect_nothing();
    client.now += PUSH_PAUSE;
    assert_eq!(client.session.wake_at(client.now), Some(client.now + ANSWER_WAIT_MAX - PUSH_PAUSE));
    client.expect_nothing();
    client.now += ANSWER_WAIT_MAX;
    client.expect(Kind::Listener, &["l"]);
    client.expect(Kind::Route, &["r"]);
    client.expect_nothing();
    assert_eq!(client.session.wake_at(client.now), None);
}

#[test]
fn an_answer_does_not_wait_for_the_order_of_news() {
    let mut client = settled(&[A, EA, L, R]);
    client.change(&[A2, EA, EB, L, R]);
    client.expect(Kind::Cluster, &["a"]);
    let endpoints = client.expect(Kind::Endpoints, &["a", "b"]);
    let more = client.ask(Kind::Route, &format!("{:x}-{}", 7, 4), &["r", "s"]);
    assert_eq!(more, Reaction::Accepted);
    client.expect_nothing();
    client.acknowledge(&endpoints, &["a", "b"]);
    client.change(&[A2, EA, EB, L, R2, (Kind::Route, "s", "1")]);
    // `s` is news by now and waits for the clusters, as does `r`.
    client.expect_nothing();
}

#[test]
fn a_client_that_asks_for_everything_at_once_never_gets_ahead_of_its_clusters() {
    let mut client = Client::sotw(&[A, EA, L, R]);
    client.ask(Kind::Cluster, "", &[]);
    client.ask(Kind::Listener, "", &[]);
    client.ask(Kind::Route, "", &["r"]);
    let clusters = client.expect(Kind::Cluster, &["a"]);
    client.change(&[A, B, EA, EB, L2, R2]);
    client.expect_nothing();
    client.acknowledge(&clusters, &[]);
    client.expect(Kind::Cluster, &["a", "b"]);
    client.expect(Kind::Listener, &["l"]);
    client.expect(Kind::Route, &["r"]);
}

#[test]
fn names_asked_for_are_answered_without_the_news_of_others() {
    let mut client = settled(&[A, EA, L, R, (Kind::Route, "s", "1")]);
    client.change(&[A2, EA, L, R2, (Kind::Route, "s", "1")]);
    client.expect(Kind::Cluster, &["a"]);
    client.expect(Kind::Endpoints, &["a"]);
    client.ask(Kind::Route, &format!("{:x}-{}", 7, 4), &["r", "s"]);
    client.expect(Kind::Route, &["s"]);
}

#[test]
fn delta_sends_only_what_differs() {
    let mut client = Client::delta(&[A, B]);
    client.amend(Kind::Cluster, "", &[], &[]);
    let first = client.expect(Kind::Cluster, &["a", "b"]);
    client.acknowledge_delta(&first);
    client.expect_nothing();
    client.change(&[A2, B]);
    let second = client.expect(Kind::Cluster, &["a"]);
    assert!(second.removed.is_empty());
    client.acknowledge_delta(&second);
    client.change(&[A2]);
    let third = client.expect(Kind::Cluster, &[]);
    assert_eq!(third.removed, ["b"]);
}

#[test]
fn delta_answers_an_empty_wildcard() {
    let mut client = Client::delta(&[]);
    client.amend(Kind::Listener, "", &["*"], &[]);
    client.expect(Kind::Listener, &[]);
    client.expect_nothing();
}

#[test]
fn delta_asking_again_sends_again() {
    let mut client = Client::delta(&[EA]);
    client.amend(Kind::Endpoints, "", &["a"], &[]);
    let first = client.expect(Kind::Endpoints, &["a"]);
    client.acknowledge_delta(&first);
    client.amend(Kind::Endpoints, "", &["a"], &[]);
    client.expect(Kind::Endpoints, &["a"]);
}

#[test]
fn delta_name_that_does_not_exist_comes_back_as_removed() {
    let mut client = Client::delta(&[EA]);
    client.amend(Kind::Endpoints, "", &["a", "nowhere"], &[]);
    let response = client.expect(Kind::Endpoints, &["a"]);
    assert_eq!(response.removed, ["nowhere"]);
    client.acknowledge_delta(&response);
    client.expect_nothing();
    client.change(&[EA, (Kind::Endpoints, "nowhere", "1")]);
    client.expect(Kind::Endpoints, &["nowhere"]);
}

#[test]
fn delta_unsubscribing_what_the_wildcard_covers_is_answered() {
    let mut client = Client::delta(&[A, B]);
    client.amend(Kind::Cluster, "", &["*", "a"], &[]);
    let first = client.expect(Kind::Cluster, &["a", "b"]);
    client.acknowledge_delta(&first);
    client.amend(Kind::Cluster, "", &[], &["a", "nowhere"]);
    let second = client.expect(Kind::Cluster, &["a"]);
    assert_eq!(second.removed, ["nowhere"]);
}

#[test]
fn delta_unsubscribed_names_are_of_no_interest() {
    let mut client = Client::delta(&[EA, EB]);
    client.amend(Kind::Endpoints, "", &["a", "b"], &[]);
    let first = client.expect(Kind::Endpoints, &["a", "b"]);
    client.acknowledge_delta(&first);
    client.amend(Kind::Endpoints, "", &[], &["a"]);
    client.expect_nothing();
    client.change(&[EA2, EB]);
    client.expect_nothing();
    client.change(&[EB]);
    client.expect_nothing();
}

#[test]
fn delta_reconnecting_brings_only_what_differs() {
    let version = |item| Version::of(&resource(item)).to_string();
    let mut client = Client::delta(&[A2, B]);
    let gone = ("gone", version(A));
    client.resume(Kind::Cluster, "", &["*"], &[], &[("a", version(A)), ("b", version(B)), gone]);
    let response = client.expect(Kind::Cluster, &["a"]);
    assert_eq!(response.removed, ["gone"]);
    client.acknowledge_delta(&response);
    client.expect_nothing();

    let mut client = Client::delta(&[EA, EB]);
    client.resume(Kind::Endpoints, "", &["a", "b"], &[], &[("a", version(EA)), ("b", "not ours".to_owned())]);
    client.expect(Kind::Endpoints, &["b"]);
}

#[test]
fn delta_stale_nonce_still_changes_the_subscription() {
    let mut client = Client::delta(&[EA, EB]);
    client.amend(Kind::Endpoints, "", &["a"], &[]);
    client.expect(Kind::Endpoints, &["a"]);
    assert_eq!(client.amend(Kind::Endpoints, "stale", &["b"], &[]), Reaction::Stale);
    client.expect(Kind::Endpoints, &["b"]);
}

#[test]
fn delta_refusal_is_not_answered_with_the_same() {
    let mut client = Client::delta(&[A, B]);
    client.amend(Kind::Cluster, "", &[], &[]);
    let first = client.expect(Kind::Cluster, &["a", "b"]);
    let names = RequestNames::Delta { subscribe: vec![], unsubscribe: vec![], initial_versions: Default::default() };
    let request = Request { nonce: first.nonce.clone(), error: Some("bad".to_owned()), names };
    assert!(matches!(client.session.request(Kind::Cluster, request), Reaction::Refused(_)));
    client.expect_nothing();
    client.change(&[A2, B]);
    client.expect(Kind::Cluster, &["a"]);
}

#[test]
fn delta_takes_clusters_away_after_what_referred_to_them_and_endpoints_last() {
    let mut client = Client::delta(&[A, B, EA, EB, L, R]);
    for (kind, names) in
        [(Kind::Cluster, &[][..]), (Kind::Endpoints, &["a", "b"]), (Kind::Listener, &[]), (Kind::Route, &["r"])]
    {
        client.amend(kind, "", names, &[]);
    }
    while let Some(response) = client.next() {
        client.acknowledge_delta(&response);
    }
    client.change(&[A, EA, L2, R2]);
    let listeners = client.expect(Kind::Listener, &["l"]);
    let routes = client.expect(Kind::Route, &["r"]);
    client.acknowledge_delta(&listeners);
    client.acknowledge_delta(&routes);
    let clusters = client.expect(Kind::Cluster, &[]);
    assert_eq!(clusters.removed, ["b"]);
    client.expect_nothing();
    client.acknowledge_delta(&clusters);
    assert_eq!(client.expect(Kind::Endpoints, &[]).removed, ["b"]);
    client.expect_nothing();
}

#[test]
fn a_change_of_one_sends_nothing_of_others() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut client = Client::new(variant, &[EA, EB]);
        match variant {
            Variant::StateOfTheWorld => client.ask(Kind::Endpoints, "", &["a", "b"]),
            Variant::Delta => client.amend(Kind::Endpoints, "", &["a", "b"], &[]),
        };
        let first = client.expect(Kind::Endpoints, &["a", "b"]);
        match variant {
            Variant::StateOfTheWorld => client.acknowledge(&first, &["a", "b"]),
            Variant::Delta => client.acknowledge_delta(&first),
        }
        client.change(&[EA2, EB]);
        client.expect(Kind::Endpoints, &["a"]);
    }
}
