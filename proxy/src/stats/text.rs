//! `/stats` as text and as JSON, in Envoy's words.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::stats::{Bins, Reading, StatsRules};

/// How histograms are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistogramMode {
    #[default]
    Summary,
    Cumulative,
    Disjoint,
    Detailed,
}

/// In the order of the output: texts, then numbers, then histograms, each by name.
pub type NamedReadings = Vec<(String, Reading)>;

/// Parts in a hundred.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

pub fn sort(readings: &mut NamedReadings) {
    let kind = |reading: &Reading| match reading {
        Reading::Text(_) => 0,
        Reading::Counter(_) | Reading::Gauge(_) => 1,
        Reading::Histogram { .. } => 2,
    };
    readings.sort_by(|a, b| kind(&a.1).cmp(&kind(&b.1)).then_with(|| a.0.cmp(&b.0)));
}

pub fn to_text(readings: &NamedReadings, rules: &StatsRules, mode: HistogramMode) -> String {
    let mut out = String::new();
    for (name, reading) in readings {
        let _ = match reading {
            Reading::Counter(value) | Reading::Gauge(value) => writeln!(out, "{name}: {value}"),
            Reading::Text(text) => writeln!(out, "{name}: \"{text}\""),
            Reading::Histogram { total, .. } if total.is_empty() => writeln!(out, "{name}: No recorded values"),
            Reading::Histogram { total, interval } => match mode {
                HistogramMode::Summary => writeln!(out, "{name}: {}", summary(total, interval)),
                HistogramMode::Cumulative | HistogramMode::Disjoint => {
                    let buckets = buckets(total, interval, rules.buckets_of(name), mode);
                    let shown = buckets
                        .iter()
                        .map(|[bound, interval, total]| format!("B{}({interval},{total})", significant(*bound, 6)));
                    writeln!(out, "{name}: {}", shown.collect::<Vec<_>>().join(" "))
                }
                HistogramMode::Detailed => {
                    let summary = summary(total, interval);
                    writeln!(
                        out,
                        "{name}:\n  totals={}\n  intervals={}\n  summary={summary}",
                        bins_text(total),
                        bins_text(interval)
                    )
                }
            },
        };
    }
    out
}

pub fn to_json(readings: &NamedReadings, rules: &StatsRules, mode: HistogramMode) -> Value {
    let mut stats = Vec::new();
    let mut histograms = Vec::new();
    for (name, reading) in readings {
        match reading {
            Reading::Counter(value) | Reading::Gauge(value) => stats.push(json!({ "name": name, "value": value })),
            Reading::Text(text) => stats.push(json!({ "name": name, "value": text })),
            Reading::Histogram { total, interval } => {
                histograms.push(histogram_json(name, total, interval, rules, mode));
            }
        }
    }
    if !histograms.is_empty() {
        let histograms = match mode {
            HistogramMode::Summary => {
                json!({ "supported_quantiles": QUANTILES.map(number), "computed_quantiles": histograms })
            }
            HistogramMode::Cumulative | HistogramMode::Disjoint => Value::from(histograms),
            HistogramMode::Detailed => {
                json!({ "supported_percentiles": QUANTILES.map(number), "details": histograms })
            }
        };
        stats.push(json!({ "histograms": histograms }));
    }
    json!({ "stats": stats })
}

fn histogram_json(name: &str, total: &Bins, interval: &Bins, rules: &StatsRules, mode: HistogramMode) -> Value {
    let quantile = |bins: &Bins, percent: f64| bins.quantile(percent / 100.0).map(number);
    let quantiles = QUANTILES
        .map(|percent| json!({ "cumulative": quantile(total, percent), "interval": quantile(interval, percent) }));
    match mode {
        HistogramMode::Summary => json!({ "name": name, "values": quantiles }),
        HistogramMode::Cumulative | HistogramMode::Disjoint => {
            let buckets = buckets(total, interval, rules.buckets_of(name), mode);
            let buckets: Vec<Value> = buckets
                .into_iter()
                .map(|[bound, interval, total]| {
                    json!({
                        "upper_bound": number(bound), "interval": number(interval), "cumulative": number(total),
                    })
                })
                .collect();
            json!({ "name": name, "buckets": buckets })
        }
        HistogramMode::Detailed => {
            json!({
                "name": name, "totals": bins_json(total), "intervals": bins_json(interval), "percentiles": quantiles,
            })
        }
    }
}

fn summary(total: &Bins, interval: &Bins) -> String {
    let quantile = |bins: &Bins, percent: f64| match bins.quantile(percent / 100.0) {
        Some(value) => value.to_string(),
        None => "nan".to_owned(),
    };
    let shown =
        QUANTILES.map(|percent| format!("P{percent}({},{})", quantile(interval, percent), quantile(total, percent)));
    shown.join(" ")
}

/// (bound, of the interval, of all), by what is up to the bound or between it and the one before.
fn buckets(total: &Bins, interval: &Bins, bounds: &[f64], mode: HistogramMode) -> Vec<[f64; 3]> {
    let mut before = [0; 2];
    let counts = bounds.iter().map(|&bound| {
        let up_to = [interval.count_up_to(bound), total.count_up_to(bound)];
        let shown = match mode {
            HistogramMode::Disjoint => [up_to[0] - before[0], up_to[1] - before[1]],
            HistogramMode::Cumulative | HistogramMode::Summary | HistogramMode::Detailed => up_to,
        };
        before = up_to;
        [bound, shown[0] as f64, shown[1] as f64]
    });
    counts.collect()
}

fn bins_text(bins: &Bins) -> String {
    let shown = bins.iter().map(|(bin, count)| format!("{},{}:{count}", bin.lower_bound(), bin.width()));
    shown.collect::<Vec<_>>().join(", ")
}

fn bins_json(bins: &Bins) -> Vec<Value> {
    let shown = bins.iter().map(|(bin, count)| {
        json!({ "lower_bound": number(bin.lower_bound()), "width": number(bin.width()), "count": count })
    });
    shown.collect()
}

/// Whole numbers without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { Value::from(value) }
}

/// As C's `%g` with so many digits.
pub(super) fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    if exponent < -4 || exponent >= digits as i32 {
        let mantissa = trimmed(format!("{:.*}", digits - 1, value / 10f64.powi(exponent)));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    trimmed(format!("{value:.*}", (digits as i32 - 1 - exponent).max(0) as usize))
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Histogram, WorkerIndex};

    fn readings() -> NamedReadings {
        let histogram = Histogram::new(1);
        for value in [1, 10, 16, 43] {
            histogram.record_number(WorkerIndex(0), value);
        }
        let recorded = Reading::Histogram { total: histogram.total(), interval: histogram.interval() };
        let empty = Reading::Histogram { total: Bins::default(), interval: Bins::default() };
        let mut readings = vec![
            ("h".to_owned(), recorded),
            ("e".to_owned(), empty),
            ("b".to_owned(), Reading::Gauge(2)),
            ("a.b".to_owned(), Reading::Counter(1)),
            ("z".to_owned(), Reading::Text("text".to_owned())),
        ];
        sort(&mut readings);
        readings
    }

    #[test]
    fn text_is_as_envoy_writes_it() {
        let rules = StatsRules::default();
        let summary = "P0(nan,1.05) P25(nan,1.05) P50(nan,10.5) P75(nan,16.5) P90(nan,43.5) P95(nan,43.5) P99(nan,43.5) \
                       P99.5(nan,43.5) P99.9(nan,43.5) P100(nan,43.5)";
        assert_eq!(
            to_text(&readings(), &rules, HistogramMode::Summary),
            format!("z: \"text\"\na.b: 1\nb: 2\ne: No recorded values\nh: {summary}\n")
        );
        let detailed = to_text(&readings(), &rules, HistogramMode::Detailed);
        let expected = "h:\n  totals=1,0.1:1, 10,1:1, 16,1:1, 43,1:1\n  intervals=\n  summary=P0";
        assert!(detailed.contains(expected), "{detailed}");
        let cumulative = to_text(&readings(), &rules, HistogramMode::Cumulative);
        assert!(cumulative.contains("h: B0.5(0,0) B1(0,1) B5(0,1) B10(0,2) B25(0,3) B50(0,4) "), "{cumulative}");
        assert!(cumulative.ends_with("B600000(0,4) B1.8e+06(0,4) B3.6e+06(0,4)\n"), "{cumulative}");
        let disjoint = to_text(&readings(), &rules, HistogramMode::Disjoint);
        assert!(disjoint.contains("h: B0.5(0,0) B1(0,1) B5(0,0) B10(0,1) B25(0,1) B50(0,1) B100(0,0) "), "{disjoint}");
    }

    #[test]
    fn json_has_histograms_last() {
        let json = to_json(&readings(), &StatsRules::default(), HistogramMode::Summary);
        assert_eq!(json["stats"][1], json!({ "name": "a.b", "value": 1 }));
        let quantiles = &json["stats"][3]["histograms"]["computed_quantiles"];
        assert_eq!(quantiles[0]["values"][0], json!({ "cumulative": null, "interval": null }));
        assert_eq!(quantiles[1]["values"][2], json!({ "cumulative": 10.5, "interval": null }));
        let json = to_json(&readings(), &StatsRules::default(), HistogramMode::Disjoint);
        let bucket = json!({ "upper_bound": 1, "interval": 0, "cumulative": 1 });
        assert_eq!(json["stats"][3]["histograms"][1]["buckets"][1], bucket);
        let empty = to_json(&Vec::new(), &StatsRules::default(), HistogramMode::Summary);
        assert_eq!(empty, json!({ "stats": [] }));
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_need() {
        let cases = [(0.5, 6, "0.5"), (600_000.0, 6, "600000"), (1_800_000.0, 6, "1.8e+06"), (0.0, 32, "0")];
        for (value, digits, expected) in cases {
            assert_eq!(significant(value, digits), expected);
        }
        assert_eq!(significant(1.0 + 1.0 / 21.0, 32), "1.0476190476190476719153821250075");
    }
}
