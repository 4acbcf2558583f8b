//! Resources that may stay only so long (TTL).

use std::time::{Duration, Instant};

use weft_xds::{
    any,
    pb::{
        envoy::service::discovery::v3::Resource,
        google::protobuf::{Any, Duration as ProtoDuration},
    },
    type_url::{CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION},
};

use crate::{
    Serving,
    ads_server::resource,
    answered_by, by_rds, endpoints, listener,
    proxy::{eventually, origin},
    serving,
};

/// `text` is None for a heartbeat.
fn mortal(type_url: &str, name: &str, text: Option<&str>, ttl: Duration) -> Any {
    any::pack(&Resource {
        name: name.to_owned(),
        resource: text.map(|text| resource(type_url, text)),
        ttl: Some(ProtoDuration { seconds: ttl.as_secs() as i64, nanos: ttl.subsec_nanos() as i32 }),
        ..Default::default()
    })
}

const TTL: Duration = Duration::from_millis(800);

#[tokio::test]
async fn endpoints_go_when_their_time_is_over() {
    let application = origin("a").await;
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(application).await;
    let text = endpoints("a", application);
    stream.answer_with(CLUSTER_LOAD_ASSIGNMENT, "2", "2", vec![mortal(CLUSTER_LOAD_ASSIGNMENT, "a", Some(&text), TTL)]);
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "2", "2").await;
    assert_eq!(answered_by(listening).await, "a");
    eventually("the endpoints are gone", async || answered_by(listening).await == "503").await;
    stream.answer(CLUSTER_LOAD_ASSIGNMENT, "3", "3", &[text]);
    stream.acknowledged(CLUSTER_LOAD_ASSIGNMENT, "3", "3").await;
    assert_eq!(answered_by(listening).await, "a");
}

#[tokio::test]
async fn heartbeats_keep_a_listener_alive() {
    let Serving { mut stream, proxy: _proxy, listening, server: _server } = serving(origin("a").await).await;
    let text = listener("l", listening, &by_rds("r"));
    stream.answer_with(LISTENER, "2", "0", vec![mortal(LISTENER, "l", Some(&text), TTL)]);
    stream.acknowledged(LISTENER, "2", "0").await;
    let begun = Instant::now();
    let mut beats = 0;
    while begun.elapsed() < TTL * 2 {
        beats += 1;
        let nonce = beats.to_string();
        stream.answer_with(LISTENER, "2", &nonce, vec![mortal(LISTENER, "l", None, TTL)]);
        stream.acknowledged(LISTENER, "2", &nonce).await;
        assert_eq!(answered_by(listening).await, "a");
        tokio::time::sleep(TTL / 8).await;
    }
    eventually("the listener is gone", async || answered_by(listening).await == "refused").await;
    assert!(stream.request_for(ROUTE_CONFIGURATION).await.resource_names.is_empty());
}
