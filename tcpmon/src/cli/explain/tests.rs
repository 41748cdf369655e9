use super::*;
use crate::cli::Arguments;
use clap::Parser as _;
use insta::assert_snapshot;

const METRICS: &str = r#"# HELP tcpmon_sockets x
# TYPE tcpmon_sockets gauge
tcpmon_sockets{netns="host",family="ipv4",state="time_wait"} 11000
tcpmon_time_wait_table_sockets{netns="host"} 28200
tcpmon_time_wait_table_sockets{netns="blue"} 34
tcpmon_transitions_total{family="ipv4",old="fin_wait2",new="time_wait"} 90000
tcpmon_transitions_total{family="ipv6",old="fin_wait2",new="time_wait"} 210
tcpmon_transitions_total{family="ipv4",old="closing",new="time_wait"} 3
tcpmon_transitions_total{family="ipv4",old="time_wait",new="close"} 62000
tcpmon_state_duration_seconds_bucket{state="time_wait",le="+Inf"} 62000
tcpmon_state_duration_seconds_sum{state="time_wait"} 3744800
tcpmon_state_duration_seconds_count{state="time_wait"} 62000
tcpmon_time_wait_entered_total{netns="host",service="worker.service"} 88000
tcpmon_time_wait_entered_total{netns="blue",service="a\"b\\c\nd"} 2213
tcpmon_time_wait_exited_total{netns="host",reason="expired"} 61000
tcpmon_time_wait_exited_total{netns="host",reason="reused"} 1000
tcpmon_sysctl{netns="host",name="tcp_tw_reuse"} 2
tcpmon_sysctl{netns="blue",name="tcp_tw_reuse"} 0
tcpmon_sysctl{netns="host",name="ip_local_port_range_min"} 32768
tcpmon_events_total 1
"#;

fn page(state: TcpState, width: usize, metrics: Option<&str>) -> String {
    let mut paper = Paper::new(width, false);
    let figures = metrics.map(|metrics| Figures::of(state, metrics));
    state_page(&mut paper, lore::of(state), figures.as_ref());
    paper.into_text()
}

fn overview(width: usize) -> String {
    let mut paper = Paper::new(width, false);
    diagram::overview(&mut paper);
    contents(&mut paper);
    paper.into_text()
}

#[test]
fn the_overview() {
    insta::assert_snapshot!("overview", overview(80));
}

#[test]
fn time_wait_with_this_machines_figures() {
    assert_snapshot!("time_wait", page(TcpState::TimeWait, 80, Some(METRICS)));
}

#[test]
fn closing_on_a_wide_terminal() {
    assert_snapshot!("closing_wide", page(TcpState::Closing, 100, None));
}

#[test]
fn a_daemon_that_has_seen_nothing() {
    let text = page(TcpState::Closing, 80, Some(""));
    assert!(text.ends_with("Nothing has been seen of it yet.\n"), "{text}");
}

#[test]
fn everything_fits_80_columns() {
    for state in TcpState::ALL {
        for line in page(state, 80, Some(METRICS)).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
    for line in overview(80).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn every_usual_spelling_is_known_and_others_get_a_suggestion() {
    for word in ["TIME-WAIT", "time_wait", "Time_Wait", "SYN_RCVD", "syn-recv", "CLOSED", "close"] {
        Arguments::try_parse_from(["tcpmon", "explain", word]).expect(word);
    }
    for (word, suggestion) in
        [("tim_wait", "time_wait"), ("fin-wait", "fin_wait1"), ("ESTABLISHD", "established")]
    {
        let error = Arguments::try_parse_from(["tcpmon", "explain", word]).expect_err(word);
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains(&format!("'{suggestion}'")), "{text}");
    }
}
