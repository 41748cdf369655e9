//! The filters of `tcpmon tail` on the command line.

use std::ffi::OsStr;
use std::num::NonZeroU64;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command};
use ipnet::IpNet;
use tcpmon_common::TcpState;

use crate::model::filter::Filter;
use crate::model::values;

/// Which transitions to show. Values of one option are alternatives; different options must all
/// match.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Show transitions from or to these states
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = StateParser)]
    pub state: Vec<TcpState>,

    /// Show sockets with one of these ports at either end
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub port: Vec<u16>,

    /// Show sockets with one of these local ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub sport: Vec<u16>,

    /// Show sockets with one of these remote ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = values::port)]
    pub dport: Vec<u16>,

    /// Show sockets with an address in one of these networks at either end
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = values::network)]
    pub addr: Vec<IpNet>,

    /// Show sockets opened by these processes
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    pub pid: Vec<u32>,

    /// Show sockets opened by processes of these names (their first 15 bytes count)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::comm)]
    pub comm: Vec<String>,

    /// Show sockets of these systemd units (.service may be left out), containers or, outside
    /// both, process names
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = values::service)]
    pub service: Vec<String>,

    /// Show sockets in these network namespaces: host, a name under /run/netns, a container's
    /// short id or name, or an inode number
    #[arg(long, value_name = "NETNS", value_delimiter = ',', value_parser = values::netns)]
    pub netns: Vec<String>,

    /// Show IPv4 sockets
    #[arg(short = '4', long)]
    pub ipv4: bool,

    /// Show IPv6 sockets, those with IPv4-mapped addresses included
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// End after N transitions
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub count: Option<NonZeroU64>,
}

/// How much alike a wrong name and a right one must be, from 0 to 1, for a suggestion.
const ALIKE: f64 = 0.8;

/// Reads states in every usual spelling, and lists the plain names in help and complaints.
///
/// clap's own parser of possible values would need each spelling as an alias.
#[derive(Clone)]
pub(super) struct StateParser;

impl TypedValueParser for StateParser {
    type Value = TcpState;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<TcpState, clap::Error> {
        let text = value.to_string_lossy();
        values::state(&text).map_err(|_| {
            let text_of = text.into_owned();
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            let mut tell = |kind, value| error.insert(kind, value);
            let names = TcpState::ALL.map(|state| state.name().to_owned());
            tell(
                ContextKind::InvalidArg,
                ContextValue::String(arg.map_or_else(String::new, Arg::to_string)),
            );
            tell(ContextKind::InvalidValue, ContextValue::String(text_of.clone()));
            if let Some(near) = nearest(&text_of, &names) {
                tell(ContextKind::SuggestedValue, ContextValue::String(near));
            }
            tell(ContextKind::ValidValue, ContextValue::Strings(names.into()));
            error
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(TcpState::ALL.into_iter().map(|state| PossibleValue::new(state.name()))))
    }
}

/// The name that a wrong one was most probably meant to be.
fn nearest(word: &str, names: &[String]) -> Option<String> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let alike = |name: &&String| strsim::jaro_winkler(&word, name);
    // Of equals max_by takes the last, and the first is wanted.
    let best = names.iter().rev().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) > ALIKE).then(|| best.clone())
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        Self {
            states: args.state.into_iter().collect(),
            ports: args.port,
            sports: args.sport,
            dports: args.dport,
            networks: args.addr,
            pids: args.pid,
            comms: args.comm,
            services: args.service,
            netns: args.netns,
            ipv4: args.ipv4,
            ipv6: args.ipv6,
            count: args.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Tail {
        #[command(flatten)]
        filters: FilterArgs,
    }

    fn parse(line: &str) -> Result<Filter, clap::Error> {
        Tail::try_parse_from(std::iter::once("tail").chain(line.split_whitespace()))
            .map(|tail| tail.filters.into())
    }

    #[test]
    fn the_command_line_means_what_the_query_means() {
        for (line, query) in [
            ("", ""),
            ("--state time_wait,FIN-WAIT-2 --state close", "state=close,time_wait,fin_wait2"),
            ("--state TIME-WAIT,estab,Syn_Received", "state=time_wait,established,syn_recv"),
            ("--port 80,443 --port 8080 --sport 1 --dport 2", "port=80,443,8080&sport=1&dport=2"),
            ("--addr 10.0.0.0/8,::1", "addr=10.0.0.0/8&addr=::1"),
            ("--pid 1,2 --comm nginx,chromium-browser", "pid=1,2&comm=nginx,chromium-browser"),
            ("--service api.service --netns host,blue", "service=api.service&netns=host,blue"),
            ("-4", "family=ipv4"),
            ("-6 --count 3", "family=ipv6&count=3"),
            ("-46", "family=ipv4,ipv6"),
        ] {
            assert_eq!(
                parse(line).expect(line),
                Filter::from_query(query).expect(query),
                "{line} against {query}"
            );
        }
    }

    #[test]
    fn bad_values_are_refused_with_2_and_what_is_allowed() {
        for (line, complaint) in [
            ("--state open", "possible values: established, syn_sent,"),
            ("--state open", "'open' for '--state <STATE>'"),
            ("--port http", "'http' for '--port <PORT>': expected a port number from 0 to 65535"),
            ("--sport 65536", "--sport <PORT>"),
            ("--addr 10.0.0.0/33", "expected an address or a network"),
            ("--pid 0", "expected a process id from 1"),
            ("--count 0", "expected a number of events, 1 or more"),
            ("--netns /run/netns/x", "expected a network namespace"),
            ("--count 1 --count 2", "cannot be used multiple times"),
            ("--stat open", "'--stat'"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(complaint), "{error}");
        }
    }
}
