use super::*;
use insta::assert_snapshot;

const FIXTURE: &str = include_str!("fixture.json");

fn fixture() -> Report {
    serde_json::from_str(FIXTURE).expect("a report")
}

fn rendered(report: &Report, width: usize, colour: bool) -> String {
    let mut paper = Paper::new(width, colour);
    text::write(report, &TimeZone::UTC, &mut paper);
    paper.into_text()
}

#[test]
fn narrow() {
    assert_snapshot!("narrow", rendered(&fixture(), 80, false));
}

#[test]
fn wide() {
    assert_snapshot!("wide", rendered(&fixture(), 160, false));
}

#[test]
fn one_namespace() {
    let mut report = fixture();
    report.retain_netns("blue");
    assert_snapshot!("blue", rendered(&report, 80, false));
}

#[test]
fn a_quiet_machine() {
    let report =
        Report { host: "quiet".into(), ts: "2026-11-22T08:00:00Z".into(), ..Report::default() };
    assert_snapshot!("quiet", rendered(&report, 80, false));
}

#[test]
fn lines_fit_and_hostile_names_stay_names() {
    for width in [80, 100, 120, 160, 200] {
        for line in rendered(&fixture(), width, false).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
        }
    }
    // Colour comes from us alone.
    for piece in rendered(&fixture(), 80, true).split('\x1b').skip(1) {
        assert!(
            ["[0m", "[1m", "[2m", "[32m", "[33m", "[1;31m"].iter().any(|ok| piece.starts_with(ok))
        );
        assert!(!piece.starts_with("[31mil"), "{piece}");
    }
}

#[test]
fn exit_codes_follow_the_worst_alert() {
    let mut report = fixture();
    assert_eq!(code(&report), CRITICAL);
    report.alerts.remove(0);
    assert_eq!(code(&report), WARNING);
    report.alerts.clear();
    assert_eq!(code(&report), DONE);
}

#[test]
fn an_unknown_namespace_is_refused_with_those_known() {
    let report = fixture();
    assert!(known(&report, "host").is_ok());
    let error = known(&report, "green").expect_err("green").to_string();
    assert!(error.ends_with("there are: host, blue"), "{error}");
}

#[test]
fn another_version_is_told_in_one_line_whatever_else_has_changed() {
    let error = read(br#"{"version":2,"alerts":"of another shape"}"#).expect_err("version 2");
    assert!(error.is::<OtherVersion>(), "{error:#}");
    let text = format!("{error:#}");
    assert!(text.starts_with("the daemon's report is of version 2, this tcpmon knows 1: use "));
    assert!(!text.contains('\n'), "{text}");
    assert!(read(b"{}").is_err() && read(FIXTURE.as_bytes()).is_ok());
}
