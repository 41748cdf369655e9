//! `cargo xtask screens`: the pictures under docs/screens, of the real program on real sockets.
//!
//! Ports towards a database run out in a network namespace ([`scene`]), and each face of the
//! program is taken as it shows that: the report, `tcpmon top` in a terminal, and the page in a
//! browser. Look at them after a change to any of these: does each tell, on its own, what is wrong,
//! whose it is and what to do?

mod bridge;
mod page;
mod part;
mod scene;
mod terminal;

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

pub use self::part::{PartArgs, play};
use self::{
    page::{Page, View},
    scene::Scene,
    terminal::Terminals,
};
use crate::{
    bench::{self, wait},
    build,
    process::{capture, is_root, step},
    setup,
};

/// The hidden task that plays a part of the scene.
pub const PART_TASK: &str = "screens-part";

/// Arguments of `cargo xtask screens`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take pictures of this program instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Put them into this folder [default: docs/screens]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// What one file shows.
#[derive(Clone, Copy, Debug)]
enum Face {
    /// `tcpmon report`, so many columns wide.
    Report(u16),
    /// `tcpmon top` in a terminal of so many columns and rows.
    Top(u16, u16),
    /// The page.
    Page(View),
}

/// Every file that is made, in the order in which they are taken.
const SCREENS: [(&str, Face); 7] = [
    ("page-wide.png", Face::Page(WIDE)),
    ("page-dark.png", Face::Page(View { scheme: "dark", ..WIDE })),
    (
        "page-phone.png",
        Face::Page(View { size: (390, 844), scale: 2, is_phone: true, scheme: "light" }),
    ),
    ("top-80.txt", Face::Top(80, 24)),
    ("top-160.txt", Face::Top(160, 50)),
    ("report-80.txt", Face::Report(80)),
    ("report-160.txt", Face::Report(160)),
];
const WIDE: View = View { size: (1440, 1000), scale: 1, is_phone: false, scheme: "light" };

/// How long a program may take to show what is to be seen.
const LIMIT: Duration = Duration::from_secs(30);

/// Texts are the same wherever they are made.
const ENVIRONMENT: [(&str, &str); 3] =
    [("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("TERM", "xterm-256color")];

/// Builds the program, makes the ports run out, and takes all pictures.
pub fn main(args: &Args) -> Result<()> {
    let binary = build::given_or_built(args.binary.as_deref())?;
    if !is_root() {
        return bench::become_root(&binary);
    }
    wait::watch_signals()?;
    let folder =
        args.into.clone().unwrap_or_else(|| setup::workspace().join("docs").join("screens"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pictures = take(&binary)?;
    for (name, bytes) in pictures {
        let path = folder.join(name);
        put(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", build::short(&path).display());
    }
    Ok(())
}

/// Takes all pictures before one is written: they are of the same minute.
fn take(binary: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut scene = Scene::open(binary)?;
    let socket = scene.socket();
    // Before the load begins, so that their curves show how it came.
    let mut terminals = Terminals::start(scene.path("tmux"))?;
    for (name, face) in SCREENS {
        if let Face::Top(columns, rows) = face {
            let arguments = ["top", "--socket"].map(OsStr::new);
            let arguments = [&arguments[..], &[socket.as_os_str()]].concat();
            terminals.run(terminal_of(name), (columns, rows), binary, &arguments)?;
        }
    }
    let page = Page::open(bridge::open(&socket)?, &scene.path("profile"))?;
    step("ports run out", || {
        scene.begin()?;
        scene.await_exhaustion()
    })?;
    let one = |(name, face): (&'static str, Face)| {
        wait::check()?;
        let bytes = match face {
            Face::Page(view) => page.picture(view)?,
            Face::Top(..) => {
                tidy(&terminals.screen(terminal_of(name), &["5432", "none left"])?).into()
            }
            Face::Report(columns) => {
                let mut text = String::new();
                wait::until("a report of ports that have run out", LIMIT, || {
                    text = report(binary, &socket, columns)?;
                    Ok(text.contains("none is left"))
                })?;
                tidy(&text).into()
            }
        };
        Ok((name, bytes))
    };
    let pictures: Vec<_> = SCREENS.into_iter().map(one).collect::<Result<_>>()?;
    scene.check()?;
    Ok(pictures)
}

/// What the terminal is called in which the picture `name` is drawn: tmux has its own use for dots.
fn terminal_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn report(binary: &Path, socket: &Path, columns: u16) -> Result<String> {
    let mut command = Command::new(binary);
    command.arg("report").arg("--socket").arg(socket);
    command.envs(ENVIRONMENT).env("COLUMNS", columns.to_string());
    capture(&mut command)
}

/// A text without blanks at the ends of its lines, and with one end of line at its own.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_end_matches('\n'))
}

/// Writes a file that belongs to whom its folder belongs: root is only needed to take it.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)?;
    let folder = fs::metadata(path.parent().unwrap_or(Path::new(".")))?;
    Ok(chown(path, Some(folder.uid()), Some(folder.gid()))?)
}

#[cfg(test)]
mod tests;
