//! Load B: one look at many time-wait sockets, with the tools people use today, with the least
//! that netlink takes, and with tcpmon's snapshot.
//!
//! Time-wait sockets live for 60 s, and making a million of them takes most of that: so each round
//! makes its own, in a namespace of its own, and what a look cost is divided by the sockets that
//! were there.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::Serialize;

use super::{
    churn::order,
    metrics::Metrics,
    proc,
    session::{Kit, ProbeStats, Session},
    stats::{Spread, to_f64},
    table::{Form, Table, thousands},
    wait,
};
use crate::{
    lab::{Lab, Ledger, Options, Recipe},
    process::find_program,
};

/// The hidden task of this program that is [`super::diag::count_sockets`].
pub const COUNT_TASK: &str = "count-sockets";

/// Between two questions to the daemon: each makes it look again, and costs it something.
const ASK: Duration = Duration::from_millis(250);
/// How long a snapshot may be in coming.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a snapshot of one namespace alone is hoped for.
const ATTEMPTS: usize = 8;
/// How often a program's memory is looked at while it runs.
const POLL: Duration = Duration::from_millis(1);

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Looker {
    /// `ss -Htan`.
    Ss,
    /// `ss -Htan state time-wait`.
    SsTimeWait,
    /// `cat /proc/net/tcp`.
    Proc,
    /// A netlink dump that is only counted.
    Netlink,
    /// A snapshot of the daemon's.
    Tcpmon,
}

impl Looker {
    const ALL: [Self; 5] = [Self::Ss, Self::SsTimeWait, Self::Proc, Self::Netlink, Self::Tcpmon];

    /// What the row is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ss => "ss -Htan",
            Self::SsTimeWait => "ss -Htan state time-wait",
            Self::Proc => "cat /proc/net/tcp",
            Self::Netlink => "bare netlink dump, only counted",
            Self::Tcpmon => "tcpmon, owners and destinations told",
        }
    }

    /// The program that looks; `None` for the daemon, or where it is not installed.
    fn command(self) -> Result<Option<Command>> {
        let (program, words) = match self {
            Self::Ss => (find_program("ss"), &["-Htan"][..]),
            Self::SsTimeWait => (find_program("ss"), &["-Htan", "state", "time-wait"][..]),
            Self::Proc => (find_program("cat"), &["/proc/net/tcp"][..]),
            Self::Netlink => (Some(env::current_exe().context("own path")?), &[COUNT_TASK][..]),
            Self::Tcpmon => (None, &[][..]),
        };
        Ok(program.map(|program| {
            let mut command = Command::new(program);
            command.args(words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        }))
    }
}

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Glance {
    /// Time-wait sockets that were there.
    pub sockets: u64,
    /// CPU seconds, the kernel's part included.
    pub cpu: f64,
}

/// All looks of one; `None` for a round in which it could not.
#[derive(Debug, Serialize)]
pub struct LookSeries {
    /// Who looked.
    pub looker: Looker,
    /// By round.
    pub glances: Vec<Option<Glance>>,
    /// Memory of its program at most, in bytes.
    pub peak: Option<u64>,
}

/// All rounds of looks at so many sockets.
#[derive(Debug, Serialize)]
pub struct Look {
    /// Time-wait sockets that were made.
    pub sockets: u64,
    /// By looker.
    pub series: Vec<LookSeries>,
}

/// Makes the sockets and has everybody look, so many times.
pub(super) fn measure(kit: &Kit, sockets: u64, rounds: usize) -> Result<Look> {
    let series = |looker| LookSeries { looker, glances: Vec::new(), peak: None };
    let mut look = Look { sockets, series: Looker::ALL.into_iter().map(series).collect() };
    for round in 0..rounds {
        wait::check()?;
        // Before the sockets, or it could not know whose they are.
        let room = (2 * sockets).clamp(1, tcpmon_common::MAX_SOCKETS.into()).to_string();
        let wide = ["--max-sockets", &room, "--snapshot-cpu-share", "1"];
        let mut session = Session::start_daemon_alone(kit, ProbeStats::Off, &wide)?;
        let mut lab = Lab::open(Options::default()).context("the lab")?;
        lab.perform(Recipe::TimeWait, Some(sockets)).context("the load")?;
        session.await_rest()?;
        for place in order(look.series.len(), round) {
            let series = &mut look.series[place];
            let glance = glance(series.looker, &mut lab, &mut session)?;
            if let Some(glance) = glance {
                let (cpu, there) = (glance.cpu, thousands(to_f64(glance.sockets)));
                let (round, title) = (round + 1, series.looker.title());
                eprintln!("xtask: round {round} of {rounds}, {there} sockets, {title}: {cpu:.3} s");
            }
            series.glances.push(glance);
        }
        for series in &mut look.series {
            let peak = peak(series.looker, &lab, &session)?;
            series.peak = series.peak.max(peak);
        }
        session.stop();
    }
    Ok(look)
}

fn glance(looker: Looker, lab: &mut Lab, session: &mut Session) -> Result<Option<Glance>> {
    let sockets = Ledger::of(&lab.namespaces()[0])?.level;
    if looker == Looker::Tcpmon {
        return Ok(snapshot(lab, session)?.map(|cpu| Glance { sockets, cpu }));
    }
    let Some(mut command) = looker.command()? else { return Ok(None) };
    let cpu = lab.inside(|| cpu_of(command.spawn()?)).context(looker.title())?;
    Ok(Some(Glance { sockets, cpu: cpu.as_secs_f64() }))
}

/// What the daemon says of its snapshots: how many there were, their CPU seconds, and how many
/// sockets in TIME_WAIT it tells of.
fn snapshots(session: &Session) -> Result<(f64, f64, f64)> {
    let metrics = Metrics::ask(session.socket())?;
    let sum = |family| metrics.sum(family);
    Ok((
        sum("tcpmon_snapshots_total"),
        sum("tcpmon_snapshot_cpu_seconds_total"),
        sum("tcpmon_time_wait_sockets"),
    ))
}

/// Asks until the daemon has all sockets of the lab in its snapshot, and has taken no other since
/// it was asked before. To ask makes it look where something has happened.
fn settled(lab: &Lab, session: &mut Session) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let mut before = 0.0;
    loop {
        session.check()?;
        let (taken, cpu, sockets) = snapshots(session)?;
        // They only grow fewer, so the snapshot has at least as many as are left after it.
        let left = to_f64(Ledger::of(&lab.namespaces()[0])?.level);
        if taken - before < 0.5 && sockets >= left {
            return Ok((taken, cpu));
        }
        if begun.elapsed() > LIMIT {
            bail!(
                "tcpmon's snapshot has {sockets} of {left} sockets after {} s, or it takes one \
                 after the other ({taken} so far): is there much traffic on this machine?",
                LIMIT.as_secs()
            );
        }
        before = taken;
        wait::pause(ASK)?;
    }
}

/// CPU seconds of a snapshot of the lab's namespace; `None` if each time that the daemon looked it
/// took others too, because other namespaces had traffic: it tells only the sum of all.
fn snapshot(lab: &mut Lab, session: &mut Session) -> Result<Option<f64>> {
    for _ in 0..ATTEMPTS {
        let (before, cpu) = settled(lab, session)?;
        lab.perform(Recipe::Refused, Some(1)).context("the lab")?;
        let (after, cpu_after) = settled(lab, session)?;
        let taken = after - before;
        if taken < 0.5 {
            bail!("tcpmon took no snapshot where something had happened");
        }
        if taken < 1.5 {
            return Ok(Some(cpu_after - cpu));
        }
        eprintln!("xtask: tcpmon took {taken} snapshots at once; another time");
    }
    Ok(None)
}

/// Waits for the end of a program, which must be good, and tells the CPU time that it took.
fn cpu_of(mut child: Child) -> io::Result<Duration> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // Its clock goes when it is waited for.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let cpu = proc::cpu_time(child.id());
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    cpu
}

/// Memory of a looker's program at most: apart from the measured looks, since one has to look at
/// it all the time.
fn peak(looker: Looker, lab: &Lab, session: &Session) -> Result<Option<u64>> {
    if looker == Looker::Tcpmon {
        return Ok(Some(session.usage()?.daemon_memory.peak));
    }
    let Some(mut command) = looker.command()? else { return Ok(None) };
    // Until it has become that program it is a part of this one.
    let mut words = vec![command.get_program().as_encoded_bytes()];
    words.extend(command.get_args().map(OsStr::as_encoded_bytes));
    let line = [&words.join(&0)[..], &[0]].concat();
    let peak = lab.inside(|| {
        let mut child = command.spawn()?;
        let mut peak = 0;
        while child.try_wait()?.is_none() {
            let is_itself = fs::read(format!("/proc/{}/cmdline", child.id()))
                .is_ok_and(|cmdline| cmdline == line);
            if is_itself && let Ok(memory) = proc::memory(child.id()) {
                peak = peak.max(memory.peak);
            }
            thread::sleep(POLL);
        }
        Ok(peak)
    });
    Ok(Some(peak.context(looker.title())?).filter(|&bytes| bytes > 0))
}

impl Look {
    fn glances(&self, looker: Looker) -> &[Option<Glance>] {
        let series = self.series.iter().find(|series| series.looker == looker);
        series.map(|series| &*series.glances).unwrap_or_default()
    }

    /// Nanoseconds of CPU a socket.
    pub fn cost(&self, looker: Looker) -> Option<Spread> {
        Spread::of(self.glances(looker).iter().flatten().map(Glance::cost))
    }

    /// The ratio of one's cost to another's in the same round.
    pub fn ratio(&self, looker: Looker, to: Looker) -> Option<Spread> {
        let pairs = self.glances(looker).iter().zip(self.glances(to));
        Spread::of(
            pairs.filter_map(|(one, other)| Some(one.as_ref()?.cost() / other.as_ref()?.cost())),
        )
    }

    /// The table of this load.
    pub(super) fn table(&self) -> Table {
        let rounds = self.series.iter().map(|series| series.glances.len()).max();
        let title = format!(
            "Load B, a look at {} TIME_WAIT sockets; medians of {}",
            thousands(to_f64(self.sockets)),
            rounds.unwrap_or_default(),
        );
        let head = ["look", "CPU s", "ns/socket", "ratio to ss", "min to max", "peak MiB"];
        let mut table = Table::new(title, &head);
        let dash = || "–".to_owned();
        for series in &self.series {
            let looker = series.looker;
            let cpu = Spread::of(series.glances.iter().flatten().map(|glance| glance.cpu));
            let ratio = self.ratio(looker, Looker::Ss);
            let peak = series.peak.map(|bytes| to_f64(bytes) / f64::from(1 << 20));
            table.row(vec![
                looker.title().to_owned(),
                cpu.map_or_else(dash, |cpu| format!("{:.3}", cpu.median)),
                self.cost(looker).map_or_else(dash, |cost| thousands(cost.median)),
                ratio.map_or_else(dash, |ratio| format!("{:.3}", ratio.median)),
                ratio.map_or_else(dash, |ratio| format!("{:.3} to {:.3}", ratio.min, ratio.max)),
                peak.map_or_else(dash, |peak| format!("{peak:.1}")),
            ]);
        }
        table
    }

    /// The table, written down.
    pub(super) fn render(&self, form: Form) -> String {
        self.table().render(form)
    }
}

impl Glance {
    fn cost(&self) -> f64 {
        self.cpu * 1e9 / to_f64(self.sockets.max(1))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Looks at a thousand sockets that cost these microseconds.
    pub(in crate::bench) fn looks(series: &[(Looker, &[f64])]) -> Look {
        let glance =
            |&micros: &f64| (micros > 0.0).then_some(Glance { sockets: 1000, cpu: micros * 1e-6 });
        let series = series.iter().map(|(looker, micros)| LookSeries {
            looker: *looker,
            glances: micros.iter().map(glance).collect(),
            peak: Some(3 << 19),
        });
        Look { sockets: 1000, series: series.collect() }
    }

    #[test]
    fn a_cost_is_by_socket_and_a_ratio_by_round() {
        let mut look = looks(&[
            (Looker::Ss, &[1000.0, 2000.0, 4000.0]),
            (Looker::Netlink, &[0.0, 500.0, 0.0]),
            (Looker::Tcpmon, &[200.0, 500.0, 1200.0]),
        ]);
        let median = |spread: Option<Spread>| spread.expect("looks").median;
        assert!((median(look.cost(Looker::Tcpmon)) - 500.0).abs() < 1e-6);
        assert!((median(look.ratio(Looker::Tcpmon, Looker::Ss)) - 0.25).abs() < 1e-9);
        assert!((median(look.ratio(Looker::Tcpmon, Looker::Netlink)) - 1.0).abs() < 1e-9);
        assert_eq!(look.ratio(Looker::Proc, Looker::Ss), None);
        // Of sockets that have gone nobody is told the cost.
        look.series[2].glances = vec![Some(Glance { sockets: 500, cpu: 0.000_2 })];
        assert!((median(look.ratio(Looker::Tcpmon, Looker::Ss)) - 0.4).abs() < 1e-9);
    }

    #[test]
    fn the_table_has_a_row_for_each_who_looks() {
        let look = looks(&[(Looker::Ss, &[1500.0]), (Looker::Tcpmon, &[300.0])]);
        let text = look.render(Form::Text);
        for part in ["1,000 TIME_WAIT", "ss -Htan", "1,500", "0.200 to 0.200", "1.5"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_cpu_time_of_a_program_is_known_at_its_end() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
        let cpu = cpu_of(Command::new("sh").args(["-c", script]).spawn().expect("sh"));
        assert!(cpu.expect("a clock") > Duration::from_millis(1));
        let failed = cpu_of(Command::new("sh").args(["-c", "exit 3"]).spawn().expect("sh"));
        assert!(failed.expect_err("it failed").to_string().contains("exit status: 3"));
    }
}
