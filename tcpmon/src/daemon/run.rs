//! Starting the daemon, telling the world, and ending it within a second.

use super::{
    alerting::Alerting,
    heart::Pulse,
    hub::Hub,
    pipeline::{Health, Pipeline, PipelineError},
    pushing, report, runtime,
    sampler::Sampler,
    settings::Settings,
    socket::{self, SocketError},
    systemd::{self, notify},
    watch::Watch,
};
use crate::{
    export::{
        Format,
        alertmanager::AlertPusher,
        http::{Access, Backend, Document, Lines, router},
        metrics::Exporter,
        recent::Recent,
        server,
        web::{Web, WebError},
    },
    kernel::{
        netns::own_netns,
        privileges::{self, Role},
        probes::{ProbeError, Scope},
        requirements,
    },
    model::filter::Filter,
};
use serde_json::json;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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

/// How long an Alertmanager may take to be told that all alerts have ended, when the daemon does.
const PUSH_PATIENCE: Duration = Duration::from_millis(400);

/// How often ports are looked at while nobody asks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long housekeeping may take.
const HOUSEKEEPING_PATIENCE: Duration = Duration::from_mins(2);

/// How often it is looked whether everything still runs.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// Reads the configuration again; puts into force by itself what the daemon knows nothing of. An
/// error is one line.
pub type Reread = Box<dyn Fn() -> Result<Settings, String> + Send + Sync>;

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
    /// What systemd hands over will not do.
    #[error("cannot take the sockets from systemd: {cause}; see tcpmon.socket")]
    Activation {
        /// Why.
        cause: io::Error,
    },
    /// What is to be asked of whoever comes over TCP will not do.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The runtime would not start.
    #[error("cannot start the daemon: {0}; raise the limits of tasks, memory and open files")]
    Runtime(io::Error),
    /// A thread ended that should not have.
    #[error("a thread of the daemon has ended, as the log says; start tcpmon again")]
    Broken,
}

impl From<io::Error> for DaemonError {
    fn from(cause: io::Error) -> Self {
        Self::Runtime(cause)
    }
}

struct Served {
    hub: Arc<Hub>,
    watch: Arc<Watch>,
    top: usize,
    exporter: Exporter,
    health: Health,
    stopping: watch::Receiver<bool>,
    pusher: Option<Arc<AlertPusher>>,
    turned_away: Arc<AtomicU64>,
    /// The last report for those who do not mind that it is not of this moment.
    report: Recent<Vec<u8>>,
}

impl Backend for Served {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        let mut look = self.watch.look().map_err(|error| error.to_string())?;
        look.sample.alertmanagers = self.pusher.as_ref().map_or_else(Vec::new, |it| it.counts());
        look.sample.turned_away = self.turned_away.load(Ordering::Relaxed);
        self.exporter.text(look.sample).map_err(|error| error.to_string())
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

    fn document(&self, which: Document, max_age: Duration) -> Result<Vec<u8>, String> {
        match which {
            Document::Report => self.report.get(max_age, || self.make(which)),
            // Of what is wrong nothing old will do.
            Document::Alerts | Document::Advice => self.make(which),
        }
    }

    fn subscribe(&self, filter: Filter, format: Format) -> Result<Lines, String> {
        let subscription = self.hub.subscribe(filter, format).map_err(|error| error.to_string())?;
        Ok(Box::pin(futures_util::stream::unfold(subscription, |subscription| async {
            let chunk = subscription.next().await?;
            Some((chunk, subscription))
        })))
    }
}

impl Served {
    fn make(&self, which: Document) -> Result<Vec<u8>, String> {
        let look = self.watch.look().map_err(|error| error.to_string())?;
        let json = match which {
            Document::Report => {
                serde_json::to_vec(&report::report(&look, report::Bounds { top: self.top }))
            }
            Document::Alerts => {
                serde_json::to_vec(&json!({ "ts": look.ts, "alerts": report::alerts(&look) }))
            }
            Document::Advice => {
                serde_json::to_vec(&json!({ "ts": look.ts, "advice": look.assessment.advice }))
            }
        };
        json.map_err(|error| error.to_string())
    }
}

/// Runs the daemon until SIGTERM or SIGINT. On SIGHUP, `reread` is called, and files that the
/// configuration names are read again.
///
/// # Errors
///
/// Where it cannot start; then nothing is left behind.
pub fn run(settings: &Settings, reread: Reread) -> Result<(), DaemonError> {
    few_arenas();
    // Before anything else takes a descriptor.
    let activated = systemd::sockets()?;
    privileges::plan(settings.all_namespaces).map_err(io::Error::from)?;
    // This thread loads the probes; the others never need what that takes.
    let runtime = runtime::start()?;
    let done = runtime.block_on(daemon(settings, activated, reread));
    runtime.shutdown_background();
    done
}

/// Has glibc keep few heaps: it makes one for each thread that allocates at the same time as
/// others, up to eight a CPU, and memory that was freed in one is of no use to another.
fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator's, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

async fn daemon(
    settings: &Settings,
    activated: Vec<(SocketAddr, std::net::TcpListener)>,
    reread: Reread,
) -> Result<(), DaemonError> {
    // Signals that come while the daemon starts end it as soon as it has.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    // What cannot be helped here comes first, then what can be refused for an everyday reason,
    // and only then the probes.
    requirements::refuse().map_err(ProbeError::from).map_err(PipelineError::from)?;
    let web = Web::from_file(settings.web_config.as_deref())?;
    let (unix, socket_file) = socket::bind(&settings.socket)?;
    let mut tcp = Vec::new();
    if activated.is_empty() {
        for address in &settings.listen {
            tcp.extend(listen(address).await?);
        }
    }
    for (address, listener) in activated {
        tcp.push((address, TcpListener::from_std(listener)?));
    }
    let scope = Scope {
        time_wait: settings.time_wait,
        only_netns: if settings.all_namespaces { None } else { Some(own_netns()?) },
    };
    let (mut pipeline, sampler) = Pipeline::start(settings.limits, scope, settings.measure)?;
    runtime::has_room()?;
    privileges::shed(Role::Other);

    let sampler = Arc::new(sampler);
    let (stop, stopping) = watch::channel(false);
    let pusher = pushing::start(settings, &tcp);
    let push = pusher.as_ref().map(pushing::to);
    let watch = Watch::new(Arc::clone(&sampler), settings.thresholds, Alerting::new(push));
    let watch = Arc::new(watch);
    let served = Arc::new(Served {
        hub: Arc::clone(&pipeline.hub),
        watch: Arc::clone(&watch),
        top: settings.top,
        exporter: Exporter::new(settings.top, env!("TCPMON_REVISION")),
        health: pipeline.health.clone(),
        stopping: stopping.clone(),
        pusher: pusher.clone(),
        turned_away: unix.turned_away(),
        report: Recent::default(),
    });
    let full = router(Arc::clone(&served), Access::Full, &web);
    let local = router(Arc::clone(&served), Access::Local, &web);
    let open = router(served, Access::Metrics, &web);
    // Said before anybody can find the routes answering.
    for (address, _) in &tcp {
        let scheme = if web.is_tls() { "https" } else { "http" };
        log::info!("metrics on {scheme}://{address}/metrics");
    }
    log::info!("observing TCP transitions; clients on {}", settings.socket.display());
    let mut servers = vec![server::serve(unix, full, None, stopping.clone())];
    for (address, listener) in tcp {
        let router = if address.ip().is_loopback() { local.clone() } else { open.clone() };
        servers.push(server::serve(listener, router, Some(Arc::clone(&web)), stopping.clone()));
    }
    let pulse = Pulse::default();
    let (mut heart, reader) = pipeline.heart(systemd::patience());
    heart.add("housekeeping", pulse.clone(), HOUSEKEEPING_PATIENCE);
    let mut housekeeping =
        tokio::spawn(housekeeping(Arc::clone(&sampler), pipeline.log.take(), pulse));
    let watchdog = tokio::spawn(systemd::watchdog(heart, reader, pipeline.health.clone()));
    let mut watching = tokio::spawn(watching(watch));
    notify(&[sd_notify::NotifyState::Ready]);

    let told = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = failure(&pipeline.health) => break Err(DaemonError::Broken),
            // Neither ends unless it panics.
            _ = &mut housekeeping => break Err(DaemonError::Broken),
            _ = &mut watching => break Err(DaemonError::Broken),
            _ = hangup.recv() => {
                systemd::notify_reloading();
                reload(settings, &reread, &web);
                notify(&[sd_notify::NotifyState::Ready]);
            }
        }
    };
    watchdog.abort();
    notify(&[sd_notify::NotifyState::Stopping]);
    // Nobody may wait for this channel any more, which is fine.
    let _ = stop.send(true);
    housekeeping.abort();
    watching.abort();
    pipeline.hub.close();
    if let Some(pusher) = pusher {
        pusher.shutdown(PUSH_PATIENCE).await;
    }
    for server in servers {
        let _ = server.await;
    }
    pipeline.stop();
    drop(socket_file);
    log::info!("the probes are detached");
    told
}

/// Puts into force what can be without a restart; what cannot, or will not do, is said, and stays
/// as it was. No counter is touched.
fn reload(settings: &Settings, reread: &Reread, web: &Web) {
    match reread() {
        Ok(now) => {
            let changed = settings.changed(&now);
            if !changed.is_empty() {
                log::warn!("changed, and in force only after a restart: {}", changed.join(", "));
            }
        }
        Err(error) => log::error!("the configuration stays as it was: {error}"),
    }
    match web.reload() {
        Ok(()) => log::info!("the configuration was read again"),
        Err(error) => log::error!("the web configuration stays as it was: {error}"),
    }
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
    pulse: Pulse,
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
        pulse.beat();
    }
}

/// Looks at the ports once a second, whoever asks or does not.
async fn watching(watch: Arc<Watch>) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let watch = Arc::clone(&watch);
        match tokio::task::spawn_blocking(move || watch.tick()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("{error}"),
            // It panicked, which has been said: without this nobody learns of an alert.
            Err(_) => return,
        }
    }
}
