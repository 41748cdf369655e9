//! Options about alerts: when they begin and end, and where they are pushed.

use super::Misuse;
use crate::{
    export::alertmanager::Endpoint,
    pressure::thresholds::{Band, Thresholds},
};
use clap::Args;
use std::time::Duration;

/// When alerts begin and end, and who is told.
#[derive(Args, Debug)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// Push alerts to this Alertmanager (http://HOST:PORT), by its v2 API; may be given more than
    /// once, for each member of a cluster
    #[arg(long = "alertmanager.url", value_name = "http://HOST:9093", id = "alertmanager.url")]
    pub alertmanager_url: Vec<Endpoint>,

    /// Part of the ports towards a destination at which TcpPortsNearlyExhausted is a warning
    #[arg(long = "alert.ports-warning", value_name = "RATIO", id = "alert.ports-warning",
          default_value_t = DEFAULTS.ports_warning.raise, value_parser = ratio)]
    pub ports_warning: f64,

    /// The same at which it is critical
    #[arg(long = "alert.ports-critical", value_name = "RATIO", id = "alert.ports-critical",
          default_value_t = DEFAULTS.ports_critical.raise, value_parser = ratio)]
    pub ports_critical: f64,

    /// The same at which TcpPortSearchSlow is told
    #[arg(long = "alert.search-slow", value_name = "RATIO", id = "alert.search-slow",
          default_value_t = DEFAULTS.search_slow.raise, value_parser = ratio)]
    pub search_slow: f64,

    /// Part of tcp_max_tw_buckets at which TcpTimeWaitBucketsNearlyFull is a warning
    #[arg(long = "alert.time-wait-buckets", value_name = "RATIO", id = "alert.time-wait-buckets",
          default_value_t = DEFAULTS.buckets.raise, value_parser = ratio)]
    pub time_wait_buckets: f64,

    /// How far below those a figure must fall for the alert to end
    #[arg(long = "alert.hysteresis", value_name = "RATIO", id = "alert.hysteresis",
          default_value_t = 0.05, value_parser = ratio)]
    pub hysteresis: f64,

    /// Seconds to exhaustion below which TcpPortExhaustionPredicted is raised; it ends above half as
    /// much again
    #[arg(
        long = "alert.predicted",
        value_name = "SECONDS",
        id = "alert.predicted",
        default_value_t = 600
    )]
    pub predicted: u32,

    /// Sockets in CLOSE_WAIT for more than a minute, at least, for TcpCloseWaitLeak
    #[arg(long = "alert.close-wait", value_name = "N", id = "alert.close-wait",
          default_value_t = DEFAULTS.close_wait)]
    pub close_wait: u64,

    /// Seconds for which a figure must hold before an alert is raised; what has failed is raised at
    /// once
    #[arg(long = "alert.for", value_name = "SECONDS", id = "alert.for", default_value_t = 3)]
    pub hold: u32,

    /// Seconds for which it must not hold before the alert is resolved
    #[arg(long = "alert.rest", value_name = "SECONDS", id = "alert.rest", default_value_t = 10)]
    pub rest: u32,

    /// Seconds after the last connect() that was refused, or socket that found the time-wait table
    /// full, after which the alert about it is resolved
    #[arg(
        long = "alert.failure-rest",
        value_name = "SECONDS",
        id = "alert.failure-rest",
        default_value_t = 60
    )]
    pub failure_rest: u32,

    /// Seconds for which sockets in CLOSE_WAIT must have become more and more for TcpCloseWaitLeak
    #[arg(
        long = "alert.growth",
        value_name = "SECONDS",
        id = "alert.growth",
        default_value_t = 120
    )]
    pub growth: u32,
}

const DEFAULTS: Thresholds = Thresholds::DEFAULT;

impl AlertArgs {
    /// Whether they fit together; what does not would be an alert that nobody ever sees, or one
    /// that never ends.
    pub(super) fn check(&self) -> Result<(), Misuse> {
        let (warning, critical) = (self.ports_warning, self.ports_critical);
        if warning > critical {
            return Err(Misuse(format!(
                "--alert.ports-warning {warning} is above --alert.ports-critical {critical}, so \
                 nobody would be warned; lower the one or raise the other"
            )));
        }
        let below = self.hysteresis;
        for (flag, raise) in [
            ("ports-warning", warning),
            ("ports-critical", critical),
            ("search-slow", self.search_slow),
            ("time-wait-buckets", self.time_wait_buckets),
        ] {
            if below >= raise {
                return Err(Misuse(format!(
                    "--alert.hysteresis {below} is not below --alert.{flag} {raise}, so that alert \
                     would never end; lower the one or raise the other"
                )));
            }
        }
        Ok(())
    }
}

impl From<&AlertArgs> for Thresholds {
    fn from(args: &AlertArgs) -> Self {
        let band = |raise: f64| Band { raise, clear: (raise - args.hysteresis).max(0.0) };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let predicted = f64::from(args.predicted);
        Self {
            ports_warning: band(args.ports_warning),
            ports_critical: band(args.ports_critical),
            search_slow: band(args.search_slow),
            predicted_seconds: Band { raise: predicted, clear: predicted * 1.5 },
            buckets: band(args.time_wait_buckets),
            close_wait: args.close_wait,
            hold: seconds(args.hold),
            rest: seconds(args.rest),
            failure: seconds(args.failure_rest),
            growth: seconds(args.growth),
        }
    }
}

/// Reads a part of a whole.
fn ratio(value: &str) -> Result<f64, String> {
    let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        alerts: AlertArgs,
    }

    #[test]
    fn what_nobody_changes_is_as_documented() {
        let args = Command::parse_from(["tcpmon"]).alerts;
        let thresholds = Thresholds::from(&args);
        assert!((thresholds.ports_warning.clear - 0.75).abs() < 1e-9);
        assert_eq!(thresholds.hold, Thresholds::default().hold);
        assert_eq!(thresholds.predicted_seconds, Thresholds::default().predicted_seconds);
        assert_eq!(thresholds.failure, Thresholds::default().failure);
        assert_eq!(thresholds.growth, Thresholds::default().growth);
        assert_eq!(thresholds.rest, Thresholds::default().rest);
        assert!(Command::try_parse_from(["tcpmon", "--alert.ports-warning", "1.5"]).is_err());
    }

    #[test]
    fn thresholds_that_contradict_each_other_are_refused_by_both_names() {
        for (given, flags) in [
            ("", None),
            ("--alert.ports-warning 0.95", None),
            ("--alert.ports-warning 0.96", Some(["ports-warning 0.96", "ports-critical 0.95"])),
            ("--alert.ports-critical 0.7", Some(["ports-warning 0.8", "ports-critical 0.7"])),
            ("--alert.ports-warning 0.97 --alert.ports-critical 0.98", None),
            ("--alert.hysteresis 0.49", None),
            ("--alert.hysteresis 0.5", Some(["hysteresis 0.5", "search-slow 0.5"])),
            ("--alert.search-slow 0.05", Some(["hysteresis 0.05", "search-slow 0.05"])),
            ("--alert.search-slow 0 --alert.hysteresis 0", Some(["hysteresis 0", "search-slow 0"])),
            ("--alert.ports-warning 0.04", Some(["hysteresis 0.05", "ports-warning 0.04"])),
            ("--alert.time-wait-buckets 0.03", Some(["hysteresis 0.05", "time-wait-buckets 0.03"])),
            ("--alert.hysteresis 0", None),
        ] {
            let words = given.split(' ').filter(|word| !word.is_empty());
            let args = Command::parse_from(std::iter::once("tcpmon").chain(words)).alerts;
            let refused = args.check().err().map(|refused| refused.to_string());
            assert_eq!(refused.is_some(), flags.is_some(), "{given}: {refused:?}");
            for flag in flags.into_iter().flatten() {
                let said = refused.as_deref().unwrap_or_default();
                assert!(said.contains(&format!("--alert.{flag}")), "{given}: {said}");
                assert!(!said.contains('\n') && !said.contains("  "), "{said}");
            }
        }
    }
}
