//! `envoy.config.core.v3.SocketOption` and `TcpKeepalive`: what is set on a socket beyond what every socket gets.

use std::time::Duration;

use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{
        SocketOption as ProtoSocketOption, TcpKeepalive as ProtoTcpKeepalive,
        socket_option::{SocketIpVersion, SocketState as ProtoSocketState, SocketType, Value},
    },
};

use crate::config::field::{self, Result, required};

/// One `setsockopt(2)`, by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketOption {
    pub level: i32,
    pub name: i32,
    /// As the kernel takes it: an int's bytes, or a buffer.
    pub value: Box<[u8]>,
    pub state: SocketState,
    pub ip_version: IpVersion,
}

/// When in a listening socket's life an option is set; a connecting socket knows only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// Before bind(2).
    Prebind,
    /// After bind(2), before listen(2).
    Bound,
    /// After listen(2).
    Listening,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    Any,
    V4,
    V6,
}

/// None of a field leaves the kernel's own value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

impl SocketOption {
    /// None: it is for datagram sockets, which are not opened here.
    pub(crate) fn from_proto(message: ProtoSocketOption) -> Result<Option<Self>> {
        let ProtoSocketOption { description: _, level, name, state, r#type, ip_version, value } = message;
        let number = |value: i64, path: &str| {
            i32::try_from(value).map_err(|_| FieldError::new(path, format!("{value} is not an int of the kernel's")))
        };
        let option = Self {
            level: number(level, "level")?,
            name: number(name, "name")?,
            value: match required(value, "value")? {
                Value::IntValue(value) => number(value, "int_value")?.to_ne_bytes().into(),
                Value::BufValue(bytes) => bytes.into(),
            },
            state: match field::enumeration(state, "state")? {
                ProtoSocketState::StatePrebind => SocketState::Prebind,
                ProtoSocketState::StateBound => SocketState::Bound,
                ProtoSocketState::StateListening => SocketState::Listening,
            },
            ip_version: match field::enumeration(ip_version, "ip_version")? {
                SocketIpVersion::Unspecified => IpVersion::Any,
                SocketIpVersion::Ipv4 => IpVersion::V4,
                SocketIpVersion::Ipv6 => IpVersion::V6,
            },
        };
        // The stream kind goes before the datagram kind where both are named; none stands for both.
        let is_for_streams =
            r#type.is_none_or(|SocketType { stream, datagram }| stream.is_some() || datagram.is_none());
        Ok(is_for_streams.then_some(option))
    }

    pub(crate) fn list(messages: Vec<ProtoSocketOption>, path: &str) -> Result<Vec<Self>> {
        Ok(field::each(messages, path, Self::from_proto)?.into_iter().flatten().collect())
    }

    pub fn applies_to(&self, is_v4: bool) -> bool {
        match self.ip_version {
            IpVersion::Any => true,
            IpVersion::V4 => is_v4,
            IpVersion::V6 => !is_v4,
        }
    }
}

impl TcpKeepalive {
    /// A field of 0 switches keepalive off as a whole: `Ok(None)`.
    pub(crate) fn from_proto(message: ProtoTcpKeepalive) -> Option<Self> {
        let ProtoTcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = message;
        let number = |field: Option<weft_xds::pb::google::protobuf::UInt32Value>| field.map(|wrapper| wrapper.value);
        let [probes, time, interval] = [keepalive_probes, keepalive_time, keepalive_interval].map(number);
        if [probes, time, interval].contains(&Some(0)) {
            return None;
        }
        let seconds = |value: Option<u32>| value.map(|seconds| Duration::from_secs(seconds.into()));
        Some(Self { probes, time: seconds(time), interval: seconds(interval) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{message, refusal};

    fn option(yaml: &str) -> Result<Option<SocketOption>> {
        SocketOption::from_proto(weft_xds::json::from_yaml(yaml).unwrap())
    }

    #[test]
    fn options_are_read() {
        let read = option("{level: 6, name: 23, int_value: 5, state: STATE_LISTENING, type: {stream: {}}}").unwrap();
        let expected = SocketOption {
            level: 6,
            name: 23,
            value: 5_i32.to_ne_bytes().into(),
            state: SocketState::Listening,
            ip_version: IpVersion::Any,
        };
        assert_eq!(read, Some(expected));
        let read =
            option("{level: 1, name: 25, buf_value: bG8=, ip_version: SOCKET_IP_VERSION_IPV6}").unwrap().unwrap();
        assert_eq!((&*read.value, read.state), (&b"lo"[..], SocketState::Prebind));
        assert!(read.applies_to(false) && !read.applies_to(true));
        assert_eq!(option("{level: 1, name: 25, int_value: 1, type: {datagram: {}}}").unwrap(), None);
    }

    #[test]
    fn what_the_kernel_cannot_take_is_refused() {
        assert_eq!(
            refusal(option("{level: 1, name: 1, int_value: 4294967296}")),
            "int_value: 4294967296 is not an int of the kernel's"
        );
        assert_eq!(refusal(option("{level: 1, name: 1}")), "value: value is required");
    }

    #[test]
    fn a_zero_switches_keepalive_off() {
        let read = |yaml: &str| TcpKeepalive::from_proto(message(yaml));
        assert_eq!(read("{}"), Some(TcpKeepalive::default()));
        let some = TcpKeepalive { time: Some(Duration::from_secs(7)), ..TcpKeepalive::default() };
        assert_eq!(read("keepalive_time: 7"), Some(some));
        assert_eq!(read("{keepalive_time: 7, keepalive_probes: 0}"), None);
    }
}
