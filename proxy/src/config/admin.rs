//! `envoy.config.bootstrap.v3.Admin`: where the admin server listens, and which of its paths are answered.

use std::net::SocketAddr;

use weft_xds::pb::envoy::config::bootstrap::v3::Admin as ProtoAdmin;

use crate::config::{
    access_log::{AccessLog, AccessLogSink},
    address::socket_addr,
    field::{self, Result, Within as _, element, unsupported},
    matcher::StringMatcher,
    socket_option::SocketOption,
};

#[derive(Debug)]
pub struct AdminServer {
    pub address: SocketAddr,
    pub socket_options: Vec<SocketOption>,
    /// Empty: all of them. With their queries.
    pub allowed_paths: Vec<StringMatcher>,
}

/// Where the log of an admin server goes that is not to be logged.
const NOWHERE: &str = "/dev/null";

impl AdminServer {
    /// None: no address is given, and so there is none.
    #[expect(deprecated, reason = "the older spelling of an access log, which bootstraps still have")]
    pub(crate) fn from_proto(message: ProtoAdmin) -> Result<Option<Self>> {
        let ProtoAdmin {
            access_log,
            access_log_path,
            profile_path: _, // of Envoy's profiler, which no path of this admin server starts
            address,
            socket_options,
            ignore_global_conn_limit: _, // its connections are not counted, and have a limit of their own
            allow_paths,
        } = message;
        if !access_log_path.is_empty() && access_log_path != NOWHERE {
            return Err(unsupported("access_log_path"));
        }
        for (index, message) in access_log.into_iter().enumerate() {
            let AccessLog { sink, .. } = AccessLog::from_proto(message).at("access_log", index)?;
            if sink != AccessLogSink::File(NOWHERE.into()) {
                return Err(unsupported(element("access_log", index)));
            }
        }
        let socket_options = SocketOption::list(socket_options, "socket_options")?;
        let allowed_paths = field::each(allow_paths, "allow_paths", StringMatcher::from_proto)?;
        let address = address.map(socket_addr).transpose().within("address")?;
        Ok(address.map(|address| Self { address, socket_options, allowed_paths }))
    }

    pub fn allows(&self, path_and_query: &str) -> bool {
        self.allowed_paths.is_empty() || self.allowed_paths.iter().any(|allowed| allowed.matches(path_and_query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::message;

    #[test]
    fn paths_are_allowed_whole() {
        let address = "address: {socket_address: {address: 127.0.0.1, port_value: 1}}";
        let admin =
            |fields: &str| AdminServer::from_proto(message(&format!("{{{address}{fields}}}"))).unwrap().unwrap();
        let some = admin(", allow_paths: [{exact: /ready}, {prefix: /stats}]");
        assert!(some.allows("/ready") && some.allows("/stats?usedonly"));
        assert!(!some.allows("/ready?x") && !some.allows("/quitquitquit"));
        assert!(admin("").allows("/anything"));
        assert_eq!(admin(", socket_options: [{level: 1, name: 2, int_value: 3}]").socket_options.len(), 1);
        assert!(AdminServer::from_proto(message("{}")).unwrap().is_none());
    }
}
