//! The values that filters take, one at a time, with what is allowed told in words.
//!
//! The command line and the daemon's query string both read values here, so that they allow the
//! same and complain in the same words.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU64;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tcpmon_common::{Family, TcpState};
use thiserror::Error;

/// What was expected instead of a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {0}")]
pub struct ValueError(pub Cow<'static, str>);

const fn expected(what: &'static str) -> ValueError {
    ValueError(Cow::Borrowed(what))
}

/// Other words for states that people know: RFC 9293's, `ss`'s, `netstat`'s.
///
/// Upper case and `-` for `_` are allowed everywhere and not listed.
pub const STATE_ALIASES: [(&str, TcpState); 8] = [
    ("estab", TcpState::Established),
    ("syn_received", TcpState::SynRecv),
    ("syn_rcvd", TcpState::SynRecv),
    ("fin_wait_1", TcpState::FinWait1),
    ("fin_wait_2", TcpState::FinWait2),
    ("closed", TcpState::Close),
    ("timewait", TcpState::TimeWait),
    ("closewait", TcpState::CloseWait),
];

/// A TCP state by name: as in the JSON, or as the RFC or `ss` spells it.
///
/// # Errors
/// No state has that name; the error lists the states.
pub fn state(text: &str) -> Result<TcpState, ValueError> {
    let word = text.to_ascii_lowercase().replace('-', "_");
    let alias =
        || STATE_ALIASES.into_iter().find(|(name, _)| *name == word).map(|(_, state)| state);
    TcpState::from_name(&word).or_else(alias).ok_or_else(|| {
        let names: Vec<_> = TcpState::ALL.into_iter().map(TcpState::name).collect();
        ValueError(format!("one of {}", names.join(", ")).into())
    })
}

/// A port; 0 stands for a socket that has none yet.
///
/// # Errors
/// Not a number from 0 to 65535.
pub fn port(text: &str) -> Result<u16, ValueError> {
    decimal(text).ok_or(expected("a port number from 0 to 65535"))
}

/// A network in CIDR notation, or one address; host bits may be set and are dropped.
///
/// Networks of IPv4-mapped addresses are turned into the IPv4 network that they map.
///
/// # Errors
/// Neither an address nor a network.
pub fn network(text: &str) -> Result<IpNet, ValueError> {
    let network = text
        .parse::<IpAddr>()
        .map(IpNet::from)
        .ok()
        .or_else(|| text.parse().ok())
        .ok_or(expected("an address or a network, such as 10.0.0.0/8 or 2001:db8::1"))?
        .trunc();
    Ok(match network {
        IpNet::V6(network) => mapped(network).map_or(IpNet::V6(network), IpNet::V4),
        IpNet::V4(_) => network,
    })
}

/// The IPv4 network that `network` maps, if all its addresses are IPv4-mapped ones.
fn mapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let address = network.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()
}

/// A process id.
///
/// # Errors
/// Not a number, 0, or above the kernel's limit of 2^22 (`PID_MAX_LIMIT`,
/// `include/linux/threads.h`).
pub fn pid(text: &str) -> Result<u32, ValueError> {
    const PID_MAX_LIMIT: u32 = 4 * 1024 * 1024;
    decimal(text)
        .filter(|pid| (1..=PID_MAX_LIMIT).contains(pid))
        .ok_or(expected("a process id from 1 to 4194304"))
}

/// A process name; more than 15 bytes may be given, of which the kernel keeps 15.
///
/// # Errors
/// Empty.
pub fn comm(text: &str) -> Result<String, ValueError> {
    if text.is_empty() { Err(expected("a process name")) } else { Ok(text.to_owned()) }
}

/// A service: a systemd unit, a container's short id, or a process name.
///
/// # Errors
/// Empty.
pub fn service(text: &str) -> Result<String, ValueError> {
    if text.is_empty() {
        return Err(expected("a service: a systemd unit, a container or a process name"));
    }
    Ok(text.to_owned())
}

/// A network namespace: `host`, its name, or its inode in decimal.
///
/// # Errors
/// Empty, or with a `/`: names are those under /run/netns, not paths.
pub fn netns(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.contains('/') {
        return Err(expected("a network namespace: host, its name under /run/netns or its inode"));
    }
    Ok(text.to_owned())
}

/// A number of events.
///
/// # Errors
/// Not a number from 1 on.
pub fn count(text: &str) -> Result<NonZeroU64, ValueError> {
    decimal(text).and_then(NonZeroU64::new).ok_or(expected("a number of events, 1 or more"))
}

/// An address family.
///
/// # Errors
/// Neither `ipv4` nor `ipv6`.
pub fn family(text: &str) -> Result<Family, ValueError> {
    Family::ALL.into_iter().find(|family| family.name() == text).ok_or(expected("ipv4 or ipv6"))
}

/// A decimal number without the sign that `FromStr` would allow.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_known_by_every_usual_spelling() {
        for known in TcpState::ALL {
            assert_eq!(state(known.name()), Ok(known));
            assert_eq!(state(&known.name().to_uppercase().replace('_', "-")), Ok(known));
        }
        for (text, expected) in [
            ("ESTAB", TcpState::Established),
            ("FIN-WAIT-1", TcpState::FinWait1),
            ("SYN-RECEIVED", TcpState::SynRecv),
            ("Closed", TcpState::Close),
        ] {
            assert_eq!(state(text), Ok(expected));
        }
        let error = state("open").expect_err("open").to_string();
        assert!(error.starts_with("expected one of established, syn_sent,"), "{error}");
        assert!(error.contains("time_wait"), "{error}");
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0.0.0.0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(expected.to_owned()));
        }
        for text in ["", "10", "10.0.0.0/33", "::/129", "host", "10.0.0.0/", "fe80::1%eth0"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_names_have_bounds() {
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        for text in ["", "-1", "+1", "65536", "http", "1 "] {
            assert!(port(text).is_err(), "{text}");
        }
        assert_eq!((pid("1"), pid("4194304")), (Ok(1), Ok(4_194_304)));
        for text in ["0", "4194305", "x", "-1"] {
            assert!(pid(text).is_err(), "{text}");
        }
        assert_eq!(count("1"), Ok(NonZeroU64::MIN));
        assert!(count("0").is_err());
        assert!(comm("").is_err() && service("").is_err() && netns("").is_err());
        assert!(netns("/run/netns/x").is_err());
        assert_eq!((family("ipv4"), family("ipv6")), (Ok(Family::Ipv4), Ok(Family::Ipv6)));
        assert!(family("4").is_err());
    }
}
