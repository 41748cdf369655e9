//! `tcpmon daemon`.

use super::alert_args::AlertArgs;
use super::{DEFAULT_SOCKET, Misuse};
use crate::{
    daemon::{
        pipeline::Limits,
        run::{self, DaemonError},
        settings::Settings,
    },
    kernel::probes::{MapSizes, TimeWaitMode},
    pressure::thresholds::Thresholds,
};
use clap::{Args, ValueEnum, value_parser};
use log::LevelFilter;
use std::{ops::RangeInclusive, path::PathBuf};
use tcpmon_common::{MAX_CELLS, MAX_SOCKETS};

/// Rows or series that a table without a bound of its own has.
pub(super) const DEFAULT_TOP: usize = 50;

/// Options of the daemon; each is a key of the configuration file too.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// Read options from this file [default: /etc/tcpmon/tcpmon.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve HTTP on this address; may be repeated. `:PORT` is every address of the host
    #[arg(
        long = "web.listen-address",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:10066",
        value_parser = listen_address
    )]
    pub listen_address: Vec<String>,

    /// Ask whoever comes over TCP for what this file says: TLS, client certificates, passwords, in
    /// the format of Prometheus' exporter-toolkit. It is read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,

    /// Serve `tcpmon tail` and the other commands on this Unix socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Give that many services and destinations series of their own; add up the others
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TOP)]
    pub top: usize,

    /// How TIME_WAIT is watched: `exact`, by the timers of its sockets, each of which is seen to
    /// come and go; `sampled`, by snapshots and the kernel's own counters alone, without probes on
    /// timers
    #[arg(long, value_name = "MODE", default_value = "exact")]
    pub time_wait: TimeWaitMode,

    /// Whose TIME_WAIT sockets and levels are watched: `all` network namespaces, or that of the
    /// `host` alone, for which fewer capabilities will do
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub namespaces: Namespaces,

    /// When alerts begin and end.
    #[command(flatten)]
    pub alerts: AlertArgs,

    /// How large things may get.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Let the kernel measure what the probes cost, which costs some 20 ns an event itself
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub probe_stats: bool,

    /// Least important lines to write to the log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = value_parser!(LevelFilter))]
    pub log_level: LevelFilter,
}

/// Which network namespaces are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Namespaces {
    /// Every one of the machine
    All,
    /// The one that the daemon runs in
    Host,
}

/// How large things may get.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of the probes and the streams")]
pub struct LimitArgs {
    /// Bytes of the rings between kernel and daemon, all together
    #[arg(long, value_name = "BYTES", default_value_t = MapSizes::default().ring_bytes,
          value_parser = within(4096..=1 << 30))]
    pub ring_bytes: u32,

    /// Sockets whose owner and state are kept at a time
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().sockets,
          value_parser = within(1..=MAX_SOCKETS))]
    pub max_sockets: u32,

    /// Listening sockets whose owner is kept at a time
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().listeners,
          value_parser = within(1..=1 << 26))]
    pub max_listeners: u32,

    /// Owners whose connections are counted apart
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().services,
          value_parser = within(1..=1 << 20))]
    pub max_services: u32,

    /// Destinations, with their owners, whose port failures are counted apart
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().failures,
          value_parser = within(1..=1 << 20))]
    pub max_failures: u32,

    /// Accepted sockets that wait for their second transition (TCP Fast Open)
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().embryos,
          value_parser = within(1..=1 << 20))]
    pub max_embryos: u32,

    /// Network namespaces that are watched, and whose TIME_WAIT sockets are counted
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().namespaces,
          value_parser = within(1..=1 << 20))]
    pub max_namespaces: u32,

    /// Groups of sockets in TIME_WAIT, by destination and owner, that are counted apart
    #[arg(long, value_name = "N", default_value_t = MapSizes::default().destinations,
          value_parser = within(1..=MAX_CELLS))]
    pub max_destinations: u32,

    /// Share of one CPU that snapshots of all sockets may take: 0, none, to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub snapshot_cpu_share: f64,

    /// Bytes that may wait for a stream that reads slowly; then it loses events, and is told
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20,
          value_parser = within(4096..=1 << 30))]
    pub subscriber_queue_bytes: u32,
}

impl From<&LimitArgs> for Limits {
    fn from(args: &LimitArgs) -> Self {
        Self {
            maps: MapSizes {
                ring_bytes: args.ring_bytes,
                sockets: args.max_sockets,
                listeners: args.max_listeners,
                services: args.max_services,
                failures: args.max_failures,
                embryos: args.max_embryos,
                namespaces: args.max_namespaces,
                destinations: args.max_destinations,
            },
            queue_bytes: args.subscriber_queue_bytes as usize,
            snapshot_cpu_share: args.snapshot_cpu_share,
        }
    }
}

/// Runs the daemon until it is told to end.
///
/// # Errors
///
/// Where it cannot start.
pub fn run(args: DaemonArgs) -> anyhow::Result<()> {
    super::log::init(args.log_level);
    args.alerts.check()?;
    let reread = || {
        let args = super::daemon_args().map_err(|error| error.to_string())?;
        args.alerts.check().map_err(|error| error.to_string())?;
        log::set_max_level(args.log_level);
        Ok(Settings::from(args))
    };
    run::run(&Settings::from(args), Box::new(reread)).map_err(|error| match error {
        DaemonError::Web(error) => Misuse(error.to_string()).into(),
        other => other.into(),
    })
}

impl From<DaemonArgs> for Settings {
    fn from(args: DaemonArgs) -> Self {
        Self {
            limits: Limits::from(&args.limits),
            listen: args.listen_address,
            web_config: args.web_config_file,
            socket: args.socket,
            top: args.top,
            measure: args.probe_stats,
            time_wait: args.time_wait,
            thresholds: Thresholds::from(&args.alerts),
            alertmanagers: args.alerts.alertmanager_url,
            all_namespaces: args.namespaces == Namespaces::All,
        }
    }
}

/// Reads a whole number of that range.
fn within(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |value| {
        value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            format!("expected a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Reads the share of a CPU.
fn share(value: &str) -> Result<f64, String> {
    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Checks the shape; whether the host is known is found out when it is listened on.
fn listen_address(value: &str) -> Result<String, String> {
    let port = value.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(value.to_owned()),
        _ => Err("expected HOST:PORT, [IPV6]:PORT or :PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let argv = [&["tcpmon", "daemon"], flags].concat();
        let args = crate::cli::daemon_args_of(argv.into_iter().map(Into::into).collect());
        args.expect("options").into()
    }

    #[test]
    fn every_option_that_takes_a_restart_is_named_when_it_changes() {
        const AT_ONCE: [&str; 3] = ["config", "log-level", "help"];
        let value = |key: &str| match key {
            "web.listen-address" => "127.0.0.1:1",
            "alertmanager.url" => "http://127.0.0.1:9093",
            "web.config.file" | "socket" => "/elsewhere",
            "time-wait" => "sampled",
            "namespaces" => "host",
            "probe-stats" => "false",
            "ring-bytes" | "subscriber-queue-bytes" => "65536",
            "snapshot-cpu-share" | "alert.search-slow" => "0.4",
            "alert.hysteresis" => "0.1",
            "alert.ports-critical" => "0.99",
            _ if key.starts_with("alert.ports") || key == "alert.time-wait-buckets" => "0.7",
            _ => "77",
        };
        let before = settings(&[]);
        assert_eq!(before.changed(&before.clone()), [""; 0]);
        let command = DaemonArgs::augment_args(clap::Command::new("daemon"));
        for key in command.get_arguments().filter_map(clap::Arg::get_long) {
            if AT_ONCE.contains(&key) {
                continue;
            }
            let now = settings(&[&format!("--{key}"), value(key)]);
            let named = if key.starts_with("alert.") { "alert.*" } else { key };
            assert_eq!(before.changed(&now), [named], "{key}");
        }
    }

    #[test]
    fn listen_addresses_have_a_port() {
        for good in ["127.0.0.1:10066", "[::1]:0", ":10066", "localhost:80"] {
            assert!(listen_address(good).is_ok(), "{good}");
        }
        for bad in
            ["", "10066", "localhost", "localhost:", "localhost:http", "::1", "1.2.3.4:70000"]
        {
            // An IPv6 address without brackets looks like a host and a port; its last group may
            // even be a number. The system then says that it knows no such host.
            assert!(listen_address(bad).is_err() || bad == "::1", "{bad}");
        }
    }
}
