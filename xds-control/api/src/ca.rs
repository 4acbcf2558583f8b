//! `istio.v1.auth.IstioCertificateService`: the call by which a sidecar has its certificate signed.
//!
//! Written out by hand, as its .proto is in no package: two messages, one unary method, a client and a server for it. The field
//! numbers are the wire contract with Istio's agents and control planes.

use crate::pb::google::protobuf::Struct;
use prost::Name;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Context, GrpcMethod, Poll, Service, StdError, http};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
const METHOD: &str = "CreateCertificate";
const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Asks for a certificate for the caller's identity, which the call's credentials prove.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// The certificate signing request in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long it shall be valid, in seconds; the CA may give less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Hints for the CA, such as the name of a signer.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The signed certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM certificates, the leaf first and the root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl Name for IstioCertificateRequest {
    const NAME: &'static str = "IstioCertificateRequest";
    const PACKAGE: &'static str = "istio.v1.auth";
}

impl Name for IstioCertificateResponse {
    const NAME: &'static str = "IstioCertificateResponse";
    const PACKAGE: &'static str = "istio.v1.auth";
}

/// Calls the service over a `tonic` channel, or anything that carries gRPC requests.
#[derive(Clone, Debug)]
pub struct IstioCertificateServiceClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> IstioCertificateServiceClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(inner: T) -> Self {
        Self { inner: tonic::client::Grpc::new(inner) }
    }

    pub async fn create_certificate(
        &mut self,
        request: impl tonic::IntoRequest<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unavailable(format!("the CA's connection is not ready: {}", error.into())))?;
        let mut request = request.into_request();
        request.extensions_mut().insert(GrpcMethod::new(SERVICE, METHOD));
        let path = http::uri::PathAndQuery::from_static(PATH);
        self.inner.unary(request, path, ProstCodec::default()).await
    }
}

/// What a CA does.
pub trait IstioCertificateService: Send + Sync + 'static {
    fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> impl Future<Output = Result<Response<IstioCertificateResponse>, Status>> + Send;
}

/// Serves an [`IstioCertificateService`], to be added to a `tonic` server or router.
#[derive(Debug)]
pub struct IstioCertificateServiceServer<S> {
    service: Arc<S>,
}

impl<S> IstioCertificateServiceServer<S> {
    pub fn new(service: S) -> Self {
        Self { service: Arc::new(service) }
    }
}

impl<S> Clone for IstioCertificateServiceServer<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service) }
    }
}

impl<S> tonic::server::NamedService for IstioCertificateServiceServer<S> {
    const NAME: &'static str = SERVICE;
}

impl<S, B> Service<http::Request<B>> for IstioCertificateServiceServer<S>
where
    S: IstioCertificateService,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("the service has CreateCertificate only").into_http()) });
        }
        let method = CreateCertificate { service: Arc::clone(&self.service) };
        Box::pin(async move { Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(method, request).await) })
    }
}

/// The one method, in the form that tonic's server wants.
struct CreateCertificate<S> {
    service: Arc<S>,
}

impl<S: IstioCertificateService> tonic::server::UnaryService<IstioCertificateRequest> for CreateCertificate<S> {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<Response<IstioCertificateResponse>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let service = Arc::clone(&self.service);
        Box::pin(async move { service.create_certificate(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// Signs nothing: answers with what it was asked, so that the test sees both directions.
    struct Echo;

    impl IstioCertificateService for Echo {
        async fn create_certificate(
            &self,
            request: Request<IstioCertificateRequest>,
        ) -> Result<Response<IstioCertificateResponse>, Status> {
            let caller = request
                .metadata()
                .get("authorization")
                .and_then(|value| value.to_str().ok())
                .unwrap_or("nobody")
                .to_owned();
            let IstioCertificateRequest { csr, validity_duration, metadata: _ } = request.into_inner();
            if csr.is_empty() {
                return Err(Status::invalid_argument("no CSR"));
            }
            Ok(Response::new(IstioCertificateResponse { cert_chain: vec![csr, validity_duration.to_string(), caller] }))
        }
    }

    fn client() -> IstioCertificateServiceClient<IstioCertificateServiceServer<Echo>> {
        IstioCertificateServiceClient::new(IstioCertificateServiceServer::new(Echo))
    }

    #[tokio::test]
    async fn a_call_reaches_the_service_and_comes_back() {
        let mut request =
            Request::new(IstioCertificateRequest { csr: "pem".to_owned(), validity_duration: 3600, metadata: None });
        request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
        let answer = client().create_certificate(request).await.unwrap().into_inner();
        assert_eq!(answer.cert_chain, ["pem", "3600", "Bearer t"]);
    }

    #[tokio::test]
    async fn a_refusal_comes_back_as_its_status() {
        let status = client().create_certificate(IstioCertificateRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "no CSR"));
    }

    #[tokio::test]
    async fn another_method_is_unimplemented() {
        let request =
            http::Request::builder().uri("/istio.v1.auth.IstioCertificateService/Other").body(Body::empty()).unwrap();
        let answer = Service::call(&mut IstioCertificateServiceServer::new(Echo), request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "12");
    }

    #[test]
    fn the_wire_is_istio_s() {
        let request =
            IstioCertificateRequest { csr: "a".to_owned(), validity_duration: 1, metadata: Some(Struct::default()) };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'a', 0x18, 1, 0x22, 0]);
        assert_eq!(IstioCertificateResponse { cert_chain: vec!["a".to_owned()] }.encode_to_vec(), [0x0a, 1, b'a']);
        assert_eq!(IstioCertificateRequest::full_name(), "istio.v1.auth.IstioCertificateRequest");
    }
}
