//! What keys and messages do, and pictures of it.

use std::time::Duration;

use jiff::tz::{self, TimeZone};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};
use tcpmon_common::TcpState;

use super::{
    keys::Action,
    state::{LINES, Message, Sort, State, Tab},
    stream::{Streamed, Wanted},
    view,
};
use crate::model::{
    event::{Event, Gap, Line, LossPlace, tests::example},
    report::Report,
};

fn fixture() -> Report {
    serde_json::from_str(include_str!("../report/fixture.json")).expect("a report")
}

/// As the daemon would have it.
fn fed() -> State {
    let mut state = State::new(TimeZone::UTC, Duration::from_secs(1));
    state.take(Message::Report(Box::new(fixture())));
    state
}

fn press(state: &mut State, keys: &str) -> Vec<Action> {
    let code = |letter| match letter {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '\t' => KeyCode::Tab,
        'v' => KeyCode::Down,
        '^' => KeyCode::Up,
        letter => KeyCode::Char(letter),
    };
    keys.chars().map(|key| state.key(KeyEvent::new(code(key), KeyModifiers::NONE))).collect()
}

/// The stream that the last key asked for.
fn wanted(actions: &[Action]) -> Option<Wanted> {
    match actions.last() {
        Some(Action::Stream(wanted)) => Some(wanted.clone()),
        _ => None,
    }
}

/// Says something on the stream that is wanted now.
fn say(state: &mut State, said: Streamed) {
    state.take(Message::Stream(state.stream.wanted.generation, said));
}

fn lines(count: u64) -> Streamed {
    let line = |cookie| Line::Event(Event { cookie, ..example() });
    Streamed::Lines((1..=count).map(line).collect())
}

fn picture(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| view::draw(frame, state, true)).expect("a picture");
    terminal.backend().to_string()
}

#[test]
fn keys_do_what_the_help_says() {
    let mut state = fed();
    for (keys, tab, selected) in [
        ("2", Tab::TimeWait, 0),
        ("1v", Tab::Ports, 1),
        ("vvvvvvvvvvvvv", Tab::Ports, fed().ports().len() - 1),
        ("^^^^^^^^^^^^^^", Tab::Ports, 0),
        ("\t\t\t\t\t", Tab::Ports, 0),
        ("5v", Tab::Live, 0),
    ] {
        press(&mut state, keys);
        assert_eq!((state.tab, state.selected), (tab, selected), "{keys:?}");
    }
    press(&mut state, "? s");
    assert!(state.help && state.paused);
    assert_eq!(state.sort, Sort::Fastest);
    assert_eq!(press(&mut state, "p"), [Action::None]);
    assert!(!state.paused);
    assert_eq!(press(&mut state, "q"), [Action::Quit]);
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    assert_eq!(state.key(control('c')), Action::Quit);
    assert_eq!(state.key(control('l')), Action::Redraw);
}

#[test]
fn a_filter_is_typed_and_taken_back() {
    let mut state = fed();
    let all = state.ports().len();
    press(&mut state, "/worker\n");
    assert!(!state.typing && (1..all).contains(&state.ports().len()), "{:?}", state.filter);
    // Letters are letters while it is typed.
    press(&mut state, "/q\u{1b}");
    assert_eq!((state.filter.as_str(), state.ports().len()), ("", all));
}

#[test]
fn from_a_destination_to_its_owners_to_their_sockets_and_back() {
    let mut state = fed();
    let asked = wanted(&press(&mut state, "\n")).expect("a stream");
    assert_eq!(asked.query.as_deref(), Some("addr=10.0.0.2&dport=5432&netns=host"));
    // The second of its owners.
    let asked = wanted(&press(&mut state, "v\n")).expect("a stream");
    assert_eq!(
        asked.query.as_deref(),
        Some("addr=10.0.0.2&dport=5432&netns=host&service=api.service")
    );
    say(&mut state, Streamed::Begun);
    let stranger = Line::Event(Event { service: None, ..example() });
    say(&mut state, Streamed::Lines(vec![Line::Event(example()), stranger]));
    assert_eq!((state.sockets.count().0, state.stream.lines.len()), (1, 1));
    let asked = wanted(&press(&mut state, "\u{1b}")).expect("a stream");
    assert_eq!(asked.query.as_deref(), Some("addr=10.0.0.2&dport=5432&netns=host"));
    assert!(state.sockets.is_empty() && state.stream.lines.is_empty());
    assert_eq!(wanted(&press(&mut state, "\u{1b}")).expect("no stream").query, None);
    assert!(state.drilled.is_none());
}

#[test]
fn lines_of_an_earlier_stream_are_dropped() {
    let mut state = fed();
    let all = wanted(&press(&mut state, "5")).expect("a stream").generation;
    state.take(Message::Stream(all, lines(3)));
    assert_eq!(state.stream.lines.len(), 3);
    press(&mut state, "1\n");
    state.take(Message::Stream(all, lines(3)));
    state.take(Message::Stream(all, Streamed::Broken("gone".into())));
    assert!(state.stream.lines.is_empty() && state.stream.trouble.is_none());
    say(&mut state, lines(2));
    assert_eq!(state.stream.lines.len(), 2);
}

#[test]
fn a_stream_is_open_only_while_it_is_looked_at() {
    let mut state = fed();
    for (keys, query) in [
        ("2", None),
        ("3", None),
        ("4", None),
        ("5", Some(Some(""))),
        // Held still, it stays; help and filter change nothing.
        ("p?\u{1b}/a\n", None),
        ("p", None),
        ("4", Some(None)),
        ("1", None),
        ("\n", Some(Some("addr=10.0.0.2&dport=5432&netns=host"))),
    ] {
        let asked = wanted(&press(&mut state, keys)).map(|wanted| wanted.query);
        assert_eq!(asked, query.map(|query| query.map(str::to_owned)), "{keys:?}");
    }
}

#[test]
fn what_was_drilled_into_stays_with_its_tab() {
    let mut state = fed();
    press(&mut state, "\n");
    // All transitions there, not those of the destination.
    assert_eq!(wanted(&press(&mut state, "5")).expect("a stream").query.as_deref(), Some(""));
    say(&mut state, lines(1));
    assert_eq!(state.stream.lines.len(), 1);
    // Esc is about what is looked at.
    press(&mut state, "\u{1b}");
    let asked = wanted(&press(&mut state, "1")).expect("a stream");
    assert!(asked.query.is_some_and(|query| query.contains("5432")));
    // Its number once more leads back to the destinations.
    assert_eq!(wanted(&press(&mut state, "1")).expect("no stream").query, None);
    assert!(state.drilled.is_none());
}

#[test]
fn what_is_paused_stays_and_a_lost_daemon_is_told() {
    let mut state = fed();
    press(&mut state, "5");
    say(&mut state, lines(2));
    press(&mut state, " ");
    say(&mut state, lines(7));
    state.take(Message::Report(Box::default()));
    state.take(Message::Gone("no daemon".into()));
    assert_eq!((state.stream.lines.len(), state.stream.passed), (2, 7));
    assert_eq!(state.report.as_ref().map(|report| report.ports.len()), Some(4));
    assert_eq!((state.time_wait.latest(), state.gone.as_deref()), (28_655, Some("no daemon")));
    // Elsewhere and back: still held.
    press(&mut state, "25");
    assert_eq!(state.stream.lines.len(), 2);
    press(&mut state, " ");
    assert_eq!((state.stream.passed, state.time_wait.latest()), (0, 0));
    say(&mut state, lines(2 * LINES as u64));
    assert_eq!(state.stream.lines.len(), LINES);
}

#[test]
fn lost_events_are_counted_once() {
    let mut state = fed();
    press(&mut state, "5");
    let gap = Gap { lost: 120, place: LossPlace::Subscriber };
    say(&mut state, Streamed::Lines(vec![Line::Gap(gap)]));
    assert_eq!(state.lost(), 120);
    let shown = picture(&state, 80, 24);
    assert!(shown.contains("120 events lost to streams"), "{shown}");
    assert!(shown.contains("-- 120 events lost here: this reader was too slow --"), "{shown}");
}

#[test]
fn a_chosen_row_stays_chosen_when_the_order_changes() {
    let mut state = fed();
    press(&mut state, "v");
    let chosen = state.ports()[1].dst.clone();
    let mut report = fixture();
    report.ports[1].utilization_ratio = 2.0;
    state.take(Message::Report(Box::new(report)));
    assert_eq!((state.selected, &state.ports()[0].dst), (0, &chosen));
    state.take(Message::Report(Box::default()));
    assert_eq!(state.selected, 0);
}

#[test]
fn a_destination_that_has_gone_is_shown_as_it_was() {
    let mut state = fed();
    press(&mut state, "\nv");
    let mut report = fixture();
    report.ports[0].live = 7;
    // The owner that is chosen stays so when the owners' order changes.
    report.ports[0].owners.reverse();
    state.take(Message::Report(Box::new(report)));
    state.take(Message::Report(Box::default()));
    let shown = picture(&state, 100, 24);
    assert!(shown.contains("as it was") && shown.contains("# live 7 "), "{shown}");
    let query = wanted(&press(&mut state, "\n")).and_then(|wanted| wanted.query);
    assert!(query.is_some_and(|query| query.ends_with("service=api.service")));
}

#[test]
fn ports_narrow_and_wide() {
    insta::assert_snapshot!("ports_80", picture(&fed(), 80, 24));
    insta::assert_snapshot!("ports_160", picture(&fed(), 160, 30));
}

#[test]
fn every_other_pane() {
    let mut state = fed();
    for tab in ["2", "3", "4", "5"] {
        press(&mut state, tab);
        if tab == "5" {
            say(&mut state, Streamed::Begun);
            say(&mut state, lines(2));
            let exhausted = Event {
                port_exhausted: true,
                sport: 0,
                old: TcpState::SynSent,
                new: TcpState::Close,
                passage: None,
                ..example()
            };
            let ipv6 = Event {
                saddr: "2001:db8::1".parse().expect("an address"),
                daddr: "2001:db8:0:1234:5678:9abc:def0:2".parse().expect("an address"),
                ..example()
            };
            say(&mut state, Streamed::Lines(vec![Line::Event(exhausted), Line::Event(ipv6)]));
            insta::assert_snapshot!("live_120", picture(&state, 120, 24));
        }
        insta::assert_snapshot!(format!("pane_{tab}_80"), picture(&state, 80, 24));
    }
    press(&mut state, "?");
    insta::assert_snapshot!("help", picture(&state, 80, 24));
}

#[test]
fn a_destination_its_sockets_and_what_is_wrong() {
    let mut state = fed();
    press(&mut state, "\n");
    say(&mut state, Streamed::Broken("no tcpmon daemon answers".into()));
    state.take(Message::Gone("daemon lost, trying again: no tcpmon daemon answers".into()));
    insta::assert_snapshot!("drilled", picture(&state, 80, 24));
    state.take(Message::Report(Box::new(fixture())));
    press(&mut state, "v\n");
    say(&mut state, Streamed::Begun);
    insta::assert_snapshot!("no_sockets_yet", picture(&state, 80, 24));
    say(&mut state, lines(2));
    insta::assert_snapshot!("sockets", picture(&state, 100, 24));
}

#[test]
fn times_are_local_ones() {
    let mut state = fed();
    state.zone = TimeZone::fixed(tz::offset(2));
    press(&mut state, "5");
    say(&mut state, lines(1));
    let shown = picture(&state, 80, 24);
    assert!(shown.contains("worker-1, 10:00:00 ") && shown.contains("10:00:00.123 "), "{shown}");
}

#[test]
fn without_colours_there_is_none() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
    for (colour, expected) in [(true, true), (false, false)] {
        terminal.draw(|frame| view::draw(frame, &fed(), colour)).expect("a picture");
        let cells = &terminal.backend().buffer().content;
        let coloured = cells.iter().any(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset));
        assert_eq!(coloured, expected);
    }
}

#[test]
fn no_terminal_is_too_small_and_foreign_names_are_harmless() {
    let mut state = fed();
    for keys in ["1", "\n", "v\n", "2", "3", "4", "5", "?", "p"] {
        press(&mut state, keys);
        let evil = Event { service: Some("a\u{1b}[2J\u{202e}".into()), ..example() };
        say(&mut state, Streamed::Lines(vec![Line::Event(evil)]));
        for (width, height) in [(1, 1), (5, 3), (20, 8), (500, 2), (112, 40), (111, 12)] {
            let shown = picture(&state, width, height);
            assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
        }
    }
}
