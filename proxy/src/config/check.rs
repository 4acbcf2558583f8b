//! `envoy.service.auth.v3`: what an authorization service is asked, and what it answers.

use std::{collections::BTreeMap, net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use prost::Message as _;
use weft_xds::pb::{
    envoy::{
        config::core::v3::{
            Address, HeaderValueOption, Metadata as ProtoMetadata, QueryParameter, SocketAddress, address,
            header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
            check_response::HttpResponse,
        },
    },
    google::protobuf::{ListValue, Struct, Timestamp, Value as ProtoValue, value::Kind},
};

use crate::config::metadata::{Fields, Metadata, Value, fields_of};

/// The method of the service.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What is asked.
pub struct Check<'a> {
    pub source: SocketAddr,
    pub source_principal: String,
    /// Of the caller, in PEM and percent-encoded.
    pub source_certificate: String,
    pub destination: SocketAddr,
    pub destination_principal: String,
    pub at: SystemTime,
    pub id: String,
    pub method: &'a str,
    pub headers: BTreeMap<String, String>,
    pub path: &'a str,
    pub host: String,
    pub scheme: &'a str,
    /// None: it is not known.
    pub size: Option<u64>,
    pub protocol: &'a str,
    pub body: Bytes,
    pub body_as_bytes: bool,
    pub context: BTreeMap<String, String>,
    pub metadata: Metadata,
    pub metadata_namespaces: &'a [String],
    /// Some: the server's name.
    pub server_name: Option<&'a str>,
}

/// What a service answers.
#[derive(Debug, Default)]
pub struct CheckAnswer {
    pub refusal: Option<Refusal>,
    pub changes: Changes,
    pub metadata: Option<Fields>,
    /// Something in it is no header.
    pub has_invalid: bool,
}

#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// Of a request that may go on.
#[derive(Debug, Default)]
pub struct Changes {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub append: Vec<(HeaderName, HeaderValue)>,
    pub add_if_absent: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
    pub response_add: Vec<(HeaderName, HeaderValue)>,
    pub response_set: Vec<(HeaderName, HeaderValue)>,
    pub query_set: Vec<(String, String)>,
    pub query_remove: Vec<String>,
}

impl Check<'_> {
    pub fn encode(self) -> Vec<u8> {
        let (body, raw_body) = match self.body_as_bytes {
            true => (String::new(), self.body.to_vec()),
            false => (String::from_utf8_lossy(&self.body).into_owned(), Vec::new()),
        };
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 };
        let http = HttpRequest {
            id: self.id,
            method: self.method.to_owned(),
            headers: self.headers.into_iter().collect(),
            path: self.path.to_owned(),
            host: self.host,
            scheme: self.scheme.to_owned(),
            size: self.size.map_or(-1, |size| size as i64),
            protocol: self.protocol.to_owned(),
            body,
            raw_body,
            ..HttpRequest::default()
        };
        let peer = |at: SocketAddr, principal: String, certificate: String| Peer {
            address: Some(address_of(at)),
            principal,
            certificate,
            ..Peer::default()
        };
        let namespaces = self.metadata_namespaces.iter().filter_map(|name| {
            let fields = self.metadata.namespace(name)?;
            Some((name.clone(), struct_of(fields)))
        });
        let attributes = AttributeContext {
            source: Some(peer(self.source, self.source_principal, self.source_certificate)),
            destination: Some(peer(self.destination, self.destination_principal, String::new())),
            request: Some(Request { time: Some(time), http: Some(http) }),
            context_extensions: self.context.into_iter().collect(),
            metadata_context: Some(ProtoMetadata { filter_metadata: namespaces.collect(), ..ProtoMetadata::default() }),
            tls_session: self.server_name.map(|name| TlsSession { sni: name.to_owned() }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }.encode_to_vec()
    }
}

fn address_of(at: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn struct_of(fields: &Fields) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| (name.to_string(), value_of(value))).collect() }
}

fn value_of(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(bits) => Kind::NumberValue(f64::from_bits(*bits)),
        Value::Text(text) => Kind::StringValue(text.to_string()),
        Value::List(values) => Kind::ListValue(ListValue { values: values.iter().map(value_of).collect() }),
        Value::Struct(fields) => Kind::StructValue(struct_of(fields)),
    };
    ProtoValue { kind: Some(kind) }
}

impl CheckAnswer {
    /// None: not an answer.
    #[expect(deprecated, reason = "services still send metadata there")]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let CheckResponse { status, http_response, dynamic_metadata } = CheckResponse::decode(bytes).ok()?;
        let is_allowed = status.is_none_or(|status| status.code == 0);
        let mut answer = Self { metadata: dynamic_metadata.map(fields_of), ..Self::default() };
        match http_response {
            Some(HttpResponse::OkResponse(ok)) if is_allowed => {
                if answer.metadata.is_none() {
                    answer.metadata = ok.dynamic_metadata.clone().map(fields_of);
                }
                answer.take_changes(ok);
            }
            Some(HttpResponse::DeniedResponse(denied)) if !is_allowed => answer.refuse(denied),
            _ if is_allowed => {}
            _ => answer.refuse(DeniedHttpResponse::default()),
        }
        Some(answer)
    }

    fn refuse(&mut self, message: DeniedHttpResponse) {
        let DeniedHttpResponse { status, headers, body } = message;
        let code = status.and_then(|status| u16::try_from(status.code).ok()).filter(|code| *code > 0);
        let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FORBIDDEN);
        let headers =
            headers.into_iter().filter_map(|option| self.header(option).map(|(name, value, _)| (name, value)));
        let headers = headers.collect();
        self.refusal = Some(Refusal { status, headers, body: body.into() });
    }

    fn take_changes(&mut self, message: OkHttpResponse) {
        for option in message.headers {
            let Some((name, value, action)) = self.header(option) else { continue };
            match action {
                Action::Append => self.changes.append.push((name, value)),
                Action::Default | Action::Set => self.changes.set.push((name, value)),
                Action::AddIfAbsent => self.changes.add_if_absent.push((name, value)),
            }
        }
        for name in message.headers_to_remove {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => self.changes.remove.push(name),
                // Pseudo headers stay, whoever wants them gone.
                Err(_) => self.has_invalid |= !name.starts_with(':'),
            }
        }
        for option in message.response_headers_to_add {
            let Some((name, value, action)) = self.header(option) else { continue };
            match action {
                Action::Append | Action::Default | Action::AddIfAbsent => self.changes.response_add.push((name, value)),
                Action::Set => self.changes.response_set.push((name, value)),
            }
        }
        let set = message.query_parameters_to_set.into_iter();
        self.changes.query_set = set.map(|QueryParameter { key, value }| (key, value)).collect();
        self.changes.query_remove = message.query_parameters_to_remove;
    }

    fn header(&mut self, option: HeaderValueOption) -> Option<(HeaderName, HeaderValue, Action)> {
        let action = Action::of(&option);
        let header = option.header?;
        let bytes = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        match (HeaderName::from_bytes(header.key.as_bytes()), HeaderValue::from_bytes(&bytes)) {
            (Ok(name), Ok(value)) => Some((name, value, action)),
            _ => {
                self.has_invalid = true;
                None
            }
        }
    }
}

/// What becomes of a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Nothing is said.
    Default,
    Append,
    Set,
    AddIfAbsent,
}

impl Action {
    #[expect(deprecated, reason = "services still send it")]
    fn of(option: &HeaderValueOption) -> Self {
        if let Some(append) = option.append {
            return if append.value { Self::Append } else { Self::Set };
        }
        match HeaderAppendAction::try_from(option.append_action) {
            Ok(HeaderAppendAction::AddIfAbsent) => Self::AddIfAbsent,
            Ok(HeaderAppendAction::OverwriteIfExistsOrAdd | HeaderAppendAction::OverwriteIfExists) => Self::Set,
            Ok(HeaderAppendAction::AppendIfExistsOrAdd) | Err(_) => Self::Default,
        }
    }
}
