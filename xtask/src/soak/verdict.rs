//! Whether it was well: each rule with its figures, so that a bad verdict can be judged.

use std::time::Duration;

use super::{load::Told, sample::Sample, streams::Account};

/// Memory may be above the most of the warm-up by a quarter, and by so many bytes.
const MEMORY_SLACK: u64 = 8 << 20;
/// Descriptors may be above the most of the warm-up by so many: one look at a namespace and one
/// client of the moment.
const DESCRIPTOR_SLACK: usize = 6;
/// Until tables and caches are full: a time-wait socket lives for a minute, and what is known of
/// a namespace that has gone for a while longer.
const WARM_UP: Duration = Duration::from_mins(5);
/// A shorter soak warms up for this part of its time.
const WARM_UP_PART: u32 = 3;
/// Of so many connections one may be missing from the ledger for a moment: the kernel passes by
/// probes now and then, mostly where others come and go (docs/metrics.md).
const PASSED_BY: f64 = 10_000.0;
/// Of so many steps of the load one may fail.
const FAILURES: u64 = 100;

/// What the streams told, and what the load did.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// The tail, which reads.
    pub tail: Account,
    /// The one that does not.
    pub sleeper: Account,
    /// The load.
    pub load: Told,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is as it must be.
    pub good: Vec<String>,
    /// What is not.
    pub faults: Vec<String>,
}

impl Verdict {
    fn say(&mut self, is_good: bool, what: String) {
        if is_good { self.good.push(what) } else { self.faults.push(what) }
    }
}

/// Judges: `samples` from the first to the one at rest after the load, `counted` after the one that
/// slept has been read.
pub(super) fn judge(samples: &[Sample], counted: &Sample, accounts: &Accounts) -> Verdict {
    let mut verdict = Verdict::default();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        verdict.say(false, "nothing was looked at".to_owned());
        return verdict;
    };
    let warm = WARM_UP.min(last.at / WARM_UP_PART);
    let (early, late): (Vec<_>, Vec<_>) = samples.iter().partition(|sample| sample.at <= warm);
    // The first one after it belongs to it, since a short soak has few.
    let early: Vec<&Sample> = early.into_iter().chain(late.first().copied()).collect();

    let most = |of: &[&Sample], figure: fn(&Sample) -> u64| of.iter().map(|s| figure(s)).max();
    let resident = |sample: &Sample| sample.memory.resident;
    let (before, after) = (most(&early, resident), most(&late, resident));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let bound = before + before / 4 + MEMORY_SLACK;
    verdict.say(
        after <= bound,
        format!(
            "memory: at most {} MiB resident within {} s, {} MiB afterwards, of at most {} MiB",
            mib(before),
            warm.as_secs(),
            mib(after),
            mib(bound)
        ),
    );

    let open = |sample: &Sample| u64::try_from(sample.descriptors).unwrap_or(u64::MAX);
    let (before, after) = (most(&early, open), most(&late, open));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    verdict.say(
        after <= before + u64::try_from(DESCRIPTOR_SLACK).unwrap_or_default(),
        format!("descriptors: at most {before} at first, {after} afterwards"),
    );

    let drifts: Vec<f64> = samples.iter().map(|s| s.drift).filter(|drift| *drift > 0.0).collect();
    let sum: f64 = drifts.iter().sum();
    let seen = match drifts.len() {
        0 => "never another".to_owned(),
        looks => format!("{sum:.0} in all at {looks} of {} looks", samples.len()),
    };
    let passed_by = (last.events - first.events) / 10.0 / PASSED_BY;
    verdict.say(
        last.drift < 1.0 && sum <= passed_by.max(1.0),
        format!("drift of the ledger: {:.0} at the end, {seen}", last.drift),
    );
    let off = last.ledger - crate::bench::stats::to_f64(last.kernel);
    verdict.say(
        last.drift < 1.0 || off.abs() < 1.0,
        format!("ledger at rest: {:.0}, the kernel's count {}", last.ledger, last.kernel),
    );

    let told = [accounts.tail, accounts.sleeper];
    let queues: u64 = told.iter().map(|account| account.subscriber).sum();
    verdict.say(
        same(counted.lost_subscriber - first.lost_subscriber, queues),
        format!(
            "lost in queues: {:.0} counted, {} told to the one that slept and {} to the tail",
            counted.lost_subscriber, accounts.sleeper.subscriber, accounts.tail.subscriber
        ),
    );
    verdict.say(
        same(counted.lost_ring - first.lost_ring, accounts.tail.ring),
        format!(
            "lost on the ring: {:.0} counted, {} told to the tail",
            counted.lost_ring, accounts.tail.ring
        ),
    );
    verdict.say(
        last.map_failures < 1.0,
        format!("map entries without room: {:.0}", last.map_failures),
    );

    let Told { connections, namespaces, steps, failed, why } = &accounts.load;
    let why = why.as_ref().map(|why| format!(", the last because {why}")).unwrap_or_default();
    verdict.say(
        *connections > 0 && failed * FAILURES <= *steps,
        format!(
            "load: {connections} connections, {namespaces} namespaces; {failed} of {steps} steps \
             failed{why}"
        ),
    );
    verdict
}

fn same(counted: f64, told: u64) -> bool {
    (counted - crate::bench::stats::to_f64(told)).abs() < 0.5
}

pub(super) fn mib(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::proc::Memory;

    fn sample(minute: u64, resident_mib: u64, descriptors: usize) -> Sample {
        Sample {
            at: Duration::from_mins(minute),
            memory: Memory { resident: resident_mib << 20, peak: resident_mib << 20 },
            descriptors,
            ..Sample::default()
        }
    }

    fn accounts() -> Accounts {
        let load = Told { connections: 1, steps: 100, failed: 1, ..Told::default() };
        Accounts { load, ..Accounts::default() }
    }

    fn faults(samples: &[Sample], accounts: &Accounts) -> Vec<String> {
        let counted = samples.last().cloned().unwrap_or_default();
        judge(samples, &counted, accounts).faults
    }

    /// An hour in which nothing grows.
    fn hour() -> Vec<Sample> {
        (0..=60).map(|minute| sample(minute, 20, 30)).collect()
    }

    #[test]
    fn an_hour_in_which_nothing_grows_is_good() {
        assert_eq!(faults(&hour(), &accounts()), Vec::<String>::new());
        assert_eq!(faults(&[], &accounts()), ["nothing was looked at"]);
    }

    #[test]
    fn what_grows_after_the_warm_up_is_a_fault_and_before_it_is_none() {
        let grown: Vec<Sample> = (0..=60).map(|minute| sample(minute, 20 + minute, 30)).collect();
        let told = faults(&grown, &accounts());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("memory") && told[0].contains("80 MiB"), "{told:?}");
        let leaking: Vec<Sample> = (0..=60)
            .map(|minute| sample(minute, 20, 30 + usize::try_from(minute).expect("few")))
            .collect();
        let told = faults(&leaking, &accounts());
        assert!(told.len() == 1 && told[0].contains("descriptors"), "{told:?}");
        let warm: Vec<Sample> =
            (0..=60).map(|minute| sample(minute, 10 * minute.min(5), 30)).collect();
        assert_eq!(faults(&warm, &accounts()), Vec::<String>::new());
    }

    #[test]
    fn a_ledger_may_be_off_for_a_moment_by_what_the_kernel_passes_by() {
        let mut samples = hour();
        samples[60].events = 1_000_000.0;
        samples[30].drift = 9.0;
        assert_eq!(faults(&samples, &accounts()), Vec::<String>::new());
        samples[31].drift = 2.0;
        assert_eq!(faults(&samples, &accounts()).len(), 1);
        let mut samples = hour();
        samples[60].drift = 1.0;
        samples[60].ledger = 1.0;
        let told = faults(&samples, &accounts());
        assert!(told.len() == 2 && told[0].contains("1 at the end"), "{told:?}");
    }

    #[test]
    fn a_loss_that_was_counted_and_not_told_is_a_fault_and_so_is_the_reverse() {
        let mut samples = hour();
        samples[60].lost_subscriber = 7.0;
        let told = faults(&samples, &accounts());
        assert!(told.len() == 1 && told[0].contains("7 counted"), "{told:?}");
        let mut heard = accounts();
        heard.sleeper.subscriber = 7;
        assert_eq!(faults(&samples, &heard), Vec::<String>::new());
        heard.tail.ring = 1;
        assert_eq!(faults(&samples, &heard).len(), 1);
    }

    #[test]
    fn a_load_that_fails_is_told() {
        let mut heard = accounts();
        heard.load.failed = 2;
        heard.load.why = Some("no port".to_owned());
        let told = faults(&hour(), &heard);
        assert!(told.len() == 1 && told[0].contains("because no port"), "{told:?}");
    }
}
