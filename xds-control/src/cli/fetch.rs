//! Questions to the control plane's monitoring port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
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
    #[error("cannot use the token in {} (--token-file): {reason}", file.display())]
    Token { file: PathBuf, reason: String },
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

/// Where the control plane is asked, and with which token.
#[derive(Debug)]
pub(crate) struct Control {
    address: String,
    token: Option<HeaderValue>,
}

impl Control {
    pub(crate) fn new(address: &str, token_file: Option<&Path>) -> Result<Self, FetchError> {
        let token = token_file.map(|file| {
            let unusable = |reason: String| FetchError::Token { file: file.to_owned(), reason };
            let token = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| unusable("it holds what no header may hold".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { address: address.to_owned(), token: token.transpose()? })
    }

    pub(crate) fn proxy_statuses(&self) -> Result<Vec<ProxyStatus>, FetchError> {
        self.json("/debug/syncz")
    }

    pub(crate) fn config_dump(&self, proxy: &str) -> Result<ConfigDump, FetchError> {
        // What could end the value early is escaped; the rest of a node's name is plain.
        let proxy = proxy.replace('%', "%25").replace('&', "%26").replace(' ', "%20");
        self.json(&format!("/debug/config_dump?node={proxy}"))
    }

    /// What is wrong with the manifests.
    pub(crate) fn problems(&self) -> Result<Vec<Problem>, FetchError> {
        #[derive(Deserialize)]
        struct Registry {
            problems: Vec<Problem>,
        }
        self.json::<Registry>("/debug/registry").map(|registry| registry.problems)
    }

    pub(crate) fn version(&self) -> Result<String, FetchError> {
        self.json("/version")
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, FetchError> {
        let reach = |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Reach {
            control: self.address.clone(),
            source,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| reach(error.into()))?;
        let answer = async { tokio::time::timeout(TIMEOUT, self.exchange(path)).await.map_err(Box::from).flatten() };
        let (status, body) = runtime.block_on(answer).map_err(reach)?;
        if status != StatusCode::OK {
            let reason = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(FetchError::Refused { reason });
        }
        serde_json::from_slice(&body).map_err(|source| FetchError::Data { path: path.to_owned(), source })
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the runtime, which ends with the exchange.
        tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, &self.address).body(Empty::<Bytes>::new())?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok((status, body))
    }
}
