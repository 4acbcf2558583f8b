//! The route of one request, pinned: the table may be replaced meanwhile.

use std::sync::Arc;

use http::request;

use crate::{
    config::{
        header_mutation::HeaderRules,
        http_filter::{CorsPolicy, RouteFilterConfig},
        route::{ClusterSpecifier, Route, RouteAction, RouteTable, VirtualHost, WeightedCluster},
    },
    http::{request_headers::authority, route::table::CompiledRoutes},
    listener::connection::Downstream,
    upstream::weighted_cluster,
};

#[derive(Clone)]
pub struct ResolvedRoute {
    routes: Arc<CompiledRoutes>,
    virtual_host: usize,
    route: usize,
    /// Drawn once, where the route has several clusters.
    weighted: Option<usize>,
}

impl ResolvedRoute {
    /// None: no route matches.
    pub fn resolve(routes: Arc<CompiledRoutes>, head: &request::Parts, downstream: &Downstream) -> Option<Self> {
        let random = downstream.worker.with_random(|random| random.u64(..));
        let (virtual_host, route) = routes.find(head, authority(head), random)?;
        let mut resolved = Self { routes, virtual_host, route, weighted: None };
        if let RouteAction::Forward(action) = &resolved.route().action
            && let ClusterSpecifier::Weighted(clusters) = &action.cluster
        {
            let weights = clusters.iter().map(|cluster| cluster.weight);
            resolved.weighted = Some(downstream.worker.with_random(|random| weighted_cluster::choose(weights, random)));
        }
        Some(resolved)
    }

    pub fn table(&self) -> &RouteTable {
        self.routes.table()
    }

    pub fn virtual_host(&self) -> &VirtualHost {
        &self.table().virtual_hosts[self.virtual_host]
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.virtual_host().routes[self.route]
    }

    pub fn weighted(&self) -> Option<&WeightedCluster> {
        let at = self.weighted?;
        match &self.route().action {
            RouteAction::Forward(action) => match &action.cluster {
                ClusterSpecifier::Weighted(clusters) => clusters.get(at),
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => None,
            },
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => None,
        }
    }

    pub fn is_forwarded(&self) -> bool {
        matches!(self.route().action, RouteAction::Forward(_))
    }

    /// None: it is not forwarded, or the request does not name one.
    pub fn cluster_name(&self, head: &request::Parts) -> Option<Arc<str>> {
        match &self.route().action {
            RouteAction::Forward(action) => match &action.cluster {
                ClusterSpecifier::Cluster(name) => Some(name.clone()),
                ClusterSpecifier::Weighted(_) => self.weighted().map(|cluster| cluster.name.clone()),
                ClusterSpecifier::Header(name) => head.headers.get(name)?.to_str().ok().map(Into::into),
            },
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => None,
        }
    }

    /// What is said about a filter, the most specific place first.
    pub fn filter_configs(&self, name: &str) -> impl Iterator<Item = &RouteFilterConfig> {
        let places = [
            self.weighted().map(|cluster| &cluster.filters),
            Some(&self.route().filters),
            Some(&self.virtual_host().filters),
            Some(&self.table().filters),
        ];
        places.into_iter().flatten().filter_map(move |filters| filters.of(name))
    }

    /// Those of the fields that routes and virtual hosts have themselves.
    pub fn cors_policies(&self) -> impl Iterator<Item = &CorsPolicy> {
        let action = match &self.route().action {
            RouteAction::Forward(action) => action.cors.as_ref(),
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => None,
        };
        action.into_iter().chain(&self.virtual_host().cors)
    }

    /// In the order in which they apply: what is later can overwrite.
    pub fn request_rules(&self) -> impl Iterator<Item = &HeaderRules> {
        let weighted = self.weighted().map(|cluster| &cluster.request_headers);
        weighted.into_iter().chain(self.ordered(|place| match place {
            Place::Route(route) => &route.request_headers,
            Place::VirtualHost(host) => &host.request_headers,
            Place::Table(table) => &table.request_headers,
        }))
    }

    pub fn response_rules(&self) -> impl Iterator<Item = &HeaderRules> {
        let weighted = self.weighted().map(|cluster| &cluster.response_headers);
        weighted.into_iter().chain(self.ordered(|place| match place {
            Place::Route(route) => &route.response_headers,
            Place::VirtualHost(host) => &host.response_headers,
            Place::Table(table) => &table.response_headers,
        }))
    }

    fn ordered<'a>(&'a self, rules: impl Fn(Place<'a>) -> &'a HeaderRules) -> [&'a HeaderRules; 3] {
        let table = self.table();
        let mut ordered =
            [Place::Route(self.route()), Place::VirtualHost(self.virtual_host()), Place::Table(table)].map(rules);
        if table.most_specific_header_mutations_wins {
            ordered.reverse();
        }
        ordered
    }

    /// Whether a response is written with what the request said.
    pub fn reads_request(&self) -> bool {
        self.table().has_response_formats && self.response_rules().any(HeaderRules::reads_request)
    }
}

enum Place<'a> {
    Route(&'a Route),
    VirtualHost(&'a VirtualHost),
    Table(&'a RouteTable),
}
