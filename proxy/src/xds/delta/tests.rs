use std::time::Duration;

use super::*;

const EDS: ResourceKind = ResourceKind::Endpoints;
const CDS: ResourceKind = ResourceKind::Cluster;

struct Bench {
    stream: DeltaStream,
    now: Instant,
}

impl Bench {
    fn opened() -> Bench {
        let node = Node { id: "node".into(), ..Default::default() };
        let mut bench = Bench { stream: DeltaStream::new(node, true), now: Instant::now() };
        bench.stream.opened();
        bench
    }

    fn want(&mut self, kind: ResourceKind, names: &[&str]) {
        self.stream.set_interest(kind, Interest::Names(names.iter().map(|name| Arc::from(*name)).collect()));
    }

    fn answered(
        &mut self,
        kind: ResourceKind,
        nonce: &str,
        applied: &[(&str, &str)],
        removed: &[&str],
        verdict: Verdict,
    ) {
        let answer = AnswerId {
            version: String::new(),
            nonce: nonce.to_owned(),
            applied: applied.iter().map(|(name, version)| (Arc::from(*name), (*version).to_owned())).collect(),
            removed: removed.iter().map(|name| Arc::from(*name)).collect(),
        };
        self.stream.answered(kind, &answer, verdict, self.now);
    }

    /// The next request in short: `+` subscribes, `-` unsubscribes, `=` has that version, `#` is the nonce.
    fn said(&mut self) -> String {
        let Some(request) = self.stream.next_request(self.now) else { return "nothing".to_owned() };
        let mut said = Vec::new();
        said.extend(request.resource_names_subscribe.iter().map(|name| format!("+{name}")));
        said.extend(request.resource_names_unsubscribe.iter().map(|name| format!("-{name}")));
        let mut versions: Vec<_> =
            request.initial_resource_versions.iter().map(|(name, version)| format!("{name}={version}")).collect();
        versions.sort();
        said.extend(versions);
        if !request.response_nonce.is_empty() {
            said.push(format!("#{}", request.response_nonce));
        }
        said.extend(request.error_detail.map(|status| format!("refused {}: {}", status.code, status.message)));
        said.extend(request.node.map(|node| node.id));
        said.join(" ")
    }
}

#[test]
fn changes_of_interest_are_told_once() {
    let mut bench = Bench::opened();
    assert_eq!(bench.said(), "nothing");
    bench.want(EDS, &["a", "b"]);
    assert_eq!(bench.said(), "+a +b node");
    assert_eq!(bench.said(), "nothing");
    bench.want(EDS, &["b", "c"]);
    assert_eq!(bench.said(), "+c -a");
    bench.want(EDS, &[]);
    assert_eq!(bench.said(), "-b -c");
    assert_eq!(bench.said(), "nothing");
}

#[test]
fn every_answer_is_acknowledged_in_order() {
    let mut bench = Bench::opened();
    bench.want(EDS, &["a", "b"]);
    bench.said();
    bench.answered(EDS, "1", &[("a", "v1")], &[], Verdict::Accepted);
    bench.answered(EDS, "2", &[], &[], Verdict::Refused("bad".into()));
    bench.answered(EDS, "3", &[("b", "v1")], &[], Verdict::Accepted);
    bench.want(EDS, &["a", "b", "c"]);
    assert_eq!(bench.said(), "+c #1");
    assert_eq!(bench.said(), "#2 refused 13: bad");
    assert_eq!(bench.said(), "#3");
    assert_eq!(bench.said(), "nothing");
}

#[test]
fn a_new_stream_names_everything_with_its_version() {
    let mut bench = Bench::opened();
    bench.stream.set_interest(CDS, Interest::Wildcard);
    bench.want(EDS, &["a", "b", "c"]);
    assert_eq!(bench.said(), "node");
    assert_eq!(bench.said(), "+a +b +c");
    bench.answered(CDS, "1", &[("a", "1"), ("b", "1")], &[], Verdict::Accepted);
    bench.answered(EDS, "2", &[("a", "7"), ("b", "7")], &[], Verdict::Accepted);
    bench.answered(EDS, "3", &[("a", "8")], &["b"], Verdict::Accepted);
    // What of a refused answer is applied is had all the same.
    bench.answered(CDS, "4", &[("c", "2")], &[], Verdict::Refused("d is bad".into()));
    bench.stream.closed();
    assert_eq!(bench.said(), "nothing");
    bench.stream.opened();
    assert_eq!(bench.said(), "a=1 b=1 c=2 node");
    assert_eq!(bench.said(), "+a +b +c a=8");
    assert_eq!(bench.said(), "nothing");
}

#[test]
fn what_is_not_wanted_any_more_is_asked_for_from_scratch_later() {
    let mut bench = Bench::opened();
    bench.want(EDS, &["a"]);
    bench.said();
    bench.answered(EDS, "1", &[("a", "1")], &[], Verdict::Accepted);
    bench.want(EDS, &[]);
    bench.want(EDS, &["a"]);
    bench.stream.opened();
    assert_eq!(bench.said(), "+a node");
}

#[test]
fn the_same_is_asked_for_again_by_name() {
    let mut bench = Bench::opened();
    bench.want(EDS, &["a", "b"]);
    bench.said();
    bench.stream.request_again(EDS, &["a".into(), "unwanted".into()]);
    assert_eq!(bench.said(), "+a");
    assert_eq!(bench.said(), "nothing");
}

#[test]
fn an_acknowledgement_can_be_held_back() {
    let mut bench = Bench::opened();
    bench.stream.set_interest(CDS, Interest::Wildcard);
    bench.said();
    bench.answered(CDS, "1", &[("a", "1")], &[], Verdict::Accepted);
    bench.stream.hold(CDS);
    assert_eq!((bench.said().as_str(), bench.stream.due_at(bench.now)), ("nothing", None));
    bench.stream.release(CDS);
    assert_eq!(bench.said(), "#1");
}

#[test]
fn a_repeated_refusal_waits() {
    let mut bench = Bench::opened();
    bench.want(EDS, &["a"]);
    bench.said();
    for (nonce, wait) in [("1", 0), ("2", 100), ("3", 200)] {
        bench.answered(EDS, nonce, &[], &[], Verdict::Refused("bad".into()));
        let wait = Duration::from_millis(wait);
        assert_eq!(bench.stream.due_at(bench.now), Some(bench.now + wait));
        bench.now += wait;
        assert_eq!(bench.said(), format!("#{nonce} refused 13: bad"));
    }
}
