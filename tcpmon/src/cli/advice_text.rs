//! Advice as text: in the report, and of `tcpmon advise`.

use super::{
    columns::printable,
    paper::{Ink, Paper},
};
use crate::{kernel::netns::HOST, model::report::AdviceRow};

/// Writes pieces of advice, numbered.
pub(super) fn write(advice: &[AdviceRow], paper: &mut Paper) {
    if advice.is_empty() {
        paper.paragraph(2, "Nothing.");
        return;
    }
    for (place, row) in advice.iter().enumerate() {
        // Of most hosts all of it is for the host.
        let title = if ["", HOST].contains(&&*row.netns) {
            printable(&row.title)
        } else {
            let netns = printable(&row.netns);
            format!("{} (network namespace {netns})", printable(&row.title)).into()
        };
        paper.hanging(&format!("  {}. ", place + 1), 5, Ink::Bold, &title);
        if !row.reason.is_empty() {
            paper.paragraph(5, &printable(&row.reason));
        }
        for line in row.command.lines() {
            // A command is copied, so it is not broken.
            paper.line(&format!("       {}", printable(line)));
        }
        for (label, text) in
            [("Effect: ", &row.effect), ("Risk: ", &row.risk), ("Not if: ", &row.unless)]
        {
            if !text.is_empty() {
                paper.entry(&format!("     {label}"), &printable(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_the_hosts_is_named() {
        for (netns, wanted) in [
            ("", "  1. Wait"),
            ("host", "  1. Wait"),
            ("blue", "  1. Wait (network namespace blue)"),
            ("b\nlue", "  1. Wait (network namespace b?lue)"),
        ] {
            let row = AdviceRow {
                netns: netns.to_owned(),
                title: "Wait".to_owned(),
                ..AdviceRow::default()
            };
            let mut paper = Paper::new(80, false);
            write(&[row], &mut paper);
            assert_eq!(paper.into_text().trim_end(), wanted);
        }
    }
}
