//! Why the probes do not run, in one line each.

use crate::kernel::requirements::Refusal;
use aya::programs::ProgramError;

/// Why the probes do not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// This machine cannot run them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel would not take the object's maps.
    #[error(
        "cannot create the probes' maps: {0}; see `tcpmon check`, or lower the --max-... options"
    )]
    Maps(String),
    /// The counters of so many CPUs are more than a map may have in one value.
    #[error(
        "this kernel has no map for the counters of {0} CPUs; tcpmon needs Linux 6.0 or later on \
         a machine that may have as many"
    )]
    TooManyCpus(u32),
    /// The kernel would not take a program.
    #[error(
        "cannot {action} the probe {probe}: {reason}; see `tcpmon check` and --log-level debug"
    )]
    Program {
        /// What was tried: load, attach.
        action: &'static str,
        /// Which.
        probe: &'static str,
        /// The kernel's answer, in one line.
        reason: String,
    },
    /// The timers of time-wait sockets cannot be told from others.
    #[error(
        "cannot tell the timers of time-wait sockets from others: /proc/kallsyms hides \
         tw_timer_handler, and {0}; set kernel.kptr_restrict to 1, or use --time-wait sampled"
    )]
    Handler(String),
    /// A map or program is not in the object.
    #[error("the embedded object has no {0}: it was built from other sources than this program")]
    Object(&'static str),
}

impl ProbeError {
    /// Whether it stands against watching the timers of time-wait sockets, and nothing else.
    pub(super) fn is_about_timers(&self) -> bool {
        match self {
            Self::Handler(_) => true,
            Self::Program { probe, .. } => probe.starts_with(ON_TIMERS),
            Self::Refused(_) | Self::Maps(_) | Self::TooManyCpus(_) | Self::Object(_) => false,
        }
    }
}

/// The names of all probes on timers begin with this, and of no others.
const ON_TIMERS: &str = "tcpmon_timer_";

pub(in crate::kernel) fn refusal(
    action: &'static str,
    probe: &'static str,
) -> impl Fn(ProgramError) -> ProbeError {
    move |error| {
        let reason = if let ProgramError::LoadError { verifier_log, io_error } = &error {
            let words = verifier_log.to_string();
            log::debug!("the verifier on {probe}:\n{words}");
            verdict(&words)
                .map_or_else(|| io_error.to_string(), |why| format!("{io_error} ({why})"))
        } else {
            one_line(&error)
        };
        ProbeError::Program { action, probe, reason }
    }
}

/// The line of the verifier's log that says why: the last one before its statistics.
fn verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    log.lines().map(str::trim).rfind(|line| {
        !line.is_empty() && !STATISTICS.iter().any(|statistic| line.starts_with(statistic))
    })
}

/// Why a map cannot be mapped into this process.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
pub(super) fn unmapped(error: std::io::Error) -> ProbeError {
    ProbeError::Maps(error.to_string())
}

/// An error with its causes, without the verifier's pages.
pub(in crate::kernel) fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = next.source();
    }
    line.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_against_the_timers_can_be_done_without() {
        let of = |probe| ProbeError::Program { action: "load", probe, reason: String::new() };
        assert!(of("tcpmon_timer_start").is_about_timers());
        assert!(ProbeError::Handler(String::new()).is_about_timers());
        assert!(!of("tcpmon_state").is_about_timers());
        assert!(!ProbeError::Maps(String::new()).is_about_timers());
        for (name, _) in super::super::TIMERS {
            assert!(of(name).is_about_timers(), "{name}");
        }
    }

    #[test]
    fn the_verifier_s_reason_is_its_last_word_before_the_statistics() {
        let log = "reg type unsupported for arg#0\n41: (0f) r2 += r1\n\
                   math between map_value pointer and register is not allowed\n\
                   verification time 836 usec\nstack depth 200\nprocessed 113 insns\n\n";
        assert_eq!(
            verdict(log),
            Some("math between map_value pointer and register is not allowed")
        );
        assert_eq!(verdict("processed 3 insns\n"), None);
    }
}
