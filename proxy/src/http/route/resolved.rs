//! The route of one request, pinned: the table may be replaced meanwhile.

use std::sync::Arc;

use http::{HeaderName, request};

use crate::{
    config::{
        header_mutation::HeaderRules,
        http_filter::{CorsPolicy, RouteFilterConfig},
        metadata::Fields,
        mirror::MirrorPolicy,
        rate_limit::RateLimitEntry,
        route::{
            ClusterSpecifier, ForwardAction, Route, RouteAction, RouteTable, VirtualHost, WeightedCluster,
            WeightedClusters, WeightedDraw, WeightedTarget,
        },
    },
    http::{
        exchange::Exchange,
        host_selection::{self, Ends},
        route::table::{CompiledRoutes, RouteQuery},
    },
    matching::Facts,
    upstream::weighted_cluster,
};

#[derive(Clone)]
pub struct ResolvedRoute {
    routes: Arc<CompiledRoutes>,
    virtual_host: usize,
    route: usize,
    /// Drawn once, where the route has several clusters.
    weighted: Option<usize>,
    /// Found once, where a tree says which cluster.
    matched: Option<Arc<str>>,
}

impl ResolvedRoute {
    /// None: no route matches.
    pub fn resolve(routes: Arc<CompiledRoutes>, head: &request::Parts, exchange: &Exchange) -> Option<Self> {
        let downstream = &exchange.connection.downstream;
        let random = downstream.worker.with_random(|random| random.u64(..));
        let (metadata, filter_state) = (exchange.metadata.borrow(), exchange.filter_state.borrow());
        let facts = Facts {
            request: Some(head),
            metadata: Some(&metadata),
            filter_state: Some(&filter_state),
            tls: downstream.tls.as_deref(),
            ..Facts::of_connection(downstream.facts())
        };
        let query = RouteQuery { head, facts, random };
        let (virtual_host, route) = routes.find(&query)?;
        let mut resolved = Self { routes, virtual_host, route, weighted: None, matched: None };
        if let RouteAction::Forward(action) = &resolved.route().action {
            match &action.cluster {
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) => {}
                ClusterSpecifier::Weighted(weighted) => {
                    let drawn = draw(weighted, action, head, exchange);
                    resolved.weighted = Some(drawn);
                }
                ClusterSpecifier::Matched(tree) => resolved.matched = tree.find(&query.facts).cloned(),
            }
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
                ClusterSpecifier::Weighted(weighted) => weighted.clusters.get(at),
                ClusterSpecifier::Cluster(_) | ClusterSpecifier::Header(_) | ClusterSpecifier::Matched(_) => None,
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
                ClusterSpecifier::Weighted(_) => match &self.weighted()?.cluster {
                    WeightedTarget::Named(name) => Some(name.clone()),
                    WeightedTarget::Header(name) => named_by(head, name),
                },
                ClusterSpecifier::Header(name) => named_by(head, name),
                ClusterSpecifier::Matched(_) => self.matched.clone(),
            },
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => None,
        }
    }

    /// What of a host's metadata is asked for.
    pub fn metadata_match<'a>(&'a self, action: &'a ForwardAction) -> Option<&'a Fields> {
        let of_cluster = self.weighted().and_then(|cluster| cluster.metadata_match.as_deref());
        of_cluster.or(action.metadata_match.as_deref())
    }

    /// Where copies of the request go: the most specific place that names any says.
    pub fn mirrors<'a>(&'a self, action: &'a ForwardAction) -> &'a [MirrorPolicy] {
        let places = [&action.mirrors, &self.virtual_host().mirrors, &self.table().mirrors];
        places.into_iter().find(|policies| !policies.is_empty()).map_or(&[], |policies| policies)
    }

    /// The route's own, and whether the virtual host's count too.
    pub fn rate_limits(&self) -> (&[RateLimitEntry], bool) {
        match &self.route().action {
            RouteAction::Forward(action) => (&action.rate_limits, action.includes_host_rate_limits),
            RouteAction::DirectResponse(_) | RouteAction::Redirect(_) => (&[], false),
        }
    }

    /// How much of the request's body is kept for other tries.
    pub fn buffer_bytes_max(&self, connection_bytes_max: u32) -> usize {
        let limit = self.route().buffer_limit.or(self.virtual_host().buffer_limit);
        limit.map_or(connection_bytes_max as usize, |limit| limit.bytes(connection_bytes_max))
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

/// Which of the clusters: as the request says, where it says something, and by chance otherwise.
fn draw(weighted: &WeightedClusters, action: &ForwardAction, head: &request::Parts, exchange: &Exchange) -> usize {
    let downstream = &exchange.connection.downstream;
    let weights = weighted.clusters.iter().map(|cluster| cluster.weight);
    let number = match &weighted.drawn_by {
        WeightedDraw::Random => None,
        WeightedDraw::Header(name) => head.headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()),
        WeightedDraw::HashPolicy => {
            let ends = Ends { local: downstream.local_address, remote: downstream.remote_address };
            host_selection::hash_of(&action.hash_policy, head, ends, &exchange.filter_state.borrow())
        }
    };
    match number {
        Some(number) => weighted_cluster::of(weights, number),
        None => downstream.worker.with_random(|random| weighted_cluster::choose(weights, random)),
    }
}

fn named_by(head: &request::Parts, name: &HeaderName) -> Option<Arc<str>> {
    head.headers.get(name)?.to_str().ok().map(Into::into)
}

enum Place<'a> {
    Route(&'a Route),
    VirtualHost(&'a VirtualHost),
    Table(&'a RouteTable),
}
