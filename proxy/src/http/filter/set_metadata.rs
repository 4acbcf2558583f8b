//! `envoy.filters.http.set_metadata` and `envoy.filters.http.set_filter_state`: what is known of every request that comes here.

use std::rc::Rc;

use super::Passing;
use crate::{
    config::http_filter::{SetFilterState, SetMetadata},
    filter_state::FilterObject,
    http::exchange::Exchange,
    stats::HttpStat,
    substitution::{self, Context, Subject},
};

pub(super) fn metadata(config: &SetMetadata, exchange: &Rc<Exchange>) {
    let mut metadata = exchange.metadata.borrow_mut();
    for value in &config.0 {
        if value.merges || metadata.namespace(&value.namespace).is_none() {
            metadata.merge(&value.namespace, value.fields.clone());
        } else {
            exchange.count(HttpStat::SetMetadataOverwriteDenied);
        }
    }
}

pub(super) fn filter_state(config: &SetFilterState, passing: &Passing<'_>) {
    let exchange = passing.exchange;
    for value in &config.values {
        let mut text = Vec::new();
        let context = Context { request: Some(passing.head), ..Context::of_connection(Subject::Http(exchange)) };
        let access_logs = &exchange.connection.downstream.worker.access_logs;
        access_logs.with_clock(|clock| substitution::write(&value.format, &context, clock, &mut text));
        if text.is_empty() && value.skips_empty {
            continue;
        }
        let text = String::from_utf8_lossy(&text).as_ref().into();
        let object = FilterObject { text, is_read_only: value.is_read_only };
        if exchange.filter_state.borrow_mut().set(value.key.clone(), object).is_err() {
            tracing::debug!(key = %value.key, "a read-only object stays as it is");
        }
    }
    if config.clears_route {
        exchange.clear_route();
    }
}
