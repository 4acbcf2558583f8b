//! `envoy.data.accesslog.v3.AccessLogType`: on what occasion a line is written.

use weft_xds::pb::envoy::data::accesslog::v3::AccessLogType;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogType {
    /// Of a connection as such.
    #[default]
    NotSet,
    TcpConnectionStart,
    TcpUpstreamConnected,
    TcpPeriodic,
    TcpConnectionEnd,
    DownstreamStart,
    DownstreamTunnelSuccessfullyEstablished,
    DownstreamPeriodic,
    DownstreamEnd,
}

impl LogType {
    /// None: nothing is logged on such occasions.
    pub(super) fn from_proto(log_type: i32) -> Option<Self> {
        Some(match AccessLogType::try_from(log_type).ok()? {
            AccessLogType::NotSet => Self::NotSet,
            AccessLogType::TcpConnectionStart => Self::TcpConnectionStart,
            AccessLogType::TcpUpstreamConnected => Self::TcpUpstreamConnected,
            AccessLogType::TcpPeriodic => Self::TcpPeriodic,
            AccessLogType::TcpConnectionEnd => Self::TcpConnectionEnd,
            AccessLogType::DownstreamStart => Self::DownstreamStart,
            AccessLogType::DownstreamTunnelSuccessfullyEstablished => Self::DownstreamTunnelSuccessfullyEstablished,
            AccessLogType::DownstreamPeriodic => Self::DownstreamPeriodic,
            AccessLogType::DownstreamEnd => Self::DownstreamEnd,
            AccessLogType::UpstreamPoolReady
            | AccessLogType::UpstreamPeriodic
            | AccessLogType::UpstreamEnd
            | AccessLogType::UdpTunnelUpstreamConnected
            | AccessLogType::UdpPeriodic
            | AccessLogType::UdpSessionEnd => return None,
        })
    }

    /// `%ACCESS_LOG_TYPE%`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpConnectionStart => "TcpConnectionStart",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamTunnelSuccessfullyEstablished => "DownstreamTunnelSuccessfullyEstablished",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
        }
    }
}
