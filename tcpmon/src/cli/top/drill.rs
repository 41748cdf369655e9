//! From a destination to its owners, and from an owner to its sockets.

use form_urlencoded::Serializer;

use crate::{
    export::labels::label,
    model::{
        event::Event,
        report::{PortsRow, Report},
    },
};

/// How far the user has gone into a destination.
#[derive(Clone, Debug)]
pub(super) struct Drill {
    /// The destination, as it was at the latest report that had it.
    pub(super) row: PortsRow,
    /// The owner that is chosen among its owners.
    pub(super) chosen: usize,
    /// The owner whose sockets are shown.
    pub(super) owner: Option<String>,
}

impl Drill {
    /// Into a destination.
    pub(super) fn into(row: PortsRow) -> Self {
        Self { row, chosen: 0, owner: None }
    }

    /// The destination in the latest report; `None`: it is not, or no more, among those in it.
    pub(super) fn find<'a>(&self, report: Option<&'a Report>) -> Option<&'a PortsRow> {
        let mut rows = report.into_iter().flat_map(|report| &report.ports);
        let own = &self.row;
        rows.find(|it| {
            (&it.netns, &it.src, &it.dst, it.dport) == (&own.netns, &own.src, &own.dst, own.dport)
        })
    }

    /// Takes the destination's figures from a new report; the owner that is chosen stays so.
    pub(super) fn renew(&mut self, report: &Report) {
        let Some(row) = self.find(Some(report)).cloned() else { return };
        let before = std::mem::replace(&mut self.row, row);
        if let Some(chosen) = before.owners.get(self.chosen) {
            let place = self.row.owners.iter().position(|it| it.service == chosen.service);
            self.chosen = place.unwrap_or(self.chosen);
        }
    }

    /// Chooses the owner so many rows farther down, or up.
    pub(super) fn choose(&mut self, by: isize) {
        let last = self.row.owners.len().saturating_sub(1);
        self.chosen = self.chosen.min(last).saturating_add_signed(by).min(last);
    }

    /// Which transitions to ask for.
    pub(super) fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("addr", &self.row.dst);
        query.append_pair("dport", &self.row.dport.to_string());
        query.append_pair("netns", &self.row.netns);
        // What the daemon shows of an owner may be another name than the owner's own, and a comma
        // would separate two: such an owner's transitions are picked out here.
        let is_plain =
            |owner: &&str| !owner.contains(',') && *label(Some((*owner).into())) == **owner;
        if let Some(owner) = self.owner.as_deref().filter(is_plain) {
            query.append_pair("service", owner);
        }
        query.finish()
    }

    /// Whether a transition that the query has let through is one of those that are shown.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        self.owner.as_ref().is_none_or(|owner| **owner == *label(event.service.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{event::tests::example, filter::Filter};

    #[test]
    fn the_query_is_one_that_the_daemon_reads_whatever_the_names() {
        let row = PortsRow {
            dst: "2001:db8::2".into(),
            dport: 443,
            netns: "a&b=c%".into(),
            ..PortsRow::default()
        };
        let mut drill = Drill::into(row);
        for (owner, services) in [
            (None, &[][..]),
            (Some("api.service"), &["api.service"]),
            (Some("a&b=c d%"), &["a&b=c d%"]),
            (Some("a,b"), &[]),
            // How the daemon shows an owner that nobody knows.
            (Some("unknown"), &[]),
        ] {
            drill.owner = owner.map(str::to_owned);
            let filter = Filter::from_query(&drill.query()).expect("a filter");
            assert_eq!(
                (&filter.dports[..], &filter.netns[..]),
                (&[443][..], &["a&b=c%".into()][..])
            );
            assert_eq!(filter.networks[0].to_string(), "2001:db8::2/128");
            assert_eq!(filter.services, services);
        }
    }

    #[test]
    fn transitions_of_other_owners_are_left_out() {
        let mut drill = Drill::into(PortsRow::default());
        let nobody = Event { service: None, ..example() };
        for (owner, concerned) in [
            (None, [true, true]),
            (Some("api.service"), [true, false]),
            (Some("unknown"), [false, true]),
        ] {
            drill.owner = owner.map(str::to_owned);
            assert_eq!([&example(), &nobody].map(|event| drill.concerns(event)), concerned);
        }
    }
}
