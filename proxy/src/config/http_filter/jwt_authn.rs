//! `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication`: which requests have to carry tokens, whose, and what is
//! made of what they say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::HeaderName;
use weft_xds::{
    FieldError,
    pb::envoy::{
        config::core::v3::{BackoffStrategy, HttpUri, RetryPolicy, http_uri::HttpUpstreamType},
        extensions::filters::http::jwt_authn::v3::{
            FilterStateRule, JwksAsyncFetch, JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider,
            JwtRequirement, JwtRequirementAndList, JwtRequirementOrList, PerRouteConfig, ProviderWithAudiences,
            RemoteJwks, RequirementRule, jwt_provider, jwt_provider::JwksSourceSpecifier,
            jwt_requirement::RequiresType, per_route_config::RequirementSpecifier, requirement_rule::RequirementType,
        },
    },
};

use crate::{
    config::{
        data_source,
        field::{self, Result, Within as _, refuse, required, unsupported},
        matcher::StringMatcher,
        route::RouteMatch,
    },
    jwt::KeySet,
};

#[derive(Debug)]
pub struct JwtAuthn {
    /// By their names.
    pub providers: Vec<Provider>,
    /// The first that matches counts. None: nothing is required there.
    pub rules: Vec<(RouteMatch, Option<Requirement>)>,
    /// Where no rule matches: by the text under this key.
    pub filter_state: Option<(String, HashMap<String, Requirement>)>,
    /// For routes, by their names.
    pub named: BTreeMap<String, Requirement>,
    pub bypass_cors_preflight: bool,
    pub strip_failure_response: bool,
    pub stat_prefix: Arc<str>,
    /// Only this filter writes them.
    pub own_headers: Vec<HeaderName>,
}

/// What a route says.
#[derive(Debug)]
pub enum JwtOverride {
    Disabled,
    /// One of `named`, if the filter has it.
    Named(String),
}

#[derive(Debug)]
pub enum Requirement {
    Provider {
        provider: usize,
        /// None: the provider's own.
        audiences: Option<Vec<String>>,
    },
    Any(Vec<Requirement>),
    All(Vec<Requirement>),
    /// Tokens of these providers are looked at where there are some.
    Optional {
        providers: Vec<usize>,
        may_fail: bool,
    },
}

#[derive(Debug)]
pub struct Provider {
    /// Empty: any.
    pub issuer: String,
    /// Empty: any.
    pub audiences: Vec<String>,
    pub subjects: Option<StringMatcher>,
    pub requires_expiration: bool,
    pub lifetime_max: Option<Duration>,
    pub keys: Keys,
    pub places: Places,
    /// The token stays in the request.
    pub forward: bool,
    pub payload_header: Option<HeaderName>,
    pub pads_payload: bool,
    pub claims_to_headers: Vec<ClaimToHeader>,
    pub payload_in_metadata: Option<String>,
    /// Claims whose words become lists.
    pub normalized_claims: Option<Vec<String>>,
    pub header_in_metadata: Option<String>,
    pub failure_in_metadata: Option<String>,
    pub clock_skew: Duration,
}

#[derive(Debug)]
pub enum Keys {
    Local(KeySet),
    Remote(RemoteKeys),
}

/// Fetched when they are first needed, and again when they are old. The last good ones count until there are newer ones:
/// when their source is away they are what was known of it, and nothing else takes their place.
#[derive(Debug)]
pub struct RemoteKeys {
    pub cluster: Arc<str>,
    pub uri: http::Uri,
    pub timeout: Duration,
    pub cache_duration: Duration,
    pub retries: u32,
    pub retry_interval: Duration,
    pub current: ArcSwapOption<FetchedKeys>,
}

#[derive(Debug)]
pub struct FetchedKeys {
    pub keys: KeySet,
    pub fetched_at: Instant,
}

/// Where tokens stand.
#[derive(Debug)]
pub struct Places {
    /// With what stands before the token.
    pub headers: Vec<(HeaderName, String)>,
    pub parameters: Vec<String>,
    pub cookies: Vec<String>,
}

#[derive(Debug)]
pub struct ClaimToHeader {
    pub header: HeaderName,
    pub path: Vec<String>,
}

const CLOCK_SKEW_S: u32 = 60;
const CACHE_DURATION: Duration = Duration::from_secs(600);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Deeper than any requirement is.
const DEPTH_MAX: u32 = 16;

impl JwtAuthn {
    pub(super) fn from_proto(message: JwtAuthentication) -> Result<Self> {
        let JwtAuthentication {
            providers,
            rules,
            filter_state_rules,
            bypass_cors_preflight,
            requirement_map,
            strip_failure_response,
            stat_prefix,
        } = message;
        let providers: BTreeMap<String, JwtProvider> = providers.into_iter().collect();
        let names: Vec<String> = providers.keys().cloned().collect();
        let mut read = Vec::with_capacity(names.len());
        for (name, message) in providers {
            read.push(Provider::from_proto(message).within(&format!("providers[{name}]"))?);
        }
        let mut named = BTreeMap::new();
        for (name, message) in requirement_map {
            let path = format!("requirement_map[{name}]");
            if let Some(requirement) = Requirement::from_proto(message, &names, 0).within(&path)? {
                named.insert(name, requirement);
            }
        }
        let mut by_rule = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            by_rule.push(rule_from_proto(rule, &names, &mut named).at("rules", index)?);
        }
        let filter_state = filter_state_rules.map(|message| {
            let FilterStateRule { name, requires } = message;
            let mut by_value = HashMap::new();
            for (value, message) in requires {
                let path = format!("requires[{value}]");
                if let Some(requirement) = Requirement::from_proto(message, &names, 0).within(&path)? {
                    by_value.insert(value, requirement);
                }
            }
            Ok((name, by_value))
        });
        let own_headers = read.iter().flat_map(|provider: &Provider| {
            let claims = provider.claims_to_headers.iter().map(|claim| claim.header.clone());
            provider.payload_header.clone().into_iter().chain(claims)
        });
        Ok(Self {
            own_headers: own_headers.collect(),
            providers: read,
            rules: by_rule,
            filter_state: filter_state.transpose().within("filter_state_rules")?,
            named,
            bypass_cors_preflight,
            strip_failure_response,
            stat_prefix: stat_prefix.into(),
        })
    }
}

impl JwtOverride {
    pub(super) fn from_proto(message: PerRouteConfig) -> Result<Self> {
        let PerRouteConfig { requirement_specifier } = message;
        Ok(match required(requirement_specifier, "requirement_specifier")? {
            RequirementSpecifier::Disabled(_) => Self::Disabled,
            RequirementSpecifier::RequirementName(name) => Self::Named(name),
        })
    }
}

type Rule = (RouteMatch, Option<Requirement>);

fn rule_from_proto(
    message: RequirementRule,
    names: &[String],
    named: &mut BTreeMap<String, Requirement>,
) -> Result<Rule> {
    let RequirementRule { r#match, requirement_type } = message;
    let route_match = RouteMatch::from_proto(required(r#match, "match")?).within("match")?;
    let requirement = match requirement_type {
        None => None,
        Some(RequirementType::Requires(message)) => Requirement::from_proto(message, names, 0).within("requires")?,
        Some(RequirementType::RequirementName(name)) => {
            let known = named.get(&name).ok_or_else(|| {
                FieldError::new(
                    "requirement_name",
                    format!("Wrong requirement_name: {name}. It should be one of the requirement_map"),
                )
            })?;
            Some(known.duplicate())
        }
    };
    Ok((route_match, requirement))
}

impl Requirement {
    /// None: nothing is required.
    fn from_proto(message: JwtRequirement, names: &[String], depth: u32) -> Result<Option<Self>> {
        if depth > DEPTH_MAX {
            return Err(FieldError::new("", format!("nested more than {DEPTH_MAX} deep")));
        }
        let JwtRequirement { requires_type } = message;
        let Some(requires_type) = requires_type else { return Ok(None) };
        Ok(Some(match requires_type {
            RequiresType::ProviderName(name) => {
                Self::Provider { provider: place(&name, names).within("provider_name")?, audiences: None }
            }
            RequiresType::ProviderAndAudiences(ProviderWithAudiences { provider_name, audiences }) => Self::Provider {
                provider: place(&provider_name, names).within("provider_and_audiences.provider_name")?,
                audiences: Some(audiences).filter(|audiences| !audiences.is_empty()),
            },
            RequiresType::RequiresAny(JwtRequirementOrList { requirements }) => {
                let any = Self::list(requirements, names, depth).within("requires_any")?;
                Self::Any(any_with_siblings(any, names.len()))
            }
            RequiresType::RequiresAll(JwtRequirementAndList { requirements }) => {
                Self::All(Self::list(requirements, names, depth).within("requires_all")?)
            }
            RequiresType::AllowMissingOrFailed(_) => {
                Self::Optional { providers: (0..names.len()).collect(), may_fail: true }
            }
            RequiresType::AllowMissing(_) => Self::Optional { providers: (0..names.len()).collect(), may_fail: false },
            RequiresType::ExtractOnlyWithoutValidation(_) => {
                return Err(unsupported("extract_only_without_validation"));
            }
        }))
    }

    fn list(requirements: Vec<JwtRequirement>, names: &[String], depth: u32) -> Result<Vec<Self>> {
        let read = field::each(requirements, "requirements", |message| Self::from_proto(message, names, depth + 1))?;
        // One that requires nothing is always met, as `allow_missing_or_failed` without a provider is.
        let or_nothing =
            |requirement: Option<Self>| requirement.unwrap_or(Self::Optional { providers: Vec::new(), may_fail: true });
        Ok(read.into_iter().map(or_nothing).collect())
    }

    fn duplicate(&self) -> Self {
        match self {
            Self::Provider { provider, audiences } => {
                Self::Provider { provider: *provider, audiences: audiences.clone() }
            }
            Self::Any(list) => Self::Any(list.iter().map(Self::duplicate).collect()),
            Self::All(list) => Self::All(list.iter().map(Self::duplicate).collect()),
            Self::Optional { providers, may_fail } => {
                Self::Optional { providers: providers.clone(), may_fail: *may_fail }
            }
        }
    }
}

/// Of several that let tokens be missing the most lenient counts, after all others, and for the tokens of the providers that
/// stand beside it.
fn any_with_siblings(requirements: Vec<Requirement>, provider_count: usize) -> Vec<Requirement> {
    let (lenient, mut others): (Vec<_>, Vec<_>) =
        requirements.into_iter().partition(|requirement| matches!(requirement, Requirement::Optional { .. }));
    if lenient.is_empty() {
        return others;
    }
    let may_fail =
        lenient.iter().any(|requirement| matches!(requirement, Requirement::Optional { may_fail: true, .. }));
    let beside: Vec<usize> = others
        .iter()
        .filter_map(|requirement| match requirement {
            Requirement::Provider { provider, .. } => Some(*provider),
            _ => None,
        })
        .collect();
    let providers = if beside.is_empty() { (0..provider_count).collect() } else { beside };
    others.push(Requirement::Optional { providers, may_fail });
    others
}

fn place(name: &str, names: &[String]) -> Result<usize> {
    let found = names.iter().position(|known| known == name);
    found.ok_or_else(|| FieldError::new("", format!("Required provider ['{name}'] is not configured.")))
}

impl Provider {
    fn from_proto(message: JwtProvider) -> Result<Self> {
        let JwtProvider {
            issuer,
            audiences,
            subjects,
            require_expiration,
            max_lifetime,
            forward,
            from_headers,
            from_params,
            from_cookies,
            forward_payload_header,
            pad_forward_payload_header,
            payload_in_metadata,
            normalize_payload_in_metadata,
            header_in_metadata,
            failed_status_in_metadata,
            clock_skew_seconds,
            jwt_cache_config: _, // a token is judged anew each time, which costs some microseconds and forgets nothing
            claim_to_headers,
            clear_route_cache,
            jwks_source_specifier,
        } = message;
        refuse!(clear_route_cache);
        let keys = match required(jwks_source_specifier, "jwks_source_specifier")? {
            JwksSourceSpecifier::LocalJwks(source) => {
                let keys = KeySet::parse(&data_source::read(source).within("local_jwks")?);
                Keys::Local(keys.map_err(|failure| FieldError::new("local_jwks", failure.to_string()))?)
            }
            JwksSourceSpecifier::RemoteJwks(message) => {
                Keys::Remote(RemoteKeys::from_proto(message).within("remote_jwks")?)
            }
        };
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let normalized = normalize_payload_in_metadata.map(|message| {
            let jwt_provider::NormalizePayload { space_delimited_claims } = message;
            space_delimited_claims
        });
        let skew = if clock_skew_seconds == 0 { CLOCK_SKEW_S } else { clock_skew_seconds };
        Ok(Self {
            issuer,
            audiences,
            subjects: subjects.map(StringMatcher::from_proto).transpose().within("subjects")?,
            requires_expiration: require_expiration,
            lifetime_max: field::duration(max_lifetime, "max_lifetime")?,
            keys,
            places: Places::from_proto(from_headers, from_params, from_cookies)?,
            forward,
            payload_header: text(forward_payload_header)
                .map(|name| header_name(&name))
                .transpose()
                .within("forward_payload_header")?,
            pads_payload: pad_forward_payload_header,
            claims_to_headers: field::each(claim_to_headers, "claim_to_headers", ClaimToHeader::from_proto)?,
            payload_in_metadata: text(payload_in_metadata),
            normalized_claims: normalized,
            header_in_metadata: text(header_in_metadata),
            failure_in_metadata: text(failed_status_in_metadata),
            clock_skew: Duration::from_secs(skew.into()),
        })
    }
}

impl Places {
    /// Where nothing is said: `authorization: Bearer ...` and the parameter `access_token`.
    fn from_proto(headers: Vec<JwtHeader>, parameters: Vec<String>, cookies: Vec<String>) -> Result<Self> {
        if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
            return Ok(Self {
                headers: vec![(http::header::AUTHORIZATION, "Bearer ".to_owned())],
                parameters: vec!["access_token".to_owned()],
                cookies: Vec::new(),
            });
        }
        let mut headers = field::each(headers, "from_headers", |message| {
            let JwtHeader { name, value_prefix } = message;
            Ok((header_name(&name).within("name")?, value_prefix))
        })?;
        headers.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
        headers.dedup();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.dedup();
            names
        };
        Ok(Self { headers, parameters: sorted(parameters), cookies: sorted(cookies) })
    }
}

impl ClaimToHeader {
    fn from_proto(message: JwtClaimToHeader) -> Result<Self> {
        let JwtClaimToHeader { header_name: name, claim_name, claim_path } = message;
        let path: Vec<String> = match (claim_name.is_empty(), claim_path.is_empty()) {
            (false, true) => claim_name.split('.').map(str::to_owned).collect(),
            (true, false) => claim_path.into_iter().map(|segment| segment.key).collect(),
            _ => return Err(FieldError::new("claim_name", "exactly one of claim_name and claim_path must be set")),
        };
        Ok(Self { header: header_name(&name).within("header_name")?, path })
    }
}

fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| FieldError::new("", "not a header name"))
}

impl RemoteKeys {
    fn from_proto(message: RemoteJwks) -> Result<Self> {
        let RemoteJwks { http_uri, cache_duration, async_fetch, retry_policy } = message;
        if let Some(JwksAsyncFetch { fast_listener: _, failed_refetch_duration }) = async_fetch {
            // Keys are fetched in time for the first token, and no listener waits for them; a fetch that failed is made
            // again for the next token.
            field::duration(failed_refetch_duration, "async_fetch.failed_refetch_duration")?;
        }
        let HttpUri { uri, timeout, http_upstream_type } = required(http_uri, "http_uri")?;
        let HttpUpstreamType::Cluster(cluster) = required(http_upstream_type, "http_uri.http_upstream_type")?;
        let uri = absolute(&uri).within("http_uri.uri")?;
        let (retries, retry_interval) = retries(retry_policy).within("retry_policy")?;
        Ok(Self {
            cluster: cluster.into(),
            uri,
            timeout: required(field::duration(timeout, "http_uri.timeout")?, "http_uri.timeout")?,
            cache_duration: field::duration_or(cache_duration, CACHE_DURATION, "cache_duration")?,
            retries,
            retry_interval,
            current: ArcSwapOption::empty(),
        })
    }
}

/// Without a scheme it is `http`.
pub(super) fn absolute(text: &str) -> Result<http::Uri> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: http::Uri = text.parse().map_err(|_| FieldError::new("", "not a URI"))?;
    if uri.authority().is_none() {
        return Err(FieldError::new("", "a host is required"));
    }
    Ok(uri)
}

fn retries(message: Option<RetryPolicy>) -> Result<(u32, Duration)> {
    let Some(message) = message else { return Ok((0, RETRY_INTERVAL)) };
    let RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = message;
    refuse!(retry_on, retry_priority, retry_host_predicate, host_selection_retry_max_attempts);
    let interval = match retry_back_off {
        None => RETRY_INTERVAL,
        Some(BackoffStrategy { base_interval, max_interval }) => {
            field::duration(max_interval, "retry_back_off.max_interval")?; // the steps are all the base
            field::duration_or(base_interval, RETRY_INTERVAL, "retry_back_off.base_interval")?
        }
    };
    Ok((field::u32_or(num_retries, 1), interval))
}
