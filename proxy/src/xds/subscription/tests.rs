use super::*;

fn names(names: &[&str]) -> Interest {
    Interest::Names(names.iter().map(|name| Arc::from(*name)).collect())
}

fn request(version: &str, nonce: &str, interest: Interest, refusal: Option<&str>) -> Option<RequestState> {
    Some(RequestState {
        version_info: version.to_owned(),
        response_nonce: nonce.to_owned(),
        interest,
        refusal: refusal.map(str::to_owned),
    })
}

fn refused(reason: &str) -> Verdict {
    Verdict::Refused(reason.to_owned())
}

/// On an open stream, the first request already sent.
fn running(interest: Interest, now: Instant) -> Subscription {
    let mut subscription = Subscription::new();
    subscription.set_interest(interest);
    subscription.stream_opened();
    subscription.next_request(now).expect("the first request");
    subscription
}

#[test]
fn asks_once_on_a_new_stream() {
    let now = Instant::now();
    let mut subscription = Subscription::new();
    subscription.set_interest(Interest::Wildcard);
    subscription.stream_opened();
    assert_eq!(subscription.next_request(now), request("", "", Interest::Wildcard, None));
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn asks_nothing_before_there_is_a_name() {
    let now = Instant::now();
    let mut subscription = Subscription::new();
    subscription.stream_opened();
    assert_eq!(subscription.next_request(now), None);
    subscription.set_interest(Interest::nothing());
    subscription.request_again();
    assert_eq!(subscription.next_request(now), None, "a request without names could be taken for a wildcard");
    subscription.set_interest(names(&["a"]));
    assert_eq!(subscription.next_request(now), request("", "", names(&["a"]), None));
}

#[test]
fn acknowledges_with_the_version_and_nonce_of_the_answer() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    assert_eq!(subscription.next_request(now), request("v1", "n1", Interest::Wildcard, None));
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn refuses_with_the_last_accepted_version_and_the_new_nonce() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.answered("v2".into(), "n2".into(), refused("bad"), now);
    assert_eq!(subscription.next_request(now), request("v1", "n2", Interest::Wildcard, Some("bad")));
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn refuses_the_first_answer_with_an_empty_version() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), refused("bad"), now);
    assert_eq!(subscription.next_request(now), request("", "n1", Interest::Wildcard, Some("bad")));
}

#[test]
fn a_refusal_is_not_repeated_by_later_requests() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.answered("v1".into(), "n1".into(), refused("bad"), now);
    subscription.next_request(now);
    subscription.set_interest(names(&["a", "b"]));
    assert_eq!(subscription.next_request(now), request("", "n1", names(&["a", "b"]), None));
}

#[test]
fn only_the_newest_answer_is_acknowledged() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), refused("bad"), now);
    subscription.answered("v2".into(), "n2".into(), Verdict::Accepted, now);
    assert_eq!(subscription.next_request(now), request("v2", "n2", Interest::Wildcard, None));
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn a_changed_interest_is_told_with_the_current_version_and_nonce() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.set_interest(names(&["a", "b"]));
    assert_eq!(subscription.next_request(now), request("v1", "n1", names(&["a", "b"]), None));
    subscription.set_interest(names(&["b", "a"]));
    assert_eq!(subscription.next_request(now), None, "the same set");
}

#[test]
fn giving_up_the_last_name_is_told_once_and_acknowledgements_stop() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.set_interest(Interest::nothing());
    assert_eq!(subscription.next_request(now), request("", "", Interest::nothing(), None));
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    assert_eq!(subscription.next_request(now), None, "the server answered before it heard of it");
    subscription.set_interest(names(&["b"]));
    assert_eq!(subscription.next_request(now), request("v1", "n1", names(&["b"]), None));
}

#[test]
fn giving_up_is_told_even_if_an_answer_comes_before_it_is_sent() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.set_interest(Interest::nothing());
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    assert_eq!(subscription.next_request(now), request("v1", "n1", Interest::nothing(), None));
}

#[test]
fn asking_again_repeats_the_same_request() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.request_again();
    assert_eq!(subscription.next_request(now), request("v1", "n1", names(&["a"]), None));
}

#[test]
fn an_acknowledgement_can_be_held_back() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.hold();
    assert_eq!(subscription.due_at(now), None);
    assert_eq!(subscription.next_request(now), None);
    subscription.answered("v2".into(), "n2".into(), Verdict::Accepted, now);
    subscription.release();
    assert_eq!(subscription.next_request(now), request("v2", "n2", Interest::Wildcard, None));
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn a_new_stream_keeps_the_version_and_forgets_nonce_refusal_and_hold() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.answered("v2".into(), "n2".into(), refused("bad"), now);
    subscription.hold();
    subscription.stream_opened();
    assert_eq!(subscription.next_request(now), request("v1", "", Interest::Wildcard, None));
}

#[test]
fn a_new_stream_says_nothing_about_what_is_no_longer_wanted() {
    let now = Instant::now();
    let mut subscription = running(names(&["a"]), now);
    subscription.set_interest(Interest::nothing());
    subscription.stream_opened();
    assert_eq!(subscription.next_request(now), None);
}

#[test]
fn a_server_that_repeats_what_was_refused_is_slowed_down() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    let mut waits = Vec::new();
    for round in 0..10 {
        subscription.answered("bad".into(), format!("n{round}"), refused("bad"), now);
        let due = subscription.due_at(now).expect("a refusal is owed");
        waits.push((due - now).as_millis());
        if due > now {
            assert_eq!(subscription.next_request(now), None);
        }
        assert!(subscription.next_request(due).is_some());
    }
    assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);

    subscription.answered("other".into(), "n".into(), refused("bad"), now);
    assert_eq!(subscription.due_at(now), Some(now), "another version is another mistake");
    subscription.next_request(now);
    subscription.answered("good".into(), "n".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.answered("other".into(), "n".into(), refused("bad"), now);
    assert_eq!(subscription.due_at(now), Some(now), "an accepted version in between ends the row");
}

#[test]
fn a_good_answer_is_acknowledged_at_once_after_a_slowed_refusal() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    for _ in 0..2 {
        subscription.answered("bad".into(), "n".into(), refused("bad"), now);
        subscription.next_request(now);
    }
    subscription.answered("good".into(), "n3".into(), Verdict::Accepted, now);
    assert_eq!(subscription.next_request(now), request("good", "n3", Interest::Wildcard, None));
}

#[test]
fn what_fails_after_its_acknowledgement_is_told_late() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Accepted, now);
    subscription.next_request(now);
    subscription.refused_late("cannot bind".into());
    assert_eq!(subscription.next_request(now), request("v1", "n1", Interest::Wildcard, Some("cannot bind")));
}

#[test]
fn long_refusals_are_cut_at_a_character() {
    let now = Instant::now();
    let mut subscription = running(Interest::Wildcard, now);
    subscription.answered("v1".into(), "n1".into(), Verdict::Refused("ä".repeat(REFUSAL_BYTES_MAX)), now);
    let refusal = subscription.next_request(now).and_then(|request| request.refusal).expect("a refusal");
    assert!(refusal.len() <= REFUSAL_BYTES_MAX);
    assert!(refusal.ends_with("ä...(truncated)"));
}
