//! Questions to the control plane's monitoring port.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use weft_control::monitoring::{ConfigDump, ProxyStatus};
use weft_control::source::manifests::Problem;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot reach the control plane at {control} (--control)")]
    Reach {
        control: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the control plane's answer to {path} is not understood")]
    Data {
        path: String,
        #[source]
        source: serde_json::Error,
    },
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// The configuration of a proxy in the largest mesh is smaller.
const ANSWER_BYTES_MAX: usize = 1 << 30;

pub(crate) fn proxy_statuses(control: &str) -> Result<Vec<ProxyStatus>, FetchError> {
    json(control, "/debug/syncz")
}

pub(crate) fn config_dump(control: &str, proxy: &str) -> Result<ConfigDump, FetchError> {
    // What could end the value early is escaped; the rest of a node's name is plain.
    let proxy = proxy.replace('%', "%25").replace('&', "%26").replace(' ', "%20");
    json(control, &format!("/debug/config_dump?node={proxy}"))
}

/// What is wrong with the manifests.
pub(crate) fn problems(control: &str) -> Result<Vec<Problem>, FetchError> {
    #[derive(Deserialize)]
    struct Registry {
        problems: Vec<Problem>,
    }
    json::<Registry>(control, "/debug/registry").map(|registry| registry.problems)
}

pub(crate) fn version(control: &str) -> Result<String, FetchError> {
    json(control, "/version")
}

fn json<T: DeserializeOwned>(control: &str, path: &str) -> Result<T, FetchError> {
    let reach =
        |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Reach { control: control.to_owned(), source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| reach(error.into()))?;
    let answer = async { tokio::time::timeout(TIMEOUT, exchange(control, path)).await.map_err(Box::from).flatten() };
    let (status, body) = runtime.block_on(answer).map_err(reach)?;
    if status != StatusCode::OK {
        let reason = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(FetchError::Refused { reason });
    }
    serde_json::from_slice(&body).map_err(|source| FetchError::Data { path: path.to_owned(), source })
}

async fn exchange(control: &str, path: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(control).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the runtime, which ends with the exchange.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, control).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok((status, body))
}
