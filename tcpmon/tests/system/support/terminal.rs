//! A program in a terminal, driven as a person would drive it: keys go in, the screen is read.
//! The terminal is the one pane of a tmux server of our own.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::program::TCPMON;
use super::{PATIENCE, as_quick_as, eventually};

/// How often the screen is looked at: nothing tells that it has changed.
const LOOKS: Duration = Duration::from_millis(50);

/// Runs the program, and tells how it has left the terminal. It stays then, for the screen to be
/// read: the name of this folder comes first, the program's words follow.
const SCRIPT: &str = r#"
folder=$1; shift
stty -g > "$folder/before"
sh -c 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec "$@"' "$folder/pid" "$@" 2> "$folder/errors"
echo "ended with $?"
stty -g > "$folder/after.new"; mv "$folder/after.new" "$folder/after"
read line
"#;

/// Whether there is a terminal to be had: tmux, which a machine for tests alone may do without.
/// `TCPMON_TMUX=required` says that it may not.
pub(crate) fn is_there() -> bool {
    let is_there = Command::new("tmux").arg("-V").output().is_ok_and(|said| said.status.success());
    let is_required = std::env::var_os("TCPMON_TMUX").is_some_and(|value| value == "required");
    assert!(is_there || !is_required, "there is no tmux");
    is_there
}

/// `tcpmon` in a terminal; both end when dropped.
pub(crate) struct Terminal {
    server: Child,
    folder: TempDir,
}

/// How a program has left its terminal.
#[derive(Debug)]
pub(crate) struct Left {
    /// The screen afterwards, with the exit status.
    pub(crate) screen: String,
    pub(crate) errors: String,
    /// Whether the terminal's settings are what they were, and the screen is the usual one.
    pub(crate) is_as_before: bool,
}

impl Terminal {
    /// Starts `tcpmon` with these arguments in a terminal of 80 columns and 24 rows.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // In the foreground (-D), so that it cannot outlive this thread.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "tmux", "-D", "-u", "-f", "/dev/null", "-S"])
            .arg(folder.path().join("tmux"))
            // Times on the screen are local ones.
            .envs([("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("TERM", "xterm-256color")])
            .env_remove("TMUX")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tmux");
        let terminal = Self { server, folder };
        eventually("tmux to listen", || terminal.path("tmux").exists().then_some(()));
        let place = terminal.path("");
        let place = place.to_str().expect("UTF-8");
        let assignments: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut words = vec!["new-session", "-d", "-x", "80", "-y", "24", "--", "env"];
        words.extend(assignments.iter().map(String::as_str));
        words.extend(["sh", "-c", SCRIPT, "sh", place, TCPMON]);
        words.extend(arguments);
        terminal.tmux(&words);
        terminal
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    fn tmux<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.path("tmux")).args(words);
        let said = command.output().expect("tmux");
        assert!(said.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What is on the screen, with what makes its colours.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as wanted.
    pub(crate) fn wait(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is_wanted(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{screen}");
            thread::sleep(LOOKS);
        }
    }

    /// Waits until all these words are on the screen.
    pub(crate) fn sees(&self, words: &[&str]) -> String {
        self.wait(&format!("{words:?}"), |screen| words.iter().all(|word| screen.contains(word)))
    }

    /// Presses keys, by tmux's names of them.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types letters.
    pub(crate) fn types(&self, letters: &str) {
        self.tmux(&["send-keys", "-l", "--", letters]);
    }

    /// Makes the terminal another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = eventually("its pid", || self.read("pid"));
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("a signal to our own child");
    }

    /// Waits until the program has ended.
    pub(crate) fn left(&self) -> Left {
        let begun = Instant::now();
        let after = eventually("the program to end", || self.read("after"));
        let bound = as_quick_as(Duration::from_secs(2));
        assert!(begun.elapsed() < bound, "it took {:?} to end", begun.elapsed());
        let screen = self.sees(&["ended with"]);
        let alternate = self.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]);
        Left {
            screen,
            errors: self.read("errors").expect("a file"),
            is_as_before: Some(after) == self.read("before") && alternate.trim() == "01",
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.server.kill();
        let _gone = self.server.wait();
    }
}
