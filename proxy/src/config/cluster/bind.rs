//! `upstream_bind_config` of a cluster: the addresses that connections to it come from, at most one a family.

use std::net::SocketAddr;

use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{BindConfig, ExtraSourceAddress},
};

use crate::config::{
    address::source_addr,
    field::{self, Result, Within as _, refuse, required},
};

#[derive(Debug, Default, PartialEq)]
pub(super) struct BindAddresses {
    pub(super) v4: Option<SocketAddr>,
    pub(super) v6: Option<SocketAddr>,
}

impl BindAddresses {
    #[expect(deprecated, reason = "the older spelling of further addresses, which control planes still send")]
    pub(super) fn from_proto(message: BindConfig) -> Result<Self> {
        let BindConfig {
            source_address,
            freebind,
            socket_options,
            extra_source_addresses,
            additional_source_addresses,
            local_address_selector,
            validate_network_namespaces,
        } = message;
        refuse!(socket_options, local_address_selector, validate_network_namespaces);
        field::only(freebind, false, "freebind")?;
        if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
            return Err(FieldError::new("additional_source_addresses", "extra_source_addresses is there too"));
        }
        let first = source_address.map(source_addr).transpose().within("source_address")?;
        let extra = field::each(extra_source_addresses, "extra_source_addresses", extra_source_address)?;
        let additional = field::each(additional_source_addresses, "additional_source_addresses", source_addr)?;
        let Some(first) = first else {
            return match extra.is_empty() && additional.is_empty() {
                true => Ok(Self::default()),
                false => Err(FieldError::new("source_address", "value is required before further addresses")),
            };
        };
        let mut addresses = Self::default();
        let field = if extra.is_empty() { "additional_source_addresses" } else { "extra_source_addresses" };
        addresses.add(first).within("source_address")?;
        for (index, address) in extra.into_iter().chain(additional).enumerate() {
            addresses.add(address).at(field, index)?;
        }
        Ok(addresses)
    }

    fn add(&mut self, address: SocketAddr) -> Result<()> {
        let slot = if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match slot.replace(address) {
            None => Ok(()),
            Some(_) => Err(FieldError::new("", "a second source address of the same IP version")),
        }
    }
}

fn extra_source_address(message: ExtraSourceAddress) -> Result<SocketAddr> {
    let ExtraSourceAddress { address, socket_options } = message;
    refuse!(socket_options);
    source_addr(required(address, "address")?).within("address")
}
