//! Terminals of given sizes: the panes of a tmux server of our own.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{ENVIRONMENT, LIMIT};
use crate::{
    bench::{
        tool::{Output, Tool},
        wait,
    },
    process::{capture, find_program},
};

/// A tmux server; it ends with all its programs when dropped.
pub(super) struct Terminals {
    socket: PathBuf,
    server: Tool,
}

impl Terminals {
    /// Starts one that listens on `socket`.
    pub(super) fn start(socket: PathBuf) -> Result<Self> {
        if find_program("tmux").is_none() {
            bail!("there is no tmux, in which `tcpmon top` is drawn: install tmux");
        }
        // In the foreground (-D), so that it cannot outlive this process.
        let mut command = Command::new("tmux");
        command.args(["-D", "-u", "-f", "/dev/null", "-S"]).arg(&socket);
        command.envs(ENVIRONMENT).env_remove("TMUX");
        let mut server = Tool::start("tmux", &mut command, Output::Discard)?;
        wait::until("tmux to listen", LIMIT, || {
            server.check()?;
            Ok(socket.exists())
        })?;
        Ok(Self { socket, server })
    }

    /// Runs a program in a terminal called `name`, of so many columns and rows.
    pub(super) fn run(
        &self,
        name: &str,
        (columns, rows): (u16, u16),
        program: &Path,
        arguments: &[&OsStr],
    ) -> Result<()> {
        let mut command = self.tmux();
        command.args(["new-session", "-d", "-s", name]);
        command.args(["-x", &columns.to_string(), "-y", &rows.to_string(), "--"]);
        capture(command.arg(program).args(arguments)).map(drop)
    }

    /// Waits until these words are on the screen of the terminal `name`, and gives all of it.
    pub(super) fn screen(&mut self, name: &str, words: &[&str]) -> Result<String> {
        let mut screen = String::new();
        wait::until(&format!("{words:?} on the screen of top"), LIMIT, || {
            self.server.check()?;
            screen = capture(self.tmux().args(["capture-pane", "-p", "-t", name]))?;
            Ok(words.iter().all(|word| screen.contains(word)))
        })
        .with_context(|| format!("what is there:\n{screen}"))?;
        Ok(screen)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").arg("-S").arg(&self.socket);
        command
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        // By its own command: it heeds no SIGINT, and its programs get theirs from it.
        let _gone = capture(self.tmux().arg("kill-server"));
    }
}
