//! A daemon's /metrics, made up: a host that runs out of ports, until it recovers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Series that say the same whatever happens, with `N` for a number that grows.
const STEADY: &str = r#"
tcpmon_build_info{version="0.1.0",revision="test"} 1
process_start_time_seconds 1700000000
process_cpu_seconds_total N
process_resident_memory_bytes 20000000
tcpmon_transitions_total{family="ipv4",old="established",new="fin_wait1"} N
tcpmon_connections_total{role="active",service="api"} N
tcpmon_state_duration_seconds_bucket{state="close_wait",le="1"} N
tcpmon_state_duration_seconds_bucket{state="close_wait",le="+Inf"} N
tcpmon_sockets{netns="host",family="ipv4",state="established"} 100
tcpmon_time_wait_entered_total{netns="host",service="api"} N
tcpmon_time_wait_exited_total{netns="host",reason="expired"} N
tcpmon_time_wait_sockets{netns="host",service="api",dst="10.0.0.2",dport="5432"} 9500
tcpmon_time_wait_drift{netns="host"} 0
tcpmon_ephemeral_ports{netns="host"} 28232
tcpmon_ephemeral_ports_used{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432",kind="live"} 100
tcpmon_sysctl{netns="host",name="tcp_max_tw_buckets"} 10000
tcpmon_sysctl{netns="host",name="tcp_tw_reuse"} 2
tcpmon_events_lost_total{where="ring"} 0
tcpmon_map_insert_failures_total{flag="--max-sockets"} 0
tcpmon_snapshot_cpu_seconds_total N
tcpmon_snapshot_duration_seconds 0.01
tcpmon_namespaces_unwatched 0
tcpmon_snapshot_lag_seconds 0
tcpmon_probe_run_seconds_total{probe="inet_sock_set_state"} N
tcpmon_probe_runs_total{probe="inet_sock_set_state"} N
"#;

/// What a host says that runs out of ports.
const ILL: &str = r#"
tcpmon_ephemeral_port_utilization_ratio{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432"} 0.99
tcpmon_port_exhaustion_eta_seconds{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432"} 42
tcpmon_connect_port_failures_total{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432",service="api"} N
tcpmon_time_wait_table_sockets{netns="host"} 9500
tcpmon_time_wait_overflow_total{netns="host"} N
tcpmon_alert_firing{alert="TcpCloseWaitLeak",severity="warning",netns="host",src="",dst="",dport=""} 1
"#;

/// And afterwards: counters stand still.
const WELL: &str = r#"
tcpmon_ephemeral_port_utilization_ratio{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432"} 0.10
tcpmon_port_exhaustion_eta_seconds{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432"} +Inf
tcpmon_connect_port_failures_total{netns="host",src="10.0.0.1",dst="10.0.0.2",dport="5432",service="api"} 1000000
tcpmon_time_wait_table_sockets{netns="host"} 95
tcpmon_time_wait_overflow_total{netns="host"} 1000000
tcpmon_alert_firing{alert="TcpCloseWaitLeak",severity="warning",netns="host",src="",dst="",dport=""} 0
"#;

/// Serves the metrics until the test ends.
pub(crate) struct Exporter {
    pub(crate) address: SocketAddr,
    well: Arc<AtomicBool>,
}

impl Exporter {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let state = if is_well.load(Ordering::Relaxed) { WELL } else { ILL };
                let text = format!("{STEADY}{state}")
                    .replace(" N\n", &format!(" {}\n", 10 + number))
                    .replace("\n\n", "\n");
                // A scrape that is broken off is not this side's concern.
                let _ = stream.and_then(|stream| answer(stream, text.trim_start()));
            }
        });
        Self { address, well }
    }

    /// The host is well from now on.
    pub(crate) fn recover(&self) {
        self.well.store(true, Ordering::Relaxed);
    }
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}
