//! A filter as the query string of `/api/v1/events`, both ways.

use form_urlencoded::Serializer;
use tcpmon_common::Family;
use thiserror::Error;

use super::filter::Filter;
use super::values::{self, ValueError};

/// The parameters that a query may have, as the complaint about others lists them.
const PARAMETERS: &str =
    "state, port, sport, dport, addr, pid, comm, service, netns, family, count, json";

/// Why a query string is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// A parameter has a value that it cannot have.
    #[error("bad value {value:?} of parameter {parameter}: {reason}")]
    Value {
        /// Name of the parameter.
        parameter: String,
        /// The value, one of those separated by commas.
        value: String,
        /// What was expected.
        #[source]
        reason: ValueError,
    },
    /// There is no such parameter.
    #[error("unknown parameter {0:?}: expected {PARAMETERS}")]
    Unknown(String),
    /// A parameter that may be given once is given again.
    #[error("parameter {0} is given more than once: give it once")]
    Repeated(&'static str),
}

impl Filter {
    /// Reads `state=time_wait,close&dport=5432`, percent-encoded or not.
    ///
    /// A parameter may be repeated, and its values may be separated by commas: they are
    /// alternatives. `json` is accepted and changes nothing.
    ///
    /// # Errors
    /// A parameter is not known, or a value is not one it can have.
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let mut filter = Self::default();
        for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
            filter.add(&parameter, &value)?;
        }
        Ok(filter)
    }

    fn add(&mut self, parameter: &str, text: &str) -> Result<(), QueryError> {
        let each = |add: &mut dyn FnMut(&str) -> Result<(), ValueError>| {
            text.split(',').try_for_each(|value| {
                add(value).map_err(|reason| QueryError::Value {
                    parameter: parameter.to_owned(),
                    value: value.to_owned(),
                    reason,
                })
            })
        };
        match parameter {
            "state" => each(&mut |value| values::state(value).map(|it| self.states.insert(it))),
            "port" => each(&mut |value| values::port(value).map(|it| self.ports.push(it))),
            "sport" => each(&mut |value| values::port(value).map(|it| self.sports.push(it))),
            "dport" => each(&mut |value| values::port(value).map(|it| self.dports.push(it))),
            "addr" => each(&mut |value| values::network(value).map(|it| self.networks.push(it))),
            "pid" => each(&mut |value| values::pid(value).map(|it| self.pids.push(it))),
            "comm" => each(&mut |value| values::comm(value).map(|it| self.comms.push(it))),
            "service" => each(&mut |value| values::service(value).map(|it| self.services.push(it))),
            "netns" => each(&mut |value| values::netns(value).map(|it| self.netns.push(it))),
            "family" => each(&mut |value| {
                values::family(value).map(|family| match family {
                    Family::Ipv4 => self.ipv4 = true,
                    Family::Ipv6 => self.ipv6 = true,
                })
            }),
            "count" if self.count.is_some() => Err(QueryError::Repeated("count")),
            "count" => {
                self.count = Some(values::count(text).map_err(|reason| QueryError::Value {
                    parameter: parameter.to_owned(),
                    value: text.to_owned(),
                    reason,
                })?);
                Ok(())
            }
            // The stream is JSON in any case; `tail --json` written as a URL should work.
            "json" => Ok(()),
            _ => Err(QueryError::Unknown(parameter.to_owned())),
        }
    }

    /// The query string that [`Filter::from_query`] reads back; empty for the default.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for state in self.states.iter() {
            query.append_pair("state", state.name());
        }
        for (name, ports) in
            [("port", &self.ports), ("sport", &self.sports), ("dport", &self.dports)]
        {
            for port in ports {
                query.append_pair(name, itoa::Buffer::new().format(*port));
            }
        }
        for network in &self.networks {
            query.append_pair("addr", &network.to_string());
        }
        for pid in &self.pids {
            query.append_pair("pid", itoa::Buffer::new().format(*pid));
        }
        for comm in &self.comms {
            query.append_pair("comm", comm);
        }
        for service in &self.services {
            query.append_pair("service", service);
        }
        for netns in &self.netns {
            query.append_pair("netns", netns);
        }
        for (family, wanted) in [(Family::Ipv4, self.ipv4), (Family::Ipv6, self.ipv6)] {
            if wanted {
                query.append_pair("family", family.name());
            }
        }
        if let Some(count) = self.count {
            query.append_pair("count", itoa::Buffer::new().format(count.get()));
        }
        query.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU64;
    use tcpmon_common::TcpState;

    #[test]
    fn a_query_is_read() {
        let filter = Filter::from_query(
            "state=time_wait,FIN-WAIT-2&state=close&port=80,443&sport=1&dport=2\
             &addr=10.0.0.0/8,2001%3Adb8%3A%3A1&pid=7&comm=a+b&service=api.service\
             &netns=host,4026531840&family=ipv6&count=10&json",
        );
        let expected = Filter {
            states: [TcpState::TimeWait, TcpState::FinWait2, TcpState::Close].into_iter().collect(),
            ports: vec![80, 443],
            sports: vec![1],
            dports: vec![2],
            networks: vec![
                "10.0.0.0/8".parse().expect("network"),
                "2001:db8::1/128".parse().expect("network"),
            ],
            pids: vec![7],
            comms: vec!["a b".into()],
            services: vec!["api.service".into()],
            netns: vec!["host".into(), "4026531840".into()],
            ipv4: false,
            ipv6: true,
            count: NonZeroU64::new(10),
        };
        assert_eq!(filter, Ok(expected));
        assert_eq!(Filter::from_query(""), Ok(Filter::default()));
        assert_eq!(Filter::default().to_query(), "");
    }

    #[test]
    fn complaints_name_the_parameter_the_value_and_what_is_allowed() {
        for (query, complaint) in [
            ("state=open", r#"bad value "open" of parameter state: expected one of established,"#),
            ("port=80,,443", r#"bad value "" of parameter port: expected a port number from 0"#),
            ("addr=10.0.0.0%2F40", r#"bad value "10.0.0.0/40" of parameter addr: expected an a"#),
            ("count=0", r#"bad value "0" of parameter count: expected a number of events, 1 or"#),
            ("count=1&count=2", "parameter count is given more than once"),
            ("family=6", r#"bad value "6" of parameter family: expected ipv4 or ipv6"#),
            ("stat=open", r#"unknown parameter "stat": expected state, port, sport,"#),
            ("&x", r#"unknown parameter "x": expected state"#),
        ] {
            let error = Filter::from_query(query).expect_err(query).to_string();
            assert!(error.starts_with(complaint), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    fn text() -> impl Strategy<Value = String> {
        "[^,\0/]{1,5}"
    }

    prop_compose! {
        fn filter()(
            states in prop::collection::vec(prop::sample::select(TcpState::ALL.to_vec()), 0..4),
            ports in prop::array::uniform3(prop::collection::vec(any::<u16>(), 0..3)),
            networks in prop::collection::vec(
                prop_oneof![
                    any::<std::net::IpAddr>().prop_map(|it| it.to_string()),
                    (any::<std::net::Ipv4Addr>(), 0..=32u8).prop_map(|(a, p)| format!("{a}/{p}")),
                    (any::<std::net::Ipv6Addr>(), 0..=128u8).prop_map(|(a, p)| format!("{a}/{p}")),
                ],
                0..3,
            ),
            pids in prop::collection::vec(1..=4_194_304u32, 0..3),
            names in prop::array::uniform3(prop::collection::vec(text(), 0..3)),
            families in any::<(bool, bool)>(),
            count in any::<u64>(),
        ) -> Filter {
            let [ports, sports, dports] = ports;
            let [comms, services, netns] = names;
            Filter {
                states: states.into_iter().collect(),
                ports,
                sports,
                dports,
                networks: networks.iter().map(|it| values::network(it).expect(it)).collect(),
                pids,
                comms,
                services,
                netns,
                ipv4: families.0,
                ipv6: families.1,
                count: NonZeroU64::new(count),
            }
        }
    }

    proptest! {
        #[test]
        fn a_filter_survives_the_query_string(filter in filter()) {
            prop_assert_eq!(Filter::from_query(&filter.to_query()), Ok(filter));
        }

        #[test]
        fn any_query_is_a_filter_or_a_complaint(query in ".*") {
            if let Ok(filter) = Filter::from_query(&query) {
                prop_assert_eq!(Filter::from_query(&filter.to_query()), Ok(filter));
            }
        }

        #[test]
        fn likely_queries_too(query in "((state|port|addr|comm|netns|count)=[a-z0-9,:./%+]{0,9}&?){0,4}") {
            if let Ok(filter) = Filter::from_query(&query) {
                prop_assert_eq!(Filter::from_query(&filter.to_query()), Ok(filter));
            }
        }
    }
}
