//! A load: a client that connects and closes first, at a rate, in a namespace with few ports.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use xtask::lab::{Addresses, Lab};

use super::lab::{self, inside};

/// Where it connects to.
pub(crate) const TO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)), 907);

/// A client in a namespace that connects and closes first, so many times a second.
pub(crate) struct Load {
    /// Connections a second; 0: it ends.
    rate: Arc<AtomicU32>,
    failures: Arc<AtomicU64>,
    /// When the first connect() failed, since `begun`.
    first_failure: Arc<AtomicU64>,
    begun: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(netns: &str, rate: u32) -> Self {
        let begun = Instant::now();
        let rate = Arc::new(AtomicU32::new(rate));
        let (failures, first_failure) = (Arc::default(), Arc::new(AtomicU64::new(u64::MAX)));
        let own = (Arc::clone(&rate), Arc::clone(&failures), Arc::clone(&first_failure));
        let netns = netns.to_owned();
        let thread = thread::spawn(move || {
            inside(&netns, move || connect_and_close(&own.0, &own.1, &own.2, begun));
        });
        Self { rate, failures, first_failure, begun, thread: Some(thread) }
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn first_failure(&self) -> Option<Instant> {
        let at = self.first_failure.load(Ordering::Relaxed);
        (at != u64::MAX).then(|| self.begun + Duration::from_micros(at))
    }

    pub(crate) fn end(&mut self) {
        self.rate.store(0, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.rate.store(0, Ordering::Relaxed);
    }
}

fn connect_and_close(rate: &AtomicU32, failures: &AtomicU64, first: &AtomicU64, begun: Instant) {
    let listener = TcpListener::bind(TO).expect("a port");
    let mut next = begun;
    loop {
        let rate = rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        match TcpStream::connect(TO) {
            Ok(client) => {
                let mut server = listener.accept().expect("a client").0;
                drop(client);
                assert_eq!(server.read(&mut [0]).expect("an end"), 0);
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
                let at = u64::try_from(begun.elapsed().as_micros()).expect("short");
                first.fetch_min(at, Ordering::Relaxed);
                failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A load has a rate: this is it, not a wait for something.
        next += Duration::from_secs(1) / rate;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A lab with so many ports.
pub(crate) fn small(ports: u16, reuse: &str) -> (Lab, String) {
    let lab = lab::open(Addresses::Ipv4);
    let range = format!("20000 {}", 20_000 + ports - 1);
    lab.set_sysctl("ipv4/ip_local_port_range", &range).expect("a sysctl");
    lab.set_sysctl("ipv4/tcp_tw_reuse", reuse).expect("a sysctl");
    let netns = lab.namespaces()[0].name.clone();
    (lab, netns)
}
