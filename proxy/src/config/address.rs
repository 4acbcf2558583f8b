//! `envoy.config.core.v3.Address` and its kin, to socket addresses and networks.
