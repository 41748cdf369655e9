//! `tcpmon explain`: what a state means, who enters it, and what to do about many of them.

mod diagram;
mod here;
mod lore;

use std::path::PathBuf;

use clap::Args;
use tcpmon_common::TcpState;

use super::{
    DEFAULT_SOCKET,
    columns::upper,
    filter_args::StateParser,
    paper::{Ink, Paper},
};
use here::Figures;
use lore::{Lore, View};

/// Wider lines of prose are hard to read.
const WIDEST: usize = 100;

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// The state to explain, in any usual spelling; without one, the state diagram
    #[arg(value_name = "STATE", value_parser = StateParser)]
    state: Option<TcpState>,

    /// Ask the daemon on this Unix socket for this machine's own figures, if there is one
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Explains a state, or shows the diagram of all.
///
/// # Errors
///
/// Where standard output cannot be written.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let mut paper = Paper::for_stdout(WIDEST);
    match args.state {
        None => {
            diagram::overview(&mut paper);
            contents(&mut paper);
        }
        Some(state) => {
            let figures = here::ask(&args.socket).map(|metrics| Figures::of(state, &metrics));
            state_page(&mut paper, lore::of(state), figures.as_ref());
        }
    }
    paper.print()
}

/// All states, a line each.
fn contents(paper: &mut Paper) {
    paper.heading("The states, one by one");
    paper.gap();
    for lore in &lore::ALL {
        let label = format!("  {:<15} ", upper(lore.state));
        paper.entry(&label, &format!("{} Entered by {}.", lore.about, lore.who));
    }
    paper.gap();
    paper.paragraph(2, "More about one of them: tcpmon explain time_wait");
}

/// All about one state.
fn state_page(paper: &mut Paper, lore: &Lore, figures: Option<&Figures>) {
    let name = paper.ink(Ink::Bold, upper(lore.state));
    paper.line(&format!("{name}  {}", lore.about));
    paper.gap();
    field(paper, "RFC 9293", lore.rfc);
    field(paper, "in ss", lore.ss);
    field(paper, "entered by", lore.who);
    let view = match lore.view {
        View::Client => "a client's state",
        View::Server => "a server's state",
        View::Shared => "shared by client and server",
        View::None => "",
    };
    if !view.is_empty() {
        let loose = if lore.loose.is_empty() { "Right." } else { lore.loose };
        field(paper, "often called", &format!("{view}. {loose}"));
    }
    list(paper, "How it is entered", lore.entered);
    list(paper, "How it is left", lore.left);
    paper.heading("How long it lasts");
    paper.paragraph(2, lore.lasts);
    paper.heading("What many of them mean");
    paper.paragraph(2, lore.many);
    list(paper, "What to do", lore.mend);
    list(paper, "What not to do", lore.avoid);
    paper.heading("Commands");
    for (command, purpose) in lore.commands {
        let label = format!("  {command}");
        if label.len() <= 38 {
            paper.entry(&format!("{label:<38}  "), purpose);
        } else {
            paper.line(&label);
            paper.entry(&format!("{:<38}  ", ""), purpose);
        }
    }
    if let Some(figures) = figures {
        figures.write(paper, lore);
    }
}

fn field(paper: &mut Paper, label: &str, text: &str) {
    paper.hanging(&format!("  {label:<14}"), 16, Ink::Faint, text);
}

fn list(paper: &mut Paper, heading: &str, items: &[&str]) {
    if items.is_empty() {
        return;
    }
    paper.heading(heading);
    for item in items {
        paper.entry("  - ", item);
    }
}

#[cfg(test)]
mod tests;
