//! The machine: QEMU, what the tests say on its second serial port, and when it is enough.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    image::{ALIVE, ENDED},
    programs::QEMU,
};

/// How long a machine may take until its first process runs. Emulation takes five seconds on an
/// idle machine.
const FIRST_WORD: [(Accelerator, Duration); 2] = [
    // Some hosts have KVM and cannot run anything in it: there it hangs, or ends at once.
    (Accelerator::Kvm, Duration::from_secs(10)),
    (Accelerator::Emulation, Duration::from_mins(2)),
];

/// What a machine may take beyond the tests' time, which it keeps itself.
const GRACE: Duration = Duration::from_mins(1);

/// Lines of the console that are shown when there is nothing else to tell.
const LAST_WORDS: usize = 20;

/// Processors of the machine: two, so that programs do run at the same time.
const PROCESSORS: &str = "2";

/// Memory, in MiB.
const MEMORY: &str = "1536";

/// The kernel's parameters: nothing but warnings on the console, the end instead of a halt, and
/// no work against attacks by the machine's own programs.
const PARAMETERS: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off";

/// By what the machine's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Emulation,
}

/// A machine to boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    /// The kernel.
    pub(super) kernel: &'a Path,
    /// The initial RAM disk.
    pub(super) disk: &'a Path,
    /// Where what the kernel says is written.
    pub(super) console: &'a Path,
}

/// What became of a machine.
#[derive(Debug)]
pub(super) enum Boot {
    /// The tests ended with this code.
    Ended(i32),
    /// It ended before they did; the end of its console.
    Mute(String),
}

/// What a line of the tests' serial port is.
#[derive(Debug, PartialEq, Eq)]
enum Word<'a> {
    Alive,
    Ended(i32),
    Said(&'a str),
}

impl Machine<'_> {
    /// Boots, passes on what the tests say, and tells how they ended.
    pub(super) fn boot(&self, limit: Duration) -> Result<Boot> {
        for (accelerator, first_word) in FIRST_WORD {
            if accelerator == Accelerator::Kvm && !usable(Path::new("/dev/kvm")) {
                continue;
            }
            if let Some(boot) = self.run(accelerator, first_word, limit)? {
                return Ok(boot);
            }
        }
        Ok(Boot::Mute(self.last_words()))
    }

    /// One attempt; `None` if the machine never came to life.
    fn run(
        &self,
        accelerator: Accelerator,
        first_word: Duration,
        limit: Duration,
    ) -> Result<Option<Boot>> {
        let mut emulator = Emulator(
            self.command(accelerator)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                // What it says of itself: with KVM, why there is none.
                .stderr(if accelerator == Accelerator::Kvm {
                    Stdio::null()
                } else {
                    Stdio::inherit()
                })
                .spawn()
                .with_context(|| format!("cannot start {QEMU}"))?,
        );
        let lines = lines(emulator.0.stdout.take().context("the machine has no serial port")?);
        let begun = Instant::now();
        let mut deadline = begun + first_word;
        let mut alive = false;
        let mut out = io::stdout().lock();
        loop {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if alive => {
                    bail!("the tests did not end within {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) if alive => {
                    return Ok(Some(Boot::Mute(self.last_words())));
                }
                Err(_) => return Ok(None),
            };
            match word(&line) {
                Word::Alive => {
                    alive = true;
                    deadline = Instant::now() + limit + GRACE;
                    eprintln!("xtask: booted in {:.1} s", begun.elapsed().as_secs_f64());
                }
                Word::Ended(code) => return Ok(Some(Boot::Ended(code))),
                Word::Said(text) => writeln!(out, "{text}")?,
            }
        }
    }

    fn command(&self, accelerator: Accelerator) -> Command {
        let mut console = std::ffi::OsString::from("file:");
        console.push(self.console);
        let mut command = Command::new(QEMU);
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-accel", if accelerator == Accelerator::Kvm { "kvm" } else { "tcg" }])
            .args(["-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY])
            .arg("-serial")
            .arg(console)
            .args(["-serial", "stdio", "-append", PARAMETERS])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.disk);
        command
    }

    /// The end of what the kernel said.
    fn last_words(&self) -> String {
        let said = fs::read(self.console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

/// A running QEMU; ends when dropped.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Whether this process may open a device.
fn usable(device: &Path) -> bool {
    fs::File::options().read(true).write(true).open(device).is_ok()
}

/// The lines of a pipe, read by a thread, so that they can be waited for within bounds.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn word(line: &str) -> Word<'_> {
    let line = line.trim_end_matches('\r');
    if line == ALIVE {
        return Word::Alive;
    }
    let code = line.strip_prefix(ENDED).and_then(|code| code.trim().parse().ok());
    code.map_or(Word::Said(line), Word::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_told_from_the_tests() {
        assert_eq!(word(&format!("{ALIVE}\r")), Word::Alive);
        assert_eq!(word(&format!("{ENDED} 101")), Word::Ended(101));
        assert_eq!(word("test a ... ok\r"), Word::Said("test a ... ok"));
        assert_eq!(word(&format!("{ENDED} soon")), Word::Said("xtask-vm: ended with soon"));
    }

    #[test]
    fn a_machine_that_says_nothing_is_given_up() {
        let folder = std::env::temp_dir();
        let none = folder.join("xtask-vm-no-such-kernel");
        let machine = Machine { kernel: &none, disk: &none, console: &none };
        let command = machine.command(Accelerator::Emulation);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert!(words.windows(2).any(|pair| pair == ["-accel", "tcg"]), "{words:?}");
        assert!(words.contains(&format!("file:{}", none.display()).into()), "{words:?}");
        assert_eq!(machine.last_words(), "");
    }
}
