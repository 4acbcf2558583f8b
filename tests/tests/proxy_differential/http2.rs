//! HTTP/2 with prior knowledge, and gRPC over it, frame by frame enough to see trailers and resets.

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use weft_tests::facts::Facts;

use crate::Case;
use crate::pair::{TIMEOUT, Target};

/// One request and its answer. Names start with `h2`: HTTP/1 has cases of the same names.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    trailers: &'static [(&'static str, &'static str)],
}

const fn get(name: &'static str, path: &'static str) -> Exchange {
    Exchange { name, method: "GET", path, headers: &[], body: b"", trailers: &[] }
}

const fn grpc(name: &'static str, path: &'static str, wish: &'static [(&'static str, &'static str)]) -> Exchange {
    Exchange { name, method: "POST", path, headers: wish, body: b"\0\0\0\0\x05hello", trailers: &[] }
}

impl Exchange {
    const fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }
    const fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }
    const fn body(self, body: &'static [u8]) -> Self {
        Self { body, ..self }
    }
    const fn trailers(self, trailers: &'static [(&'static str, &'static str)]) -> Self {
        Self { trailers, ..self }
    }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

const EXCHANGES: &[Exchange] = &[
    get("h2 plain get", "/headers"),
    get("h2 get by HTTP/2 behind", "/h2/").headers(&[("x-origin-do", "headers")]),
    get("h2 head", "/bytes/100").method("HEAD"),
    get("h2 post", "/echo").method("POST").body(b"hello"),
    get("h2 post by HTTP/2 behind", "/h2/").method("POST").headers(&[("x-origin-do", "echo")]).body(b"hello"),
    get("h2 post with trailers", "/headers").method("POST").body(b"hello").trailers(&[("x-t", "1")]),
    get("h2 post with trailers by HTTP/2 behind", "/h2/")
        .method("POST")
        .headers(&[("x-origin-do", "headers")])
        .body(b"hello")
        .trailers(&[("x-t", "1")]),
    get("h2 te trailers", "/h2/").headers(&[("x-origin-do", "headers"), ("te", "trailers")]),
    get("h2 cookies in crumbs", "/headers").headers(&[("cookie", "a=1"), ("cookie", "b=2")]),
    get("h2 answer with trailers", "/trailers"),
    get("h2 answer with trailers by HTTP/2 behind", "/h2/").headers(&[("x-origin-do", "trailers")]),
    get("h2 answer in chunks", "/chunks/3"),
    get("h2 large answer", "/bytes/3000000"),
    get("h2 large answer by HTTP/2 behind", "/h2/").headers(&[("x-origin-do", "bytes/3000000")]),
    get("h2 no content", "/status/204"),
    get("h2 server error of the application", "/status/503"),
    get("h2 no route", "/elsewhere").headers(&[("host-for-test", "narrow.test")]),
    get("h2 no cluster", "/to-unknown"),
    get("h2 no endpoints", "/to-empty"),
    get("h2 nobody listens", "/to-nobody"),
    get("h2 nobody listens to HTTP/2", "/h2-to-nobody"),
    get("h2 route timeout", "/impatient").headers(&[("x-origin-do", "delay/2s")]),
    get("h2 application resets", "/h2/").headers(&[("x-origin-do", "close")]),
    get("h2 application closes", "/close"),
    get("h2 retried until good", "/retry-5xx").headers(&[("x-origin-do", "flaky/2")]),
    grpc("h2 grpc", "/h2/", &[GRPC, ("te", "trailers"), ("x-origin-do", "grpc/0")]),
    get("h2 get as asked", "/as-asked/").headers(&[("x-origin-do", "headers")]),
    grpc("h2 grpc as asked", "/as-asked/", &[GRPC, ("te", "trailers"), ("x-origin-do", "grpc/0")]),
    grpc("h2 grpc error", "/h2/", &[GRPC, ("te", "trailers"), ("x-origin-do", "grpc/13")]),
    grpc("h2 grpc error in headers", "/h2/", &[GRPC, ("te", "trailers"), ("x-origin-do", "grpc-only/14")]),
    grpc("h2 grpc without a cluster", "/to-unknown", &[GRPC]),
    grpc("h2 grpc without endpoints", "/to-empty", &[GRPC]),
    grpc("h2 grpc to nobody", "/h2-to-nobody", &[GRPC]),
    grpc("h2 grpc route timeout", "/h2-impatient", &[GRPC, ("x-origin-do", "delay/2s")]),
    grpc("h2 grpc with its own timeout", "/h2/", &[GRPC, ("grpc-timeout", "5S"), ("x-origin-do", "headers")]),
];

pub(crate) fn cases() -> Vec<Case> {
    EXCHANGES
        .iter()
        .map(|exchange| Case {
            name: exchange.name,
            observe: Box::new(|target| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async { tokio::time::timeout(TIMEOUT, exchange.observe(target)).await })?
            }),
        })
        .collect()
}

impl Exchange {
    async fn observe(&self, target: &Target) -> Result<Facts> {
        let stream = TcpStream::connect(target.ports.http()).await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        let driver = tokio::spawn(connection);
        let mut facts = Facts::default();
        if let Err(error) = self.exchange(sender, target, &mut facts).await {
            match error.downcast_ref::<h2::Error>() {
                Some(error) => facts.add("outcome", format!("reset: {:?}", error.reason())),
                None => return Err(error),
            }
        }
        driver.abort();
        facts.append(target.logged(self.name)?);
        Ok(facts)
    }

    async fn exchange(&self, sender: SendRequest<Bytes>, target: &Target, facts: &mut Facts) -> Result<()> {
        let mut sender = sender.ready().await?;
        let has_body = !self.body.is_empty() || !self.trailers.is_empty();
        let (response, mut body) = sender.send_request(self.request(target)?, !has_body)?;
        if has_body {
            // The answer may come, and the stream end, before all was sent.
            let _answered_early = body.send_data(self.body.into(), self.trailers.is_empty());
            if !self.trailers.is_empty() {
                let _answered_early = body.send_trailers(header_map(self.trailers)?);
            }
        }
        let (head, mut body) = response.await?.into_parts();
        facts.add("status", head.status.as_u16());
        facts.add_headers("header", texts(&head.headers));
        let mut bytes = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            bytes.extend_from_slice(&data);
        }
        facts.add_body(&bytes);
        if let Some(trailers) = body.trailers().await? {
            facts.add_headers("trailer", texts(&trailers));
        }
        Ok(())
    }

    fn request(&self, target: &Target) -> Result<Request<()>> {
        let host = self.headers.iter().find(|(name, _)| *name == "host-for-test").map_or("any.test", |(_, host)| host);
        let key = target.key(self.name);
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("http://{host}{}", self.path))
            .header("x-test-id", &key)
            .header("x-test-key", &key);
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "host-for-test") {
            request = request.header(*name, *value);
        }
        request.body(()).context("the case's request")
    }
}

fn header_map(pairs: &[(&'static str, &'static str)]) -> Result<HeaderMap> {
    pairs.iter().map(|(name, value)| Ok((name.parse()?, value.parse()?))).collect()
}

fn texts(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("not text")))
}
