//! Starting the daemon, telling the world, and ending it within a second.

use super::{
    hub::Hub,
    pipeline::{Health, Limits, Pipeline, PipelineError},
    sampler::Sampler,
    socket::{self, SocketError},
};
use crate::{
    export::{
        Format,
        http::{Access, Backend, Lines, router},
        metrics::Exporter,
        server,
    },
    kernel::{
        netns::own_netns,
        probes::{ProbeError, Scope, TimeWaitMode},
        requirements,
    },
    model::filter::Filter,
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};

/// How often owners are given their names while nobody asks, and the probes' log is read.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether everything still runs.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// What the daemon was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` to serve HTTP on; `:port` is every address.
    pub listen: Vec<String>,
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// How large things may get.
    pub limits: Limits,
    /// Series with a line of their own in families without a natural bound.
    pub top: usize,
    /// Let the kernel measure what the probes cost.
    pub measure: bool,
    /// How the time-wait table is watched.
    pub time_wait: TimeWaitMode,
    /// Watch the tables of all network namespaces, not only of our own.
    pub all_namespaces: bool,
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The pipeline does not.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The Unix socket is not to be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// An address is not to be had.
    #[error("cannot listen on {address}: {cause}; choose another --web.listen-address")]
    Listen {
        /// The address.
        address: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// The runtime would not start.
    #[error("cannot start the daemon: {0}; raise the limits of tasks and of open files")]
    Runtime(#[from] io::Error),
    /// A thread ended that should not have.
    #[error("a thread of the daemon has ended, as the log says; start tcpmon again")]
    Broken,
}

struct Served {
    hub: Arc<Hub>,
    sampler: Arc<Sampler>,
    exporter: Exporter,
    health: Health,
    stopping: watch::Receiver<bool>,
}

impl Backend for Served {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        let sample = self.sampler.sample().map_err(|error| error.to_string())?;
        self.exporter.text(sample).map_err(|error| error.to_string())
    }

    fn healthy(&self) -> Result<(), String> {
        if self.health.is_good() {
            Ok(())
        } else {
            Err("a thread of the daemon has ended: restart tcpmon".to_owned())
        }
    }

    fn ready(&self) -> Result<(), String> {
        if *self.stopping.borrow() {
            return Err("the daemon is ending".to_owned());
        }
        self.healthy()
    }

    fn subscribe(&self, filter: Filter, format: Format) -> Result<Lines, String> {
        let subscription = self.hub.subscribe(filter, format).map_err(|error| error.to_string())?;
        Ok(Box::pin(futures_util::stream::unfold(subscription, |subscription| async {
            let chunk = subscription.next().await?;
            Some((chunk, subscription))
        })))
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
///
/// Where it cannot start; then nothing is left behind.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(daemon(settings));
    runtime.shutdown_background();
    done
}

async fn daemon(settings: &Settings) -> Result<(), DaemonError> {
    // Signals that come while the daemon starts end it as soon as it has.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    // What cannot be helped here comes first, then what can be refused for an everyday reason,
    // and only then the probes.
    requirements::refuse().map_err(ProbeError::from).map_err(PipelineError::from)?;
    let (unix, socket_file) = socket::bind(&settings.socket)?;
    let mut tcp = Vec::new();
    for address in &settings.listen {
        tcp.extend(listen(address).await?);
    }
    let scope = Scope {
        time_wait: settings.time_wait,
        only_netns: if settings.all_namespaces { None } else { Some(own_netns()?) },
    };
    let (mut pipeline, sampler) = Pipeline::start(settings.limits, scope, settings.measure)?;

    let sampler = Arc::new(sampler);
    let (stop, stopping) = watch::channel(false);
    let served = Arc::new(Served {
        hub: Arc::clone(&pipeline.hub),
        sampler: Arc::clone(&sampler),
        exporter: Exporter::new(settings.top, env!("TCPMON_REVISION")),
        health: pipeline.health.clone(),
        stopping: stopping.clone(),
    });
    let full = router(Arc::clone(&served), Access::Full);
    let local = router(Arc::clone(&served), Access::Local);
    let open = router(served, Access::Metrics);
    // Said before anybody can find the routes answering.
    for (address, _) in &tcp {
        log::info!("metrics on http://{address}/metrics");
    }
    log::info!("observing TCP transitions; clients on {}", settings.socket.display());
    let mut servers = vec![server::serve(unix, full, stopping.clone())];
    for (address, listener) in tcp {
        let router = if address.ip().is_loopback() { local.clone() } else { open.clone() };
        servers.push(server::serve(listener, router, stopping.clone()));
    }
    let housekeeping = tokio::spawn(housekeeping(Arc::clone(&sampler), pipeline.log.take()));
    notify(&[sd_notify::NotifyState::Ready]);

    let told = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = failure(&pipeline.health) => Err(DaemonError::Broken),
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    // Nobody may wait for this channel any more, which is fine.
    let _ = stop.send(true);
    housekeeping.abort();
    pipeline.hub.close();
    for server in servers {
        let _ = server.await;
    }
    pipeline.stop();
    drop(socket_file);
    log::info!("the probes are detached");
    told
}

/// Waits until a thread of the pipeline has ended.
async fn failure(health: &Health) {
    while health.is_good() {
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

async fn listen(address: &str) -> Result<Vec<(SocketAddr, TcpListener)>, DaemonError> {
    let refused = |cause| DaemonError::Listen { address: address.to_owned(), cause };
    // As Prometheus' exporters have it: a port alone is every address.
    let everywhere = address.starts_with(':');
    let full = if everywhere { format!("[::]{address}") } else { address.to_owned() };
    let found: Vec<SocketAddr> = full.to_socket_addrs().map_err(refused)?.collect();
    let mut listeners = Vec::new();
    for one in found {
        let mut listener = TcpListener::bind(one).await;
        if everywhere && listener.is_err() {
            // A host without IPv6 has no [::].
            let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, one.port()));
            listener = TcpListener::bind(ipv4).await;
        }
        let listener = listener.map_err(refused)?;
        listeners.push((listener.local_addr().map_err(refused)?, listener));
    }
    Ok(listeners)
}

/// Learns names, and passes on what the probes have to say, now and then.
async fn housekeeping(
    sampler: Arc<Sampler>,
    log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
) {
    let log = Arc::new(Mutex::new(log));
    let mut ticks = tokio::time::interval(HOUSEKEEPING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (sampler, log) = (Arc::clone(&sampler), Arc::clone(&log));
        let work = move || {
            if let Some(log) = log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                log.flush();
            }
            if let Err(error) = sampler.learn_names() {
                log::debug!("{error}");
            }
        };
        // Ends early only if it panics, which has then been said.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

/// Tells systemd, if it waits to be told (`Type=notify`).
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("cannot tell systemd: {error}");
    }
}
