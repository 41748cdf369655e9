//! The daemon's report, each interval, and again when the daemon has been away.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    super::{
        columns::printable,
        report::{self, OtherVersion},
    },
    state::Message,
};
use crate::model::report::Report;

/// Pauses between attempts at a daemon that does not answer.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(5);

    /// How long to wait after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = Self::FIRST * 2_u32.pow(self.failures.min(8));
        self.failures += 1;
        pause.min(Self::LONGEST)
    }

    /// It answers.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }
}

/// The daemon's report, now.
pub(super) async fn report(socket: &Path) -> anyhow::Result<Report> {
    report::read(&report::ask(socket).await?)
}

/// Sends a report each interval, until nobody wants one.
pub(super) async fn reports(socket: PathBuf, interval: Duration, messages: mpsc::Sender<Message>) {
    let mut back_off = BackOff::default();
    // The first has been shown already.
    let mut pause = interval;
    loop {
        tokio::time::sleep(pause).await;
        let message = match report(&socket).await {
            Ok(report) => {
                back_off.worked();
                pause = interval;
                Message::Report(Box::new(report))
            }
            Err(error) => {
                pause = back_off.failed();
                Message::Gone(complaint(&error))
            }
        };
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

/// Why there is no report, in one line.
fn complaint(error: &anyhow::Error) -> String {
    let why = format!("{error:#}");
    let why = printable(&why);
    if error.is::<OtherVersion>() {
        why.into_owned()
    } else {
        format!("daemon lost, trying again: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut back_off = BackOff::default();
        let millis: Vec<_> = (0..6).map(|_| back_off.failed().as_millis()).collect();
        assert_eq!(millis, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        for _ in 0..100 {
            back_off.failed();
        }
        back_off.worked();
        assert_eq!(back_off.failed(), BackOff::FIRST);
    }

    #[test]
    fn a_daemon_of_another_version_is_not_called_lost() {
        let other = report::read(br#"{"version":7}"#).expect_err("version 7");
        let text = complaint(&other);
        assert!(text.starts_with("the daemon's report is of version 7, this tcpmon"), "{text}");
        let text = complaint(&anyhow::anyhow!("no\nanswer\u{1b}[2J"));
        assert_eq!(text, "daemon lost, trying again: no?answer?[2J");
    }
}
