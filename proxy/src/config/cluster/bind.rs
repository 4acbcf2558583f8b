//! `upstream_bind_config` of a cluster or of all of them: where connections come from, at most one address a family, and the
//! options of their sockets.

use std::net::SocketAddr;

use weft_xds::{
    FieldError,
    pb::envoy::config::core::v3::{BindConfig, ExtraSourceAddress, SocketOptionsOverride},
};

use crate::config::{
    address::source_addr,
    field::{self, Result, Within as _, bool_or, refuse, required},
    socket_option::SocketOption,
};

/// By the family of the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamBind {
    pub v4: SourceSocket,
    pub v6: SourceSocket,
}

/// None of an address: the kernel's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSocket {
    pub address: Option<SocketAddr>,
    /// The address need not be this machine's (ip(7), IP_FREEBIND).
    pub freebind: bool,
    pub options: Vec<SocketOption>,
}

impl UpstreamBind {
    #[expect(deprecated, reason = "the older spelling of further addresses, which control planes still send")]
    pub(crate) fn from_proto(message: BindConfig) -> Result<Self> {
        let BindConfig {
            source_address,
            freebind,
            socket_options,
            extra_source_addresses,
            additional_source_addresses,
            local_address_selector,
            validate_network_namespaces,
        } = message;
        refuse!(local_address_selector, validate_network_namespaces);
        if !extra_source_addresses.is_empty() && !additional_source_addresses.is_empty() {
            return Err(FieldError::new("additional_source_addresses", "extra_source_addresses is there too"));
        }
        let base = SourceSocket {
            address: source_address.map(source_addr).transpose().within("source_address")?,
            freebind: bool_or(freebind, false),
            options: SocketOption::list(socket_options, "socket_options")?,
        };
        let extra = field::each(extra_source_addresses, "extra_source_addresses", |message| extra(message, &base))?;
        let additional = field::each(additional_source_addresses, "additional_source_addresses", |message| {
            source_addr(message).map(|address| SourceSocket { address: Some(address), ..base.clone() })
        })?;
        if base.address.is_none() && !(extra.is_empty() && additional.is_empty()) {
            return Err(FieldError::new("source_address", "value is required before further addresses"));
        }
        let unbound = SourceSocket { address: None, ..base.clone() };
        let mut bind = Self { v4: unbound.clone(), v6: unbound };
        bind.add(base).within("source_address")?;
        let field = if extra.is_empty() { "additional_source_addresses" } else { "extra_source_addresses" };
        for (index, source) in extra.into_iter().chain(additional).enumerate() {
            bind.add(source).at(field, index)?;
        }
        Ok(bind)
    }

    pub fn towards(&self, destination: SocketAddr) -> &SourceSocket {
        if destination.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn add(&mut self, source: SourceSocket) -> Result<()> {
        let Some(address) = source.address else { return Ok(()) };
        let slot = if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match std::mem::replace(slot, source).address {
            None => Ok(()),
            Some(_) => Err(FieldError::new("", "a second source address of the same IP version")),
        }
    }
}

/// An address whose socket may have options of its own instead of the others'.
fn extra(message: ExtraSourceAddress, base: &SourceSocket) -> Result<SourceSocket> {
    let ExtraSourceAddress { address, socket_options } = message;
    let address = source_addr(required(address, "address")?).within("address")?;
    let options = match socket_options {
        None => base.options.clone(),
        Some(SocketOptionsOverride { socket_options }) => {
            SocketOption::list(socket_options, "socket_options").within("socket_options")?
        }
    };
    Ok(SourceSocket { address: Some(address), freebind: base.freebind, options })
}
