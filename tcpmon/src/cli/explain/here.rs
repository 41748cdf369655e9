//! This machine's own figures about a state, from a running daemon.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tcpmon_common::TcpState;

use super::lore::Lore;
use crate::cli::{
    client,
    columns::{printable, upper},
    figures::{grouped, span},
    paper::Paper,
};

/// A daemon that takes longer than that is done without: the explanation is what was asked for.
const PATIENCE: Duration = Duration::from_millis(700);
/// How many owners and edges are named.
const NAMED: usize = 5;

/// The daemon's metrics; `None` where no daemon answers, or not for us.
pub(super) fn ask(socket: &Path) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let socket: PathBuf = socket.to_owned();
    let answer = runtime.block_on(async move {
        tokio::time::timeout(PATIENCE, async move {
            let body = client::fetch(&socket, "/metrics").await.ok()?;
            String::from_utf8(body.into()).ok()
        })
        .await
    });
    answer.ok().flatten()
}

/// What the metrics say about one state.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Sockets in it, by network namespace.
    now: BTreeMap<String, f64>,
    /// Transitions to it, by the state before.
    from: BTreeMap<String, f64>,
    /// Transitions from it, by the state after.
    to: BTreeMap<String, f64>,
    /// How often, and how long in all, a socket was seen to leave it.
    left: Option<(f64, f64)>,
    /// Entered TIME_WAIT, by owner.
    owners: BTreeMap<String, f64>,
    /// Left TIME_WAIT, by reason.
    reasons: BTreeMap<String, f64>,
    /// Sysctls, by name and by value, and the namespaces that have that value.
    sysctls: BTreeMap<String, BTreeMap<i64, Vec<String>>>,
}

impl Figures {
    /// What `metrics`, in Prometheus's text format, say about `state`.
    pub(super) fn of(state: TcpState, metrics: &str) -> Self {
        let mut figures = Self::default();
        let time_wait = state == TcpState::TimeWait;
        let mut snapshot = BTreeMap::new();
        for sample in metrics.lines().filter_map(Sample::read) {
            let here = sample.label("state") == state.name();
            let value = sample.value;
            let add = |sums: &mut BTreeMap<String, f64>, label: &str| {
                *sums.entry(sample.label(label).to_owned()).or_default() += value;
            };
            match sample.name {
                "tcpmon_sockets" if here => add(&mut snapshot, "netns"),
                "tcpmon_time_wait_table_sockets" if time_wait => add(&mut figures.now, "netns"),
                "tcpmon_transitions_total" => {
                    if sample.label("new") == state.name() {
                        add(&mut figures.from, "old");
                    }
                    if sample.label("old") == state.name() {
                        add(&mut figures.to, "new");
                    }
                }
                "tcpmon_state_duration_seconds_count" if here => {
                    figures.left.get_or_insert_default().0 = value;
                }
                "tcpmon_state_duration_seconds_sum" if here => {
                    figures.left.get_or_insert_default().1 = value;
                }
                "tcpmon_time_wait_entered_total" if time_wait => {
                    add(&mut figures.owners, "service");
                }
                "tcpmon_time_wait_exited_total" if time_wait => {
                    add(&mut figures.reasons, "reason");
                }
                "tcpmon_sysctl" => {
                    #[expect(clippy::cast_possible_truncation, reason = "sysctls are integers")]
                    let value = value as i64;
                    let name = sample.label("name").to_owned();
                    let values = figures.sysctls.entry(name).or_default();
                    values.entry(value).or_default().push(sample.label("netns").to_owned());
                }
                _ => {}
            }
        }
        if figures.now.is_empty() {
            figures.now = snapshot;
        }
        figures
    }

    /// Writes them below the explanation.
    pub(super) fn write(&self, paper: &mut Paper, lore: &Lore) {
        paper.heading("On this machine, by its daemon");
        let name = upper(lore.state);
        if !self.now.is_empty() {
            let total = self.now.values().sum();
            let apart =
                if self.now.len() > 1 { format!(": {}", shares(&self.now)) } else { String::new() };
            paper.entry("  now           ", &format!("{} in {name}{apart}", whole(total)));
        }
        if !self.from.is_empty() {
            paper.entry("  came from     ", &shares(&states(&self.from)));
        }
        if !self.to.is_empty() {
            paper.entry("  went to       ", &shares(&states(&self.to)));
        }
        if let Some((count, seconds)) = self.left.filter(|(count, _)| *count > 0.0) {
            paper.entry("  lasted        ", &format!("{} on average", span(seconds / count)));
        }
        if !self.owners.is_empty() {
            paper.entry("  by owner      ", &shares(&self.owners));
        }
        if !self.reasons.is_empty() {
            paper.entry("  ended         ", &shares(&self.reasons));
        }
        let settings: Vec<String> = lore
            .sysctls
            .iter()
            .filter_map(|name| self.sysctls.get(*name).map(|values| setting(name, values)))
            .collect();
        if !settings.is_empty() {
            paper.entry("  set           ", &settings.join(", "));
        }
        if *self == Self::default() {
            paper.paragraph(2, "Nothing has been seen of it yet.");
        } else {
            paper.paragraph(2, "Counts are since the daemon began.");
        }
    }
}

/// `tcp_tw_reuse 2`, with the namespaces where there are several values.
fn setting(name: &str, values: &BTreeMap<i64, Vec<String>>) -> String {
    if let (1, Some(value)) = (values.len(), values.keys().next()) {
        return format!("{name} {value}");
    }
    let each: Vec<String> = values
        .iter()
        .map(|(value, places)| match &places[..] {
            [only] => format!("{value} in {}", printable(only)),
            [first, rest @ ..] => {
                format!("{value} in {} and {} more", printable(first), rest.len())
            }
            [] => value.to_string(),
        })
        .collect();
    format!("{name} {}", each.join(" / "))
}

/// The kernel's words for states.
fn states(counts: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let name = |word: &String| match TcpState::from_name(word) {
        Some(state) => upper(state).to_owned(),
        None => word.clone(),
    };
    counts.iter().map(|(word, count)| (name(word), *count)).collect()
}

/// `a 3, b 2, 4 others 7`, the largest first.
fn shares(counts: &BTreeMap<String, f64>) -> String {
    let mut sorted: Vec<_> = counts.iter().filter(|(_, count)| **count > 0.0).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(a.1));
    let rest = sorted.split_off(sorted.len().min(NAMED));
    let mut words: Vec<String> = sorted
        .into_iter()
        .map(|(name, count)| format!("{} {}", printable(name), whole(*count)))
        .collect();
    if !rest.is_empty() {
        let sum = rest.iter().map(|(_, count)| **count).sum();
        words.push(format!("{} others {}", rest.len(), whole(sum)));
    }
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// A count, in groups of three digits.
fn whole(count: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let count = count.max(0.0) as u64;
    grouped(count)
}

/// One line of Prometheus's text format.
#[derive(Debug)]
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// Reads `name{label="value",...} 1`; anything else is `None`.
    fn read(line: &'a str) -> Option<Self> {
        if !line.starts_with("tcpmon_") {
            return None;
        }
        let Some((name, mut rest)) = line.split_once('{') else {
            let (name, value) = line.split_once(' ')?;
            return Some(Self { name, labels: Vec::new(), value: value.parse().ok()? });
        };
        let mut labels = Vec::new();
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next()?.1 {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    (_, other) => value.push(other),
                }
            };
            labels.push((label.trim_start_matches(','), value));
            rest = &quoted[end + 1..];
        }
        let value = rest[1..].trim().parse().ok()?;
        Some(Self { name, labels, value })
    }

    /// The value of a label; empty where there is none.
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}
