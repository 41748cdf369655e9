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
    programs::Program,
};

/// How long a machine may take until its first process runs. Emulation takes five seconds on an
/// idle machine.
const FIRST_WORD: Duration = Duration::from_mins(3);

/// How long the trial of KVM may take. Some hosts have it and cannot run anything in it: there it
/// hangs, or ends at once; where it works a kernel is through in two seconds.
const TRIAL: Duration = Duration::from_secs(10);

/// What a kernel says first of all.
const GREETING: &str = "Linux version ";

/// What a machine may take beyond the tests' time, which it keeps itself.
const GRACE: Duration = Duration::from_mins(1);

/// How often the trial is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Lines of the console that are shown when there is nothing else to tell.
const LAST_WORDS: usize = 20;

/// Processors of the machine: two, so that programs do run at the same time.
const PROCESSORS: &str = "2";

/// Memory, in MiB.
const MEMORY: &str = "1536";

/// The kernel's parameters: nothing but warnings on the console, the end instead of a halt, and
/// neither work against attacks by the machine's own programs nor against leaks of its memory.
const PARAMETERS: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off init_on_alloc=0";

/// By what the machine's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator.
    Emulation,
}

impl Accelerator {
    /// KVM where a trial with this kernel shows that it works. The trial's console is written to
    /// `console`.
    pub(super) fn choose(qemu: &Program, kernel: &Path, console: &Path) -> Self {
        if !usable(Path::new("/dev/kvm")) {
            return Self::Emulation;
        }
        // Without a disk the kernel panics, and with these parameters that is the end.
        let machine = Machine { qemu, by: Self::Kvm, kernel, disk: None, console };
        let mut command = machine.command();
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = quiet.spawn() else { return Self::Emulation };
        let mut emulator = Emulator(child);
        let begun = Instant::now();
        while begun.elapsed() < TRIAL {
            if matches!(emulator.0.try_wait(), Ok(Some(_))) {
                break;
            }
            thread::sleep(POLL);
        }
        drop(emulator);
        let said = fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(GREETING) {
            return Self::Kvm;
        }
        eprintln!(
            "xtask: KVM runs nothing here: emulation instead, which is some ten times slower"
        );
        Self::Emulation
    }

    /// How many times longer things may take than on a machine that does nothing else.
    pub(super) fn slowness(self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Emulation => 10,
        }
    }

    fn words(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "max"],
            // One thread for both processors. A kernel that attaches a probe replaces instructions,
            // by way of `int3` (text_poke_bp_batch() in arch/x86/kernel/alternative.c). With a
            // thread for each, QEMU 7.2 was seen to run an `int3` that was no longer there, which
            // is the kernel's end ("Oops: int3"): most likely a translation that was being made
            // while another thread replaced the instruction. While machines run side by side it
            // costs nothing.
            // Each feature that a kernel makes use of (pages in five levels, access prevention) is
            // work: this model takes a quarter less time than one that has all.
            Self::Emulation => ["-accel", "tcg,thread=single", "-cpu", "Nehalem,+rdrand"],
        }
    }
}

/// A machine to boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    /// The emulator.
    pub(super) qemu: &'a Program,
    /// What carries out its instructions.
    pub(super) by: Accelerator,
    /// The kernel.
    pub(super) kernel: &'a Path,
    /// The initial RAM disk.
    pub(super) disk: Option<&'a Path>,
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
    /// Boots, passes on what the tests say, each line after `name`, and tells how they ended.
    pub(super) fn boot(&self, name: &str, limit: Duration) -> Result<Boot> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut emulator = Emulator(command.spawn().context("cannot start QEMU")?);
        let lines = lines(emulator.0.stdout.take().context("the machine has no serial port")?);
        let begun = Instant::now();
        let mut deadline = begun + FIRST_WORD;
        let mut alive = false;
        loop {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if alive => {
                    bail!("the tests did not end within {} s", limit.as_secs())
                }
                Err(_) => return Ok(Boot::Mute(self.last_words())),
            };
            match word(&line) {
                Word::Alive => {
                    alive = true;
                    deadline = Instant::now() + limit + GRACE;
                    eprintln!("xtask: {name}: booted in {:.1} s", begun.elapsed().as_secs_f64());
                }
                Word::Ended(code) => return Ok(Boot::Ended(code)),
                Word::Said(text) => writeln!(io::stdout(), "{name}: {text}")?,
            }
        }
    }

    fn command(&self) -> Command {
        let mut console = std::ffi::OsString::from("file:");
        console.push(self.console);
        let mut command = self.qemu.command();
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(self.by.words())
            .args(["-smp", PROCESSORS, "-m", MEMORY])
            .arg("-serial")
            .arg(console)
            .args(["-serial", "stdio", "-append", PARAMETERS])
            .arg("-kernel")
            .arg(self.kernel);
        if let Some(disk) = self.disk {
            command.arg("-initrd").arg(disk);
        }
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
    fn a_machine_that_says_nothing_has_no_last_words() {
        let none = std::env::temp_dir().join("xtask-vm-no-such-kernel");
        let qemu = Program::of_this_machine("/bin/true");
        let by = Accelerator::Emulation;
        let machine = Machine { qemu: &qemu, by, kernel: &none, disk: Some(&none), console: &none };
        let command = machine.command();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert!(words.windows(2).any(|pair| pair == ["-accel", "tcg,thread=single"]), "{words:?}");
        assert!(words.contains(&format!("file:{}", none.display()).into()), "{words:?}");
        // It ends at once.
        let boot = machine.boot("none", Duration::from_secs(1)).expect("a boot");
        assert!(matches!(boot, Boot::Mute(said) if said.is_empty()));
    }
}
