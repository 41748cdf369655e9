//! What people see of it: `tcpmon tail` in columns.

use xtask::lab::{Addresses, Recipe};

use crate::support::daemon::Daemon;
use crate::support::lab;
use crate::support::tail::Tail;
use crate::support::turn::Turn;

/// The lines of a recipe, without headings.
fn lines_of(recipe: Recipe) -> Vec<String> {
    let turn = Turn::shared();
    let daemon = Daemon::start(&turn, &[]);
    let mut lab = lab::open(Addresses::Ipv4);
    let tail = Tail::start_plain(&daemon, &["--netns", &lab.inodes()[0].to_string()]);
    let done = lab::perform(&mut lab, recipe, 1).expect("any kernel can");
    let mut lines = Vec::new();
    while (lines.len() as u64) < done.shown_transitions() {
        let line = tail.lines.next().expect("tail goes on");
        if !line.starts_with("TIME ") {
            lines.push(line);
        }
    }
    lines
}

/// What stands behind the old state and the arrow.
fn after_arrow<'a>(lines: &'a [String], old: &str, new: &str) -> Vec<&'a str> {
    let parts = lines.iter().filter_map(|line| {
        let (before, after) = line.split_once(" -> ")?;
        (before.trim_end().ends_with(old) && after.starts_with(new)).then_some(after)
    });
    parts.collect()
}

#[test]
fn the_way_in_tells_the_substate_and_the_way_out_the_reason() {
    let lines = lines_of(Recipe::FinTimeoutShort);
    let into = after_arrow(&lines, "FIN_WAIT2", "TIME_WAIT");
    assert!(into.len() == 1 && into[0].ends_with("as FIN_WAIT2"), "{lines:#?}");
    let out = after_arrow(&lines, "TIME_WAIT", "CLOSE");
    assert!(out.len() == 1 && out[0].ends_with("expired"), "{lines:#?}");
}

#[test]
fn what_is_true_time_wait_at_once_needs_no_remark() {
    let lines = lines_of(Recipe::HalfClose);
    let into = after_arrow(&lines, "FIN_WAIT2", "TIME_WAIT");
    let last = into.first().and_then(|rest| rest.split_whitespace().last());
    // The time in the old state.
    assert!(last.is_some_and(|word| word.parse::<f64>().is_ok()), "{lines:#?}");
}
