//! `tcpmon generate`, which is hidden: man pages and completions, from the one definition of the
//! commands. For those who package the program, and for those who have only the binary.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{OutputError, examples};

/// Options of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write the man pages of all commands into a folder
    Man {
        /// The folder; it is made where it is missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Write the completions for a shell to standard output
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

/// Writes what is asked for.
///
/// # Errors
///
/// Where it cannot be written.
pub fn run(args: &GenerateArgs, command: Command) -> anyhow::Result<()> {
    match &args.what {
        What::Man { folder } => {
            write_man(folder, command)
                .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
        }
        What::Completions { shell } => {
            let text = completions(*shell, command);
            let mut out = io::stdout().lock();
            out.write_all(&text).and_then(|()| out.flush()).map_err(OutputError)?;
        }
    }
    Ok(())
}

fn write_man(folder: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, page) in man_pages(command)? {
        fs::write(folder.join(name), page)?;
    }
    Ok(())
}

/// The completions of a shell.
fn completions(shell: Shell, mut command: Command) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "tcpmon", &mut text);
    text
}

/// The man page of the program and of each command that is not hidden, with its file's name.
fn man_pages(command: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let commands: Vec<Command> = std::iter::once(&command)
        .chain(command.get_subcommands().filter(|command| !command.is_hide_set()))
        .cloned()
        .collect();
    let names: Vec<String> = commands.iter().map(page_name).collect();
    commands
        .into_iter()
        .zip(&names)
        .map(|(command, name)| Ok((format!("{name}.1"), man_page(command, name, &names)?)))
        .collect()
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn man_page(command: Command, name: &str, names: &[String]) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let short = command.get_name().to_owned();
    let program = command.has_subcommands();
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command)
        .title(name.to_uppercase())
        .source(format!("tcpmon {version}"))
        .manual("tcpmon");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if program {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::default();
    rest.control("SH", ["EXIT STATUS"]);
    let more = if short == "report" { &examples::REPORT_CODES[..] } else { &[] };
    for (code, meaning) in examples::EXIT_CODES.iter().chain(more) {
        rest.control("TP", []);
        rest.text([bold(*code)]);
        rest.text([roman(*meaning)]);
    }
    rest.control("SH", ["FILES"]);
    for (file, meaning) in [
        (super::DEFAULT_CONFIG, "Configuration of the daemon; every option of it is a key."),
        (super::DEFAULT_SOCKET, "Where the daemon serves the other commands."),
    ] {
        rest.control("TP", []);
        rest.text([bold(file)]);
        rest.text([roman(meaning)]);
    }
    rest.control("SH", ["EXAMPLES"]);
    for (line, purpose) in examples::of(&short) {
        rest.control("TP", []);
        rest.text([bold(*line)]);
        rest.text([roman(*purpose)]);
    }
    rest.control("SH", ["SEE ALSO"]);
    let others: Vec<String> = names
        .iter()
        .filter(|other| *other != name)
        .map(|other| format!("{other}(1)"))
        .chain(["ss(8)".to_owned(), "tcp(7)".to_owned()])
        .collect();
    rest.text([roman(others.join(", "))]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command as Process, Stdio};

    fn all() -> Command {
        crate::cli::command()
    }

    #[test]
    fn every_command_has_a_page_without_empty_sections() {
        let pages = man_pages(all()).expect("pages");
        let visible = all().get_subcommands().filter(|command| !command.is_hide_set()).count();
        assert_eq!(pages.len(), visible + 1);
        for (name, page) in pages {
            let page = String::from_utf8(page).expect("UTF-8");
            let sections: Vec<&str> = page.split("\n.SH ").skip(1).collect();
            assert!(sections.len() >= 8, "{name} has {} sections", sections.len());
            for section in sections {
                let (heading, body) = section.split_once('\n').expect("a heading");
                let words = body.lines().filter(|line| !line.starts_with('.'));
                assert!(words.map(str::len).sum::<usize>() > 5, "{name}: {heading} is empty");
            }
        }
    }

    #[test]
    fn every_command_teaches() {
        let mut command = all();
        command.build();
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.contains('\n') && about.len() < 80, "{name}");
            assert!(long.len() > about.len() + 40, "{name} has no long text");
            assert!(!examples::of(name).is_empty(), "{name} has no examples");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
            }
        }
    }

    #[test]
    fn every_example_is_understood() {
        for name in ["tcpmon", "daemon", "tail", "check", "explain", "report"] {
            for (line, _) in examples::of(name) {
                let words = line.trim_start_matches("sudo ").split(['|', '>']).next();
                let words = words.unwrap_or_default().split_whitespace();
                all().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn shells_accept_their_completions() {
        for (shell, program) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")]
        {
            let text = completions(shell, all());
            let words = String::from_utf8_lossy(&text);
            for name in ["daemon", "tail", "check", "explain", "report", "time_wait"] {
                assert!(words.contains(name), "{program}: {name}");
            }
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("completions");
            fs::write(&file, &text).expect("a file");
            // Not every machine has every shell; bash there always is.
            match Process::new(program).arg("-n").arg(&file).stdin(Stdio::null()).output() {
                Ok(output) => assert!(
                    output.status.success(),
                    "{program}: {}",
                    String::from_utf8_lossy(&output.stderr)
                ),
                Err(error) => assert_ne!(program, "bash", "{error}"),
            }
        }
    }
}
