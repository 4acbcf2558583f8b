//! `upstream_connection_options` of a cluster: TCP keepalive, and which of a host's addresses is tried first.

use std::time::Duration;

use weft_xds::pb::envoy::config::{
    cluster::v3::{
        UpstreamConnectionOptions,
        upstream_connection_options::{FirstAddressFamilyVersion, HappyEyeballsConfig},
    },
    core::v3::TcpKeepalive,
};

use crate::config::field::{self, Result, Within as _, refuse, unsupported};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    pub tcp_keepalive: Option<Keepalive>,
    pub first_addresses: FirstAddresses,
}

/// What is not there is the kernel's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAddresses {
    pub family: FirstFamily,
    /// So many of the first family before the first of the other.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFamily {
    OfFirstAddress,
    V4,
    V6,
}

impl Default for FirstAddresses {
    fn default() -> Self {
        Self { family: FirstFamily::OfFirstAddress, count: 1 }
    }
}

impl ConnectionOptions {
    pub(super) fn from_proto(message: UpstreamConnectionOptions) -> Result<Self> {
        let UpstreamConnectionOptions {
            tcp_keepalive,
            set_local_interface_name_on_upstream_connections,
            happy_eyeballs_config,
        } = message;
        refuse!(set_local_interface_name_on_upstream_connections);
        Ok(Self {
            tcp_keepalive: tcp_keepalive.and_then(Keepalive::from_proto),
            first_addresses: match happy_eyeballs_config {
                None => FirstAddresses::default(),
                Some(message) => FirstAddresses::from_proto(message).within("happy_eyeballs_config")?,
            },
        })
    }
}

impl Keepalive {
    /// None: a field of 0 switches it off, as in Envoy.
    fn from_proto(message: TcpKeepalive) -> Option<Self> {
        let TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = message;
        let [probes, time, interval] =
            [keepalive_probes, keepalive_time, keepalive_interval].map(|field| field.map(|field| field.value));
        if [probes, time, interval].contains(&Some(0)) {
            return None;
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Some(Self { probes, time: time.map(seconds), interval: interval.map(seconds) })
    }
}

impl From<&Keepalive> for socket2::TcpKeepalive {
    fn from(keepalive: &Keepalive) -> Self {
        let mut options = socket2::TcpKeepalive::new();
        if let Some(probes) = keepalive.probes {
            options = options.with_retries(probes);
        }
        if let Some(time) = keepalive.time {
            options = options.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            options = options.with_interval(interval);
        }
        options
    }
}

impl FirstAddresses {
    fn from_proto(message: HappyEyeballsConfig) -> Result<Self> {
        let HappyEyeballsConfig { first_address_family_version, first_address_family_count } = message;
        let family = match field::enumeration(first_address_family_version, "first_address_family_version")? {
            FirstAddressFamilyVersion::Default => FirstFamily::OfFirstAddress,
            FirstAddressFamilyVersion::V4 => FirstFamily::V4,
            FirstAddressFamilyVersion::V6 => FirstFamily::V6,
            FirstAddressFamilyVersion::Pipe | FirstAddressFamilyVersion::Internal => {
                return Err(unsupported("first_address_family_version"));
            }
        };
        Ok(Self { family, count: field::u32_or(first_address_family_count, 1).max(1) })
    }
}
