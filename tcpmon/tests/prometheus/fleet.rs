//! Three hosts, each a network namespace with a daemon of its own, and one Prometheus that is asked
//! which of them runs dry first.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use xtask::lab::{self, Addresses, Lab, Options};

use crate::{
    encoded, quick,
    server::{Server, ask, shipped, until},
};

/// Ports that each host has.
const RANGE: &str = "20000 20399";

/// Series that a host with one network namespace has at most, with `--top 50`: docs/alerting.md.
const SERIES: f64 = 1_222.0;

struct Host {
    address: SocketAddr,
    daemon: Child,
    lab: Lab,
    folder: TempDir,
}

impl Host {
    /// With its daemon up. What that listens on is made outside, where Prometheus is, and handed
    /// over as systemd does.
    fn start() -> Self {
        let lab = Lab::open(Options { addresses: Addresses::Ipv4, program: None, narrate: None })
            .expect("a lab");
        lab.set_sysctl("ipv4/ip_local_port_range", RANGE).expect("a sysctl");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let folder = tempfile::tempdir().expect("a folder");
        let netns = format!("--net=/run/netns/{}", lab.namespaces()[0].name);
        // The process number is not known before there is a process.
        let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
        let daemon = Command::new("nsenter")
            .args([&netns, "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_tcpmon")])
            .args(["daemon", "--namespaces=host", "--snapshot-cpu-share=1", "--socket"])
            .arg(folder.path().join("socket"))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(File::create(folder.path().join("log")).expect("a file"))
            .spawn()
            .expect("nsenter, of util-linux");
        let mut host = Self { address, daemon, lab, folder };
        until("a daemon", || {
            let ended = host.daemon.try_wait().expect("a child").is_some();
            assert!(!ended, "{}", fs::read_to_string(host.folder.path().join("log")).expect("log"));
            ask(host.address, "/readyz").filter(|(status, _)| *status == 200)
        });
        host
    }

    /// Opens connections at an even pace until it `is_over`; each leaves its port in TIME_WAIT for a
    /// minute.
    fn load(&self, every: Duration, is_over: &AtomicBool) {
        lab::enter(&self.lab.namespaces()[0].name).expect("to enter the namespace");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 900)).expect("a port");
        let to = listener.local_addr().expect("an address");
        while !is_over.load(Ordering::Relaxed) {
            // Once there is no port left there is none.
            if let Ok(mut client) = TcpStream::connect(to) {
                let (server, _) = listener.accept().expect("a client");
                client.shutdown(Shutdown::Write).expect("an end");
                drop(server);
                let _ = client.read(&mut [0]);
            }
            thread::sleep(every);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn prometheus(hosts: &[Host]) -> Server {
    let targets: Vec<_> = hosts.iter().map(|host| format!("'{}'", host.address)).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [recording.yml]\n\
         scrape_configs: [{{job_name: tcpmon, static_configs: [{{targets: [{}]}}]}}]\n",
        targets.join(", ")
    );
    let recording = quick(&shipped("prometheus/tcpmon.recording.yml"));
    let files = [("prometheus.yml", config.as_str()), ("recording.yml", recording.as_str())];
    Server::start("prometheus", &files, |folder| {
        vec![
            format!("--config.file={}/prometheus.yml", folder.display()),
            format!("--storage.tsdb.path={}/data", folder.display()),
            "--log.level=warn".into(),
        ]
    })
}

/// What a query finds: each host's address and value, in its order.
fn query(prometheus: &Server, asked: &str) -> Vec<(String, f64)> {
    let answer = prometheus.get(&format!("/api/v1/query?query={}", encoded(asked)));
    let rows = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let row = |row: &Value| {
        let value = row["value"][1].as_str()?.parse().ok()?;
        Some((row["metric"]["instance"].as_str()?.to_owned(), value))
    };
    rows.iter().filter_map(row).collect()
}

#[test]
fn prometheus_tells_which_of_three_hosts_runs_dry_first() {
    let hosts = [Host::start(), Host::start(), Host::start()];
    let prometheus = prometheus(&hosts);
    let is_over = AtomicBool::new(false);
    // 400 ports last 50 s, 12 and 24, since each is gone for 60.
    let paces = [125, 30, 60].map(Duration::from_millis);
    thread::scope(|scope| {
        for (host, pace) in hosts.iter().zip(paces) {
            let is_over = &is_over;
            scope.spawn(move || host.load(pace, is_over));
        }
        let wanted = [1, 2, 0].map(|at: usize| hosts[at].address.to_string());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the hosts in the order in which they run dry", || {
                let asked = "sort(instance:tcpmon_port_exhaustion_eta_seconds:min < 600)";
                let rows = query(&prometheus, asked);
                // Once there is none left it is 0, and who was first is not told.
                let is_clear = rows.iter().filter(|(_, left)| *left <= 0.0).count() < 2;
                (is_clear && rows.iter().map(|(host, _)| host).eq(&wanted)).then_some(())
            });
        }));
        is_over.store(true, Ordering::Relaxed);
        found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let series = query(&prometheus, "count by (instance) ({__name__=~\"tcpmon_.*|process_.*\"})");
    eprintln!("series: {series:?}");
    assert_eq!(series.len(), 3, "{series:?}");
    for (_, count) in &series {
        assert!((100.0..=SERIES).contains(count), "{series:?}");
    }
}
