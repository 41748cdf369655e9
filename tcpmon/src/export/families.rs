//! Metric families, built from values that are read at each scrape.
//!
//! The counters live in the kernel; registering shadows of them here would only add a second
//! truth. So families are made anew for each scrape, and the library writes them down.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// A family in the making.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

/// Label names and values of one metric.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Family {
    /// A family of counters.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::COUNTER, metrics: Vec::new() }
    }

    /// A family of gauges.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::GAUGE, metrics: Vec::new() }
    }

    /// A family of histograms.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::HISTOGRAM, metrics: Vec::new() }
    }

    /// Adds a counter or a gauge.
    pub fn add(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a counter or a gauge that counts things.
    pub fn add_count(&mut self, labels: Labels<'_>, count: u64) {
        self.add(labels, to_f64(count));
    }

    /// Adds a histogram of observations per bucket, not cumulated; the last bucket has no upper
    /// bound, so there is one bound less than there are buckets.
    pub fn add_histogram(&mut self, labels: Labels<'_>, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut cumulated = 0;
        let buckets = bounds
            .iter()
            .zip(counts)
            .map(|(&bound, count)| {
                cumulated += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(cumulated);
                bucket
            })
            .collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// The finished family; `None` if it has no metric, which the text format cannot show.
    #[must_use]
    pub fn finish(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}

/// A count as the text format has it: exact below 2^53.
#[must_use]
pub fn to_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    let value = count as f64;
    value
}

/// A number of either sign as the text format has it: exact below 2^53.
#[must_use]
pub fn signed(number: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    let number = number as f64;
    number
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder, TextEncoder};

    fn text(family: Family) -> String {
        let mut out = Vec::new();
        TextEncoder::new().encode(&[family.finish().expect("metrics")], &mut out).expect("text");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn counters_and_histograms_are_written_as_prometheus_has_them() {
        let mut counter = Family::counter("a_total", "How many.");
        counter.add_count(&[("kind", "x\"y")], 3);
        insta::assert_snapshot!(text(counter), @r#"
        # HELP a_total How many.
        # TYPE a_total counter
        a_total{kind="x\"y"} 3
        "#);
        let mut histogram = Family::histogram("b_seconds", "How long.");
        histogram.add_histogram(&[("state", "s")], &[0.5, 1.0], &[1, 2, 3], 9.5);
        insta::assert_snapshot!(text(histogram), @r#"
        # HELP b_seconds How long.
        # TYPE b_seconds histogram
        b_seconds_bucket{state="s",le="0.5"} 1
        b_seconds_bucket{state="s",le="1"} 3
        b_seconds_bucket{state="s",le="+Inf"} 6
        b_seconds_sum{state="s"} 9.5
        b_seconds_count{state="s"} 6
        "#);
    }

    #[test]
    fn an_empty_family_is_left_out() {
        assert!(Family::gauge("c", "None.").finish().is_none());
    }
}
