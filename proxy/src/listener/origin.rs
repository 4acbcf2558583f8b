//! What upstream connections are told of a downstream: its address, and the PROXY protocol's header with the extensions that
//! may go on.

use std::rc::Rc;

use crate::{
    config::{
        cluster::ClusterConfig,
        proxy_protocol::{Tlv, UpstreamProxyProtocol},
        tcp_proxy::TlvMerge,
    },
    listener::{
        connection::Downstream,
        inspect::proxy_protocol::{self, Addresses, Version},
    },
    upstream::{
        origin::{Origin, Source},
        pool::HostPool,
    },
};

/// Extensions that a filter adds.
#[derive(Clone, Copy)]
pub struct AddedTlvs<'a> {
    pub tlvs: &'a [Tlv],
    pub merge: TlvMerge,
}

impl Downstream {
    /// For connections of this cluster; `added`: of the filter that wants one.
    pub fn origin(&self, cluster: &ClusterConfig, added: Option<AddedTlvs<'_>>) -> Origin {
        let source = |mark| Source { ip: self.remote_address.ip(), mark };
        Origin {
            source: self.learned.original_src.map(|original_src| source(original_src.mark)),
            preamble: match &cluster.proxy_protocol {
                Some(config) => self.proxy_header(config, added).into(),
                None => Box::default(),
            },
        }
    }

    /// The pool to take connections for requests from: the shared one, unless its connections would have to show whom
    /// they are for, or the cluster asks for that.
    pub fn pool(&self, shared: Rc<HostPool>) -> Rc<HostPool> {
        let config = &shared.cluster.config;
        let is_shared = self.learned.original_src.is_none() && config.proxy_protocol.is_none();
        if is_shared && !config.pool_per_downstream {
            return shared;
        }
        let cluster = shared.cluster.clone();
        self.own_pools.beside(shared, || self.origin(&cluster.config, None))
    }

    fn proxy_header(&self, config: &UpstreamProxyProtocol, added: Option<AddedTlvs<'_>>) -> Vec<u8> {
        let received = self.learned.proxy_header.as_deref();
        let own = Addresses { source: self.remote_address, destination: self.local_address };
        let addresses = received.map_or(own, |header| header.addresses);
        let mut header = Vec::new();
        match config.version {
            Version::V1 => proxy_protocol::write_v1(Some(addresses), &mut header),
            Version::V2 => {
                let received = received.map(|header| &header.tlvs[..]);
                proxy_protocol::write_v2(Some(addresses), tlvs(config, received, added), &mut header);
            }
        }
        header
    }
}

type Bytes<'a> = (u8, &'a [u8]);
type Received = (u8, Box<[u8]>);

/// In Envoy's order: what the cluster adds, then of what came and what the filter adds that which may pass and is not there
/// already.
fn tlvs<'a>(
    config: &'a UpstreamProxyProtocol,
    received: Option<&'a [Received]>,
    added: Option<AddedTlvs<'a>>,
) -> Vec<Bytes<'a>> {
    let configured =
        |tlvs: &'a [Tlv]| tlvs.iter().map(|tlv| (tlv.tlv_type, &tlv.value[..])).collect::<Vec<Bytes<'a>>>();
    let has_type = |tlvs: &[Bytes<'a>], tlv_type: u8| tlvs.iter().any(|(known, _)| *known == tlv_type);
    let of_filter = added.map(|added| configured(added.tlvs)).unwrap_or_default();
    let came: Option<Vec<Bytes<'a>>> =
        received.map(|tlvs| tlvs.iter().map(|(kind, value)| (*kind, &**value)).collect());
    let passing = match (came, added.map(|added| added.merge)) {
        (None, _) => of_filter,
        (Some(came), None | Some(TlvMerge::AddIfAbsent)) => came,
        (Some(mut came), Some(TlvMerge::Append)) => {
            came.extend(of_filter);
            came
        }
        (Some(came), Some(TlvMerge::OverwriteByType)) => {
            let kept = came.into_iter().filter(|(kind, _)| !has_type(&of_filter, *kind)).collect::<Vec<_>>();
            of_filter.into_iter().chain(kept).collect()
        }
    };
    let mut all = configured(&config.added_tlvs);
    let of_cluster = all.len();
    for (kind, value) in passing {
        if config.pass_through_tlvs.includes(kind) && !has_type(&all[..of_cluster], kind) {
            all.push((kind, value));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::proxy_protocol::PassThroughTlvs;

    fn tlv(tlv_type: u8, value: &str) -> Tlv {
        Tlv { tlv_type, value: value.into() }
    }

    /// What Envoy sends.
    #[test]
    fn extensions_are_merged_in_envoys_order() {
        let added = [tlv(4, "XX"), tlv(9, "YY")];
        let received: Vec<(u8, Box<[u8]>)> =
            [(4, "hi"), (5, "z"), (4, "q")].map(|(kind, value)| (kind, value.as_bytes().into())).into();
        let merged = |pass_through_tlvs, cluster: &[Tlv], received: Option<&[_]>, merge| {
            let version = Version::V2;
            let config = UpstreamProxyProtocol { version, pass_through_tlvs, added_tlvs: cluster.to_vec() };
            let added = Some(AddedTlvs { tlvs: &added, merge });
            let text = |(kind, value): &Bytes<'_>| format!("{kind}={}", String::from_utf8_lossy(value));
            tlvs(&config, received, added).iter().map(text).collect::<Vec<_>>().join(" ")
        };
        let all = PassThroughTlvs::All;
        let came = Some(&received[..]);
        assert_eq!(merged(all.clone(), &[], came, TlvMerge::AddIfAbsent), "4=hi 5=z 4=q");
        assert_eq!(merged(all.clone(), &[], Some(&[]), TlvMerge::AddIfAbsent), "", "a header came, with none");
        assert_eq!(merged(all.clone(), &[], None, TlvMerge::AddIfAbsent), "4=XX 9=YY");
        assert_eq!(merged(all.clone(), &[], came, TlvMerge::OverwriteByType), "4=XX 9=YY 5=z");
        assert_eq!(merged(all.clone(), &[], came, TlvMerge::Append), "4=hi 5=z 4=q 4=XX 9=YY");
        assert_eq!(merged(all, &[tlv(4, "A"), tlv(7, "B")], came, TlvMerge::AddIfAbsent), "4=A 7=B 5=z");
        assert_eq!(merged(PassThroughTlvs::None, &[tlv(7, "B")], came, TlvMerge::Append), "7=B");
        assert_eq!(merged(PassThroughTlvs::Some(vec![5]), &[], came, TlvMerge::Append), "5=z");
    }
}
