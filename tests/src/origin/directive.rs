//! What a request asks the origin to do: pairs of words in the path, or the same words in the header `x-origin-do`.
//!
//! `/delay/200ms/status/503` waits and then fails. Words compose in any order; a path that starts with no known word is
//! just a path, answered with who the origin is. Pure.
//!
//! | words | effect |
//! |---|---|
//! | `status/CODE` | answers with this status |
//! | `delay/TIME` | waits before answering (`200ms`, `2s`) |
//! | `flaky/N` | the first N requests with the same `x-test-key` get 503, or the `status` asked for, later ones 200 |
//! | `bytes/N` | a body of N bytes |
//! | `chunks/N` | a body in N pieces without a content-length |
//! | `headers` | the request as JSON: method, path, version, peer, headers, length of the body, trailers |
//! | `echo` | the request's body |
//! | `trailers` | a trailer `x-origin-trailer` after the body |
//! | `grpc/CODE` | a gRPC answer: the request's body echoed, `grpc-status` in the trailers |
//! | `grpc-only/CODE` | a gRPC answer of headers alone |
//! | `header/NAME/VALUE` | this response header too |
//! | `location/URL` | the response header of this name; `~` stands for a slash |
//! | `close` | closes without an answer (HTTP/2: resets the stream) |
//! | `hangup` | answers with `connection: close` |
//! | `early` | answers before it has read the body |
//! | `seen/KEY` | how many requests carried `x-test-key: KEY` so far |

use std::time::Duration;

/// Everything that one request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directive {
    pub body: Body,
    pub status: Option<u16>,
    pub delay: Option<Duration>,
    pub failures_first: u64,
    pub headers: Vec<(String, String)>,
    pub trailers: bool,
    pub ending: Ending,
    pub answers_early: bool,
}

/// What the answer's body is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Body {
    #[default]
    Identity,
    Bytes(usize),
    Chunks(usize),
    Request,
    Echo,
    Grpc(u16),
    GrpcHeadersOnly(u16),
    Seen(String),
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    #[default]
    Stays,
    CloseWithoutAnswer,
    CloseAfterAnswer,
}

impl Directive {
    /// `path` with its leading slash and without the query; `header` is the value of `x-origin-do`.
    pub fn parse(path: &str, header: Option<&str>) -> Result<Self, String> {
        let mut directive = Self::default();
        let path_words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
        if path_words.first().is_some_and(|first| WORDS.contains(first)) {
            directive.read(&path_words)?;
        }
        let header_words: Vec<&str> = header.unwrap_or_default().split('/').filter(|word| !word.is_empty()).collect();
        directive.read(&header_words)?;
        Ok(directive)
    }

    fn read(&mut self, words: &[&str]) -> Result<(), String> {
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut argument = || words.next().ok_or_else(|| format!("{word} needs an argument"));
            match word {
                "status" => self.status = Some(parse_status(argument()?)?),
                "delay" => self.delay = Some(parse_duration(argument()?)?),
                "flaky" => self.failures_first = parse_number(argument()?)? as u64,
                "bytes" => self.body = Body::Bytes(parse_number(argument()?)?),
                "chunks" => self.body = Body::Chunks(parse_number(argument()?)?),
                "grpc" => self.body = Body::Grpc(parse_code(argument()?)?),
                "grpc-only" => self.body = Body::GrpcHeadersOnly(parse_code(argument()?)?),
                "seen" => self.body = Body::Seen(argument()?.to_owned()),
                "header" => {
                    let name = argument()?.to_owned();
                    self.headers.push((name, argument()?.to_owned()));
                }
                "headers" => self.body = Body::Request,
                "echo" => self.body = Body::Echo,
                "location" => self.headers.push(("location".to_owned(), argument()?.replace('~', "/"))),
                "trailers" => self.trailers = true,
                "close" => self.ending = Ending::CloseWithoutAnswer,
                "hangup" => self.ending = Ending::CloseAfterAnswer,
                "early" => self.answers_early = true,
                unknown => return Err(format!("unknown word {unknown:?}")),
            }
        }
        Ok(())
    }
}

fn parse_status(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|code| (200..600).contains(code)).ok_or_else(|| format!("not a final status: {text:?}"))
}

fn parse_code(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("not a gRPC status: {text:?}"))
}

fn parse_number(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number <= NUMBER_MAX)
        .ok_or_else(|| format!("not a number up to {NUMBER_MAX}: {text:?}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a time such as 200ms or 2s: {text:?}");
    let (number, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => return Err(wrong()),
    };
    let number: u64 = number.parse().ok().filter(|number| *number <= DELAY_MAX).ok_or_else(wrong)?;
    Ok(Duration::from_millis(number * unit_ms))
}

const WORDS: [&str; 16] = [
    "bytes",
    "chunks",
    "close",
    "delay",
    "early",
    "echo",
    "flaky",
    "grpc",
    "grpc-only",
    "hangup",
    "header",
    "headers",
    "location",
    "seen",
    "status",
    "trailers",
];
/// The largest body, so that a typing error cannot fill the memory.
const NUMBER_MAX: usize = 1 << 30;
const DELAY_MAX: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_asks_for_the_identity() {
        for path in ["/", "", "/reviews/7", "/index.html"] {
            assert_eq!(Directive::parse(path, None).unwrap(), Directive::default(), "{path}");
        }
    }

    #[test]
    fn words_compose_and_the_header_adds_to_the_path() {
        let directive = Directive::parse("/delay/200ms/status/503", Some("bytes/7/header/x-a/b/hangup")).unwrap();
        assert_eq!(
            directive,
            Directive {
                body: Body::Bytes(7),
                status: Some(503),
                delay: Some(Duration::from_millis(200)),
                headers: vec![("x-a".to_owned(), "b".to_owned())],
                ending: Ending::CloseAfterAnswer,
                ..Directive::default()
            }
        );
        assert_eq!(Directive::parse("/flaky/2/delay/1s", None).unwrap().delay, Some(Duration::from_secs(1)));
    }

    #[test]
    fn every_word_of_the_list_is_understood() {
        for word in WORDS {
            let argument = match word {
                "delay" => "/1ms",
                "header" => "/a/b",
                "status" => "/200",
                _ => "/1",
            };
            let alone = Directive::parse(&format!("/{word}"), None);
            let with_argument = Directive::parse(&format!("/{word}{argument}"), None);
            assert!(alone.is_ok() || with_argument.is_ok(), "{word}");
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for (path, complaint) in [
            ("/status/99", "not a final status"),
            ("/status", "needs an argument"),
            ("/delay/soon", "not a time"),
            ("/delay/9999999999999s", "not a time"),
            ("/bytes/-1", "not a number"),
            ("/delay/1s/statsu/200", "unknown word \"statsu\""),
        ] {
            let error = Directive::parse(path, None).unwrap_err();
            assert!(error.contains(complaint), "{path}: {error}");
        }
    }
}
