//! Which rows are shown, in which order, and what each is called.

use std::cmp::Ordering;

use super::state::{Sort, State, Tab};
use crate::model::report::{AlertRow, PortsRow, SocketsRow, TimeWaitRow};

impl State {
    /// Names of the rows that can be chosen from, in order: what a row is told by when the next
    /// report has another order. Empty where no row can be chosen.
    pub(super) fn row_names(&self) -> Vec<String> {
        match self.tab {
            Tab::Ports => self
                .ports()
                .iter()
                .map(|row| format!("{} {} {} {}", row.netns, row.src, row.dst, row.dport))
                .collect(),
            Tab::TimeWait => self
                .owners()
                .iter()
                .map(|row| format!("{} {} {} {:?}", row.netns, row.service, row.dst, row.dport))
                .collect(),
            Tab::Sockets => self
                .states()
                .iter()
                .map(|row| format!("{} {} {}", row.netns, row.family, row.state))
                .collect(),
            Tab::Alerts => self
                .alerts()
                .iter()
                .map(|row| {
                    format!(
                        "{} {} {} {} {:?}",
                        row.alert, row.netns, row.service, row.dst, row.dport
                    )
                })
                .collect(),
            Tab::Live => Vec::new(),
        }
    }

    /// Whether the filter lets a row with these words through.
    pub(super) fn lets<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || words.into_iter().any(|word| word.to_lowercase().contains(&wanted))
    }

    /// The destinations that are shown.
    pub(super) fn ports(&self) -> Vec<&PortsRow> {
        let rows = self.report.iter().flat_map(|report| &report.ports);
        let is_wanted = |row: &&PortsRow| {
            let dport = row.dport.to_string();
            let words = [&*row.netns, &row.src, &row.dst, &dport];
            self.lets(words.into_iter().chain(row.owners.iter().map(|it| &*it.service)))
        };
        let eta = |row: &PortsRow| row.eta_s.unwrap_or(f64::INFINITY);
        sorted(rows.filter(is_wanted), |a, b| match self.sort {
            Sort::Most => b.utilization_ratio.total_cmp(&a.utilization_ratio),
            Sort::Fastest => eta(a).total_cmp(&eta(b)),
            Sort::Name => (&a.netns, &a.dst, a.dport).cmp(&(&b.netns, &b.dst, b.dport)),
        })
    }

    /// Who leaves TIME_WAIT.
    pub(super) fn owners(&self) -> Vec<&TimeWaitRow> {
        let rows = self.report.iter().flat_map(|report| &report.time_wait);
        let is_wanted = |row: &&TimeWaitRow| self.lets([&*row.netns, &row.service, &row.dst]);
        sorted(rows.filter(is_wanted), |a, b| match self.sort {
            Sort::Most => b.sockets.cmp(&a.sockets),
            Sort::Fastest => b.entered_per_s.total_cmp(&a.entered_per_s),
            Sort::Name => (&a.service, &a.dst).cmp(&(&b.service, &b.dst)),
        })
    }

    /// Sockets by state; that they grow fast is not known of them.
    pub(super) fn states(&self) -> Vec<&SocketsRow> {
        let rows = self.report.iter().flat_map(|report| &report.sockets);
        let is_wanted = |row: &&SocketsRow| {
            row.sockets > 0 && self.lets([&*row.netns, &row.family, &row.state])
        };
        sorted(rows.filter(is_wanted), |a, b| match self.sort {
            Sort::Most | Sort::Fastest => b.sockets.cmp(&a.sockets),
            Sort::Name => (&a.netns, &a.state).cmp(&(&b.netns, &b.state)),
        })
    }

    /// Alerts, in the daemon's order: the most severe first.
    pub(super) fn alerts(&self) -> Vec<&AlertRow> {
        let rows = self.report.iter().flat_map(|report| &report.alerts);
        rows.filter(|row| {
            self.lets([&*row.alert, &row.netns, &row.service, &row.dst, &row.summary])
        })
        .collect()
    }
}

fn sorted<'a, T>(
    rows: impl Iterator<Item = &'a T>,
    order: impl Fn(&T, &T) -> Ordering,
) -> Vec<&'a T> {
    let mut rows: Vec<&T> = rows.collect();
    // Stable: rows that are equal stay where the daemon has them.
    rows.sort_by(|a, b| order(a, b));
    rows
}
