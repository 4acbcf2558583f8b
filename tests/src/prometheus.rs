//! Counters as Prometheus scrapes them: the text format, parsed into names, labels and values.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>. Bad lines are errors: the tests rely on our own
//! output being well-formed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    samples: Vec<Sample>,
}

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            samples.push(parse_sample(line).with_context(|| format!("line {}: {line}", number + 1))?);
        }
        Ok(Self { samples })
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum over all samples of this name for which `wanted` says yes to the value of `label`.
    pub fn sum(&self, name: &str, label: &str, wanted: impl Fn(&str) -> bool) -> f64 {
        self.samples
            .iter()
            .filter(|sample| sample.name == name && sample.labels.get(label).is_some_and(|value| wanted(value)))
            .map(|sample| sample.value)
            .sum()
    }
}

fn parse_sample(line: &str) -> Result<Sample> {
    let name_end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(name_end);
    ensure!(!name.is_empty(), "no name");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().with_context(|| format!("not a number: {number}"))?,
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// From behind the opening brace to behind the closing one.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (key, quoted) = rest.split_once("=\"").context("a label without a quoted value")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next().context("a label value without its closing quote")? {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next().context("a backslash at the end")?.1 {
                    'n' => value.push('\n'),
                    escaped @ ('"' | '\\') => value.push(escaped),
                    other => bail!("unknown escape \\{other}"),
                },
                (_, plain) => value.push(plain),
            }
        };
        labels.insert(key.to_owned(), value);
        rest = &quoted[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_matching_labels() {
        let scrape = Scrape::parse(
            "# TYPE rq counter\nrq{cluster=\"outbound|80||a\",code=\"2\"} 3\nrq{cluster=\"outbound|80||a\",code=\"5\"} 1\n\
             rq{cluster=\"inbound|80||\"} 9\n\nup 1\n",
        )
        .unwrap();
        assert_eq!(scrape.sum("rq", "cluster", |cluster| cluster.starts_with("outbound|")), 4.0);
        assert_eq!(scrape.sum("rq", "nothing", |_| true), 0.0);
        assert_eq!(scrape.samples().len(), 4);
    }

    #[test]
    fn reads_escapes_and_special_values() {
        let scrape = Scrape::parse(r#"m{a="x\"y\\z\n{}",b="" ,} +Inf 1700000000"#).unwrap();
        let sample = &scrape.samples()[0];
        assert_eq!(sample.labels["a"], "x\"y\\z\n{}");
        assert_eq!(sample.labels["b"], "");
        assert_eq!(sample.value, f64::INFINITY);
    }

    #[test]
    fn refuses_what_is_malformed() {
        for bad in ["m", "m{a=1} 2", "m{a=\"1} 2", "m{a=\"1\"}", "m two", "m{a=\"\\q\"} 1", " 1"] {
            assert!(Scrape::parse(bad).is_err(), "{bad}");
        }
    }
}
