//! The Prometheus text format 0.0.4, read strictly: what a lenient scraper would let pass is an
//! error here, so that a strict one never finds any.

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a scrape brought.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Type by family.
    pub(crate) families: BTreeMap<String, String>,
    /// Value, as written, by name and labels.
    samples: BTreeMap<(String, Labels), String>,
}

impl Metrics {
    /// A count; 0 where there is no such series.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let key = (name.to_owned(), labels);
        self.samples.get(&key).map_or(0, |text| whole(text))
    }

    /// All series of a name.
    pub(crate) fn series<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a Labels, &'a str)> {
        let named = self.samples.iter().filter(move |((own, _), _)| own == name);
        named.map(|((_, labels), value)| (labels, value.as_str()))
    }

    /// How much each series of a name that counts has grown since `before`; those that have not
    /// are left out.
    pub(crate) fn growth(&self, before: &Self, name: &str) -> BTreeMap<Labels, u64> {
        let mut growth = BTreeMap::new();
        for (labels, value) in self.series(name) {
            let key = (name.to_owned(), labels.clone());
            let was = before.samples.get(&key).map_or(0, |text| whole(text));
            let grown = whole(value).checked_sub(was);
            let grown = grown.unwrap_or_else(|| panic!("{name} {labels:?} fell from {was}"));
            if grown > 0 {
                growth.insert(labels.clone(), grown);
            }
        }
        growth
    }
}

fn whole(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a count: {text:?}"))
}

/// Reads a scrape.
pub(crate) fn parse(text: &str) -> Result<Metrics, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut metrics = Metrics::default();
    let mut helped = BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        let refuse = |why: &str| Err(format!("{why}: {line:?}"));
        if line.is_empty() || line != line.trim() {
            return refuse("an empty line or spaces at its ends");
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            if help.is_empty() || !is_name(name) || !helped.insert(name.to_owned()) {
                return refuse("HELP twice, of no name, or without text");
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return refuse("no type") };
            let known = ["counter", "gauge", "histogram"].contains(&kind);
            if !known || !helped.contains(name) {
                return refuse("an unknown type, or no HELP before");
            }
            if metrics.families.insert(name.to_owned(), kind.to_owned()).is_some() {
                return refuse("a family twice");
            }
            name.clone_into(&mut family);
        } else {
            let (name, labels, value) =
                sample(line).ok_or_else(|| format!("not a sample: {line:?}"))?;
            let kind = metrics.families.get(&family).map_or("", String::as_str);
            if !belongs(&name, &family, kind) {
                return refuse("a sample outside its family");
            }
            let number = number(&value).ok_or_else(|| format!("not a number: {line:?}"))?;
            if kind == "counter"
                && (number < 0.0 || !name.ends_with("_total") && !is_process(&name))
            {
                return refuse("a counter below 0, or not called _total");
            }
            if metrics.samples.insert((name, labels), value).is_some() {
                return refuse("a series twice");
            }
        }
    }
    check_histograms(&metrics)?;
    for family in metrics.families.keys() {
        let found = |(name, _): &&(String, Labels)| name.starts_with(family.as_str());
        if !metrics.samples.keys().any(|key| found(&key)) {
            return Err(format!("{family} has no sample"));
        }
    }
    Ok(metrics)
}

/// The `process_*` set has names of its own, older than the rule for names.
fn is_process(name: &str) -> bool {
    name.starts_with("process_")
}

fn belongs(name: &str, family: &str, kind: &str) -> bool {
    match name.strip_prefix(family) {
        Some("") => kind != "histogram",
        Some("_bucket" | "_sum" | "_count") => kind == "histogram",
        _ => false,
    }
}

fn check_histograms(metrics: &Metrics) -> Result<(), String> {
    let histograms = metrics.families.iter().filter(|(_, kind)| *kind == "histogram");
    for (family, _) in histograms {
        let mut buckets: BTreeMap<Labels, Vec<(f64, u64)>> = BTreeMap::new();
        for (labels, value) in metrics.series(&format!("{family}_bucket")) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").and_then(|bound| number(&bound));
            let bound = bound.ok_or_else(|| format!("{family}: a bucket without bound"))?;
            buckets.entry(labels).or_default().push((bound, whole(value)));
        }
        for (labels, mut buckets) in buckets {
            buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let key = |name: &str| (format!("{family}{name}"), labels.clone());
            let count = metrics.samples.get(&key("_count")).map(|text| whole(text));
            let rises = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
            let whole = buckets
                .last()
                .is_some_and(|&(bound, value)| bound == f64::INFINITY && Some(value) == count);
            if !rises || !whole || !metrics.samples.contains_key(&key("_sum")) {
                return Err(format!("{family} {labels:?} is no histogram"));
            }
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if text.contains(|c: char| !c.is_ascii_digit() && !"+-.e".contains(c)) => None,
        _ => text.parse().ok(),
    }
}

/// `name{label="value",...} value`, without a timestamp, which the daemon never writes.
fn sample(line: &str) -> Option<(String, Labels, String)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            if let Some(more) = after.strip_prefix(',') {
                rest = more;
            } else {
                rest = after.strip_prefix('}')?;
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ')?;
    (is_name(name) && !value.contains(' ')).then(|| (name.into(), labels, value.into()))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

#[test]
fn the_parser_is_strict() {
    let head = "# HELP a_total A.\n# TYPE a_total counter\n";
    let good = format!("{head}a_total{{x=\"1\\\"\\n\",y=\"\"}} 3\na_total 1\n");
    let metrics = parse(&good).expect("a scrape");
    assert_eq!(metrics.count("a_total", &[("x", "1\"\n"), ("y", "")]), 3);
    for bad in [
        "a_total 1\n",
        "a_total{x=1} 1\n",
        "a_total{x=\"1\",} 1\n",
        "a_total{x=\"\\t\"} 1\n",
        "a_total 1 2\n",
        "a_total -1\n",
        "a_total 0x1\n",
        "b_total 1\n",
        "a_total 1",
        "\na_total 1\n",
    ] {
        let text = if bad == "a_total 1\n" { bad.to_owned() } else { format!("{head}{bad}") };
        assert!(parse(&text).is_err(), "{text}");
    }
    assert!(parse(&format!("{head}a_total 1\na_total 1\n")).is_err());
    assert!(parse(head).is_err());
    let head = "# HELP h H.\n# TYPE h histogram\n";
    let good =
        format!("{head}h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3\nh_count 2\n");
    assert!(parse(&good).is_ok());
    assert!(parse(&good.replace("h_count 2", "h_count 3")).is_err());
    assert!(parse(&good.replace("\"1\"} 1", "\"1\"} 3")).is_err());
    assert!(parse(&good.replace("h_sum 3\n", "")).is_err());
}
