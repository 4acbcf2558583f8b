//! Judges a request's tokens by a requirement. Pure but for the time, which keys are held against.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, header, request};

use super::Place;
use crate::{
    config::http_filter::{JwtAuthn, Keys, Places, Provider, Requirement},
    http::route::matcher::header_value_of,
    jwt::{Failure, Token},
};

/// What came of it.
pub(super) struct Verdict<'a> {
    pub(super) good: Vec<Good>,
    /// Under which key of the metadata, and what.
    pub(super) failures: Vec<(&'a str, Failure)>,
    pub(super) result: Result<(), Failure>,
}

/// A token that is what it says.
pub(super) struct Good {
    pub(super) provider: usize,
    pub(super) token: Token,
    pub(super) place: Place,
}

/// The provider whose keys are needed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeedsKeys(pub(super) usize);

struct Judge<'a, 'r> {
    config: &'a JwtAuthn,
    head: &'r request::Parts,
    /// Providers whose keys were asked for: what is there now has to do.
    tried: &'r [bool],
    now_s: u64,
    good: Vec<Good>,
    failures: Vec<(&'a str, Failure)>,
}

pub(super) fn judge<'a>(
    config: &'a JwtAuthn,
    requirement: &Requirement,
    head: &request::Parts,
    tried: &[bool],
) -> Result<Verdict<'a>, NeedsKeys> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut judge = Judge { config, head, tried, now_s, good: Vec::new(), failures: Vec::new() };
    let result = judge.check(requirement)?;
    Ok(Verdict { good: judge.good, failures: judge.failures, result })
}

type Checked = Result<Result<(), Failure>, NeedsKeys>;

impl Judge<'_, '_> {
    fn check(&mut self, requirement: &Requirement) -> Checked {
        match requirement {
            Requirement::Provider { provider, audiences } => {
                let tokens = tokens_at(&self.config.providers[*provider].places, self.head);
                self.check_provider(*provider, audiences.as_deref(), tokens)
            }
            Requirement::All(requirements) => {
                for requirement in requirements {
                    if let Err(failure) = self.check(requirement)? {
                        return Ok(Err(failure));
                    }
                }
                Ok(Ok(()))
            }
            Requirement::Any(requirements) => {
                let mut worst = Failure::Missing;
                for requirement in requirements {
                    match self.check(requirement)? {
                        Ok(()) => return Ok(Ok(())),
                        Err(failure) if weight(failure) >= weight(worst) => worst = failure,
                        Err(_) => {}
                    }
                }
                Ok(Err(worst))
            }
            Requirement::Optional { providers, may_fail } => self.check_optional(providers, *may_fail),
        }
    }

    fn check_provider(
        &mut self,
        provider: usize,
        audiences: Option<&[String]>,
        tokens: Vec<(String, Place)>,
    ) -> Checked {
        if tokens.is_empty() {
            self.note(provider, Failure::Missing);
            return Ok(Err(Failure::Missing));
        }
        for (text, place) in tokens.into_iter().rev() {
            match self.verify(provider, audiences, &text)? {
                Ok(token) => self.good.push(Good { provider, token, place }),
                Err(failure) => {
                    self.note(provider, failure);
                    return Ok(Err(failure));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Each token by the provider that its issuer is, else by one that takes any.
    fn check_optional(&mut self, providers: &[usize], may_fail: bool) -> Checked {
        let mut seen: Vec<(String, Place)> = Vec::new();
        for provider in providers {
            for token in tokens_at(&self.config.providers[*provider].places, self.head) {
                if !seen.contains(&token) {
                    seen.push(token);
                }
            }
        }
        let mut last = Ok(());
        for (text, place) in seen.into_iter().rev() {
            last = match self.provider_of(&text, &place, providers) {
                Err(failure) => Err(failure),
                Ok(provider) => match self.verify(provider, None, &text)? {
                    Ok(token) => {
                        self.good.push(Good { provider, token, place });
                        Ok(())
                    }
                    Err(failure) => Err(failure),
                },
            };
        }
        Ok(if may_fail { Ok(()) } else { last })
    }

    /// One that has tokens at this place.
    fn provider_of(&self, text: &str, place: &Place, providers: &[usize]) -> Result<usize, Failure> {
        let issuer = Token::parse(text)?.issuer;
        let with = |wanted: &str| {
            let mut providers = providers.iter().map(|at| (*at, &self.config.providers[*at]));
            providers.find(|(_, provider)| provider.issuer == wanted && has_place(&provider.places, place))
        };
        with(&issuer).or_else(|| with("")).map(|(at, _)| at).ok_or(Failure::UnknownIssuer)
    }

    fn verify(
        &self,
        provider: usize,
        audiences: Option<&[String]>,
        text: &str,
    ) -> Result<Result<Token, Failure>, NeedsKeys> {
        let config = &self.config.providers[provider];
        let token = match Token::parse(text) {
            Ok(token) => token,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Err(failure) = check_claims(config, audiences, &token, self.now_s) {
            return Ok(Err(failure));
        }
        let verified = match &config.keys {
            Keys::Local(keys) => keys.verify(&token),
            Keys::Remote(remote) => {
                let current = remote.current.load();
                let is_fresh = |at: Instant| at.elapsed() < remote.cache_duration;
                match &*current {
                    Some(fetched) if self.tried[provider] || is_fresh(fetched.fetched_at) => {
                        fetched.keys.verify(&token)
                    }
                    None if self.tried[provider] => Err(Failure::FetchFailed),
                    Some(_) | None => return Err(NeedsKeys(provider)),
                }
            }
        };
        Ok(verified.map(|()| token))
    }

    fn note(&mut self, provider: usize, failure: Failure) {
        if let Some(key) = &self.config.providers[provider].failure_in_metadata {
            self.failures.push((key, failure));
        }
    }
}

/// That a token is bad says more than that it is somebody else's, and that more than that there is none.
fn weight(failure: Failure) -> u8 {
    match failure {
        Failure::Missing => 0,
        Failure::UnknownIssuer => 1,
        _ => 2,
    }
}

fn check_claims(provider: &Provider, audiences: Option<&[String]>, token: &Token, now_s: u64) -> Result<(), Failure> {
    if !provider.issuer.is_empty() && provider.issuer != token.issuer {
        return Err(Failure::UnknownIssuer);
    }
    let is_lasting = match (provider.lifetime_max, token.expiration_s) {
        (Some(max), Some(expiration)) => expiration.saturating_sub(now_s) > max.as_secs(),
        (Some(_), None) => true,
        (None, expiration) => provider.requires_expiration && expiration.is_none(),
    };
    let is_other = provider.subjects.as_ref().is_some_and(|subjects| !subjects.matches(&token.subject));
    if is_lasting || is_other {
        return Err(Failure::VerificationFails);
    }
    token.check_time(now_s, provider.clock_skew.as_secs())?;
    match token.is_for(audiences.unwrap_or(&provider.audiences)) {
        true => Ok(()),
        false => Err(Failure::AudienceNotAllowed),
    }
}

/// In the order in which Envoy finds them: headers, parameters, cookies.
fn tokens_at(places: &Places, head: &request::Parts) -> Vec<(String, Place)> {
    let mut tokens = Vec::new();
    for (name, prefix) in &places.headers {
        for value in values(head, name) {
            let Ok(text) = std::str::from_utf8(&value) else { continue };
            let Some(at) = text.find(prefix.as_str()) else { continue };
            let text = if prefix.is_empty() { text } else { after(text, at + prefix.len()) };
            tokens.push((text.to_owned(), Place::Header(name.clone())));
        }
    }
    for name in &places.parameters {
        let pairs = head.uri.query().unwrap_or_default().split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        if let Some((_, value)) = pairs.find(|(key, _)| key == name) {
            tokens.push((value.to_owned(), Place::Parameter(name.clone())));
        }
    }
    for name in &places.cookies {
        if let Some(value) = cookie(head, name) {
            tokens.push((value, Place::Cookie(name.clone())));
        }
    }
    tokens
}

/// Several fields of credentials are one, which is no token: who sends two wants one of them overlooked.
fn values<'a>(head: &'a request::Parts, name: &HeaderName) -> Vec<Cow<'a, [u8]>> {
    match *name == header::AUTHORIZATION {
        true => header_value_of(&head.headers, name).into_iter().collect(),
        false => head.headers.get_all(name).iter().map(|value| value.as_bytes().into()).collect(),
    }
}

fn has_place(places: &Places, place: &Place) -> bool {
    match place {
        Place::Header(name) => places.headers.iter().any(|(known, _)| known == name),
        Place::Parameter(name) => places.parameters.contains(name),
        Place::Cookie(name) => places.cookies.contains(name),
    }
}

/// From the first character on that a token can have; the whole text where there is none.
fn after(text: &str, start: usize) -> &str {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let begin = text.as_bytes().iter().skip(start).position(|byte| is_token(*byte));
    begin.and_then(|begin| text.get(start + begin..)).unwrap_or(text)
}

fn cookie(head: &request::Parts, name: &str) -> Option<String> {
    let crumbs = head.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = crumbs.flat_map(|crumbs| crumbs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"').to_owned())
}
