//! What the probes watch, and how much they may keep.

/// How the time-wait table is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeWaitMode {
    /// By the timers of its sockets: each that enters, and how it leaves
    #[default]
    Exact,
    /// By looking at it now and then, without probes on timers
    Sampled,
}

/// What to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// How the time-wait table is watched.
    pub time_wait: TimeWaitMode,
    /// Inode of the only network namespace whose time-wait table is watched; `None`: all.
    pub only_netns: Option<u32>,
}

/// How much the probes may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// The rings, in bytes, all together: see [`tcpmon_common::RingShape::new`].
    pub ring_bytes: u32,
    /// Sockets whose owner and present state are kept: at most
    /// [`tcpmon_common::MAX_SOCKETS`].
    pub sockets: u32,
    /// Listening sockets.
    pub listeners: u32,
    /// Owners whose connections are counted apart.
    pub services: u32,
    /// (destination, owner) pairs whose port failures are counted apart.
    pub failures: u32,
    /// Accepted sockets that wait for their second transition.
    pub embryos: u32,
    /// Network namespaces that are watched, and whose time-wait sockets are counted.
    pub namespaces: u32,
    /// Groups of sockets in the time-wait table that are counted apart: at most
    /// [`tcpmon_common::MAX_CELLS`].
    pub destinations: u32,
}

impl MapSizes {
    /// For an object that is loaded to see whether that works, and let go of at once.
    pub(super) const SMALL: Self = Self {
        ring_bytes: 4_096,
        sockets: 64,
        listeners: 64,
        services: 64,
        failures: 64,
        embryos: 64,
        namespaces: 64,
        destinations: 64,
    };
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            ring_bytes: 4 << 20,
            sockets: 131_072,
            listeners: 4_096,
            services: 4_096,
            failures: 4_096,
            embryos: 1_024,
            namespaces: 1_024,
            destinations: 32_768,
        }
    }
}
