//! `cargo xtask lab`: recipes by hand, told step by step.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;

use super::expectation::{Expectation, Namespace, Service};
use super::place::{Lab, Options, remove_orphans};
use super::recipe::{Addresses, Recipe};
use super::socket::{Ending, Role, Socket, Substate};
use super::{verify, worker};

/// Real traffic in network namespaces of its own, to see tcpmon work
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    /// What to do; without it, the recipes are listed
    recipe: Option<Recipe>,
    /// How often [default: as usual for the recipe]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    connections: Option<u64>,
    /// Use IPv6
    #[arg(long, conflicts_with = "mapped")]
    ipv6: bool,
    /// Use `AF_INET6` sockets with IPv4-mapped addresses
    #[arg(long)]
    mapped: bool,
    /// Print as JSON what must be seen, and nothing else
    #[arg(long)]
    json: bool,
    /// Leave the namespaces in place at the end
    #[arg(long)]
    keep: bool,
    /// Hold the outcome against the kernel's own tracepoint
    #[arg(long)]
    verify: bool,
    /// Begin and end without waiting for Enter
    #[arg(long)]
    no_wait: bool,
    /// Remove what earlier labs left in place, and do nothing else
    #[arg(long, conflicts_with = "recipe")]
    clean: bool,
    #[arg(long, hide = true, value_name = "COMM")]
    as_worker: Option<String>,
    #[arg(long, hide = true, value_name = "PATH")]
    in_netns: Option<PathBuf>,
}

/// Does what the arguments say.
pub fn run(args: &LabArgs) -> anyhow::Result<()> {
    if let Some(comm) = &args.as_worker {
        return worker::become_worker(comm, args.in_netns.as_deref())
            .with_context(|| format!("the lab's process {comm} has no control connection"));
    }
    if args.clean {
        for name in remove_orphans() {
            writeln!(io::stdout(), "removed {name}")?;
        }
        return Ok(());
    }
    let done = match args.recipe {
        Some(recipe) => carry_out(args, recipe),
        None => list(),
    };
    match done {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn list() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Recipes (cargo xtask lab RECIPE, as root):")?;
    for recipe in Recipe::all() {
        writeln!(out, "  {:<22} {}", recipe.name(), recipe.about())?;
    }
    Ok(())
}

fn carry_out(args: &LabArgs, recipe: Recipe) -> anyhow::Result<()> {
    let addresses = match (args.ipv6, args.mapped) {
        (true, _) => Addresses::Ipv6,
        (_, true) => Addresses::Ipv4Mapped,
        _ => Addresses::Ipv4,
    };
    let narrate = (!args.json).then_some(narrate as fn(&str));
    let mut lab = Lab::open(Options { addresses, narrate, ..Options::default() })?;
    let namespaces = lab.prepare(recipe)?;
    // A person needs the time to look on; a script does not wait.
    let waits = !args.json && !args.no_wait && io::stdin().is_terminal();
    if !args.json {
        introduce(recipe, &namespaces)?;
        if waits {
            wait_for_enter("press Enter to begin")?;
        }
    }
    let expected = if args.verify {
        verify::perform_verified(&mut lab, recipe, args.connections)?
    } else {
        lab.perform(recipe, args.connections)?
    };
    if args.keep {
        lab.keep()?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&expected)?)?);
    }
    conclude(&mut out, &expected, args.verify)?;
    drop(out);
    if args.keep {
        let names: Vec<&str> = namespaces.iter().map(|netns| netns.name.as_str()).collect();
        writeln!(
            io::stdout(),
            "kept: {}; `cargo xtask lab --clean` removes what was kept",
            names.join(", ")
        )?;
    } else if waits {
        wait_for_enter("press Enter to remove the namespace")?;
    }
    Ok(())
}

/// A step, as it is taken.
fn narrate(line: &str) {
    // Nobody to tell is no reason to stop half-way.
    let _told = writeln!(io::stdout(), "  {line}");
}

fn introduce(recipe: Recipe, namespaces: &[Namespace]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}: {}", recipe.name(), recipe.about())?;
    let parts: &[&str] = match (namespaces.len(), recipe) {
        (1, _) => &["client and server"],
        (_, Recipe::ThreeServices) => &["two services", "the third"],
        _ => &["client", "server"],
    };
    for (who, netns) in parts.iter().zip(namespaces) {
        writeln!(out, "network namespace of {who}: {} (inode {})", netns.name, netns.inode)?;
    }
    writeln!(out, "in another terminal: tcpmon tail --netns {}", namespaces[0].name)
}

fn wait_for_enter(prompt: &str) -> io::Result<()> {
    write!(io::stdout(), "{prompt} ")?;
    io::stdout().flush()?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Sockets that are listed in full; more fill the screen.
const LISTED: usize = 24;

fn conclude(out: &mut impl Write, expected: &Expectation, verified: bool) -> io::Result<()> {
    writeln!(out, "\nwhat must be seen:")?;
    for socket in expected.sockets.iter().take(LISTED) {
        writeln!(out, "  {}", describe(socket))?;
    }
    if expected.sockets.len() > LISTED {
        writeln!(out, "  ... and {} more sockets", expected.sockets.len() - LISTED)?;
    }
    writeln!(out, "in all {} transitions:", expected.shown_transitions())?;
    for (key, count) in &expected.shown_totals() {
        writeln!(out, "  {count:>9}  {key}")?;
    }
    for service in &expected.services {
        writeln!(out, "  {}", describe_service(service))?;
    }
    if let Some(load) = &expected.load {
        writeln!(
            out,
            "{} connections in {:.2} s: {:.0} a second; {} sockets in TIME_WAIT",
            load.connections, load.seconds, load.connections_per_second, load.time_wait
        )?;
    }
    if verified {
        writeln!(
            out,
            "the kernel's tracepoint agrees (it shows ways into TIME_WAIT as ways to CLOSE)"
        )?;
    }
    Ok(())
}

/// One line for a socket and its life.
fn describe(socket: &Socket) -> String {
    let remote = socket.remote.map(|remote| format!(" -> {remote}")).unwrap_or_default();
    let shown = socket.shown();
    let first = shown.first().map(|edge| edge.old.name());
    let states: Vec<&str> =
        first.into_iter().chain(shown.iter().map(|edge| edge.new.name())).collect();
    let mut line = format!(
        "{} (pid {}) {}{remote}: {}",
        socket.owner.comm,
        socket.owner.pid,
        socket.local,
        states.join(" > ")
    );
    match socket.time_wait {
        Some(Substate::FinWait2) => line.push_str(", into the time-wait table as fin_wait2"),
        Some(Substate::TimeWait) => line.push_str(", into the time-wait table as time_wait"),
        None if socket.time_wait_overflow => line.push_str(", the time-wait table was full"),
        None => {}
    }
    line.push_str(match socket.time_wait_end {
        Some(Ending::Expired) => ", expired there",
        Some(Ending::Reused) => ", its port taken over by a connect()",
        Some(Ending::Killed) => ", ended there before its time",
        None => "",
    });
    if let Some(worker) = &socket.accepted_by {
        let _infallible = write!(line, ", accepted by {} (pid {})", worker.comm, worker.pid);
    }
    if socket.port_exhausted {
        line.push_str(", no local port was free");
    }
    line
}

/// One line for what a service leaves.
fn describe_service(service: &Service) -> String {
    let Service { process, netns, port, time_wait, .. } = service;
    let total: u64 = time_wait.values().sum();
    let side = match service.role {
        Role::Active => format!("towards port {port}"),
        Role::Passive | Role::Listener => format!("of its port {port}"),
    };
    let gone = if service.exited { ", gone" } else { "" };
    let mut line = format!(
        "{} (pid {}{gone}) in {}: {total} in TIME_WAIT {side}",
        process.comm, process.pid, netns.name
    );
    for (at, (ip, count)) in time_wait.iter().enumerate() {
        let _infallible = write!(line, "{} {ip}: {count}", if at == 0 { ":" } else { "," });
    }
    line
}
