//! The configuration file of the daemon.
//!
//! Every flag of `tcpmon daemon` has a key of the same name. There is one definition of both, the
//! clap command: what the file says is turned into the flags that it stands for, put before those
//! that the user gave, and read by clap, so that help, checks and defaults cannot differ.

mod file;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use thiserror::Error;

use file::{Entry, Item, Problem, Value};

/// The command that has a configuration file.
const CONFIGURED: &str = "daemon";
/// Its flag, and the id of it, that names another file.
const CONFIG: &str = "config";
/// Far more than any sensible file, so that a wrong path does not fill the memory.
const MAX_BYTES: u64 = 1 << 20;
/// How much alike a wrong key and a right one must be, from 0 to 1, for a suggestion.
const ALIKE: f64 = 0.65;

/// Why there is no configuration. Each is one line but for what clap says itself.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The command line is wrong, or asks for help or the version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1 on.
        line: usize,
        /// Character in the line, from 1 on.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The file and the command line do not go together.
    #[error("the configuration file {} and the command line together: {message}", path.display())]
    Together {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl ConfigError {
    /// The exit code that goes with it: 2, or 0 where help or the version was asked for.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(error) if error.exit_code() == 0 => 0,
            _ => 2,
        }
    }

    /// Writes it where it belongs: help to standard output, complaints to standard error.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn print(&self) -> io::Result<()> {
        match self {
            Self::Arguments(error) => error.print(),
            other => io::Write::write_fmt(&mut io::stderr(), format_args!("tcpmon: {other}\n")),
        }
    }
}

/// Reads the command line and, for the daemon, the configuration file; flags win over the file.
///
/// The file is the one that `--config` names, or `default_path`, which may be missing.
///
/// # Errors
/// The command line or the file is wrong, or the file cannot be read.
pub fn merge(
    command: Command,
    argv: Vec<OsString>,
    default_path: &Path,
) -> Result<ArgMatches, ConfigError> {
    let mut relaxed = command.clone();
    if relaxed.find_subcommand(CONFIGURED).is_some() {
        // What must be given may be given in the file.
        relaxed = relaxed.mut_subcommand(CONFIGURED, |daemon| {
            daemon.mut_args(|argument| argument.required(false))
        });
    }
    relaxed.build();
    let given = relaxed.clone().try_get_matches_from(&argv)?;
    let Some((CONFIGURED, given)) = given.subcommand() else {
        return Ok(command.try_get_matches_from(argv)?);
    };
    let named = given.try_get_raw(CONFIG).ok().flatten().and_then(|mut paths| paths.next());
    let path = named.map_or(default_path, Path::new);
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok(command.try_get_matches_from(argv)?);
        }
        Err(reason) => return Err(ConfigError::Read { path: path.to_owned(), reason }),
    };
    let located = |problem: Problem| {
        let (line, column) = file::position(&text, problem.offset);
        ConfigError::File { path: path.to_owned(), line, column, message: problem.message }
    };
    let mut flags = Vec::new();
    for entry in file::entries(&text).map_err(located)? {
        let (argument, words) = flags_of(&relaxed, &entry).map_err(located)?;
        let by_user = given
            .value_source(argument.get_id().as_str())
            .is_some_and(|source| source != ValueSource::DefaultValue);
        if !by_user {
            flags.extend(words);
        }
    }
    let place = place_of_flags(&relaxed, &argv);
    let mut argv = argv;
    let from_file = !flags.is_empty();
    argv.splice(place..place, flags);
    command.try_get_matches_from(argv).map_err(|error| {
        if from_file {
            ConfigError::Together { path: path.to_owned(), message: first_line(&error) }
        } else {
            error.into()
        }
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Where the daemon's flags begin: behind the word that names the command, which is the first
/// such word that is not the value of a flag.
fn place_of_flags(command: &Command, argv: &[OsString]) -> usize {
    let names_it = |end: usize| {
        let matches = command.clone().try_get_matches_from(&argv[..end]);
        matches.is_ok_and(|matches| matches.subcommand_name() == Some(CONFIGURED))
    };
    (2..=argv.len()).find(|&end| names_it(end)).unwrap_or(argv.len())
}

/// The flag that an entry stands for, and how it would be written on the command line.
fn flags_of<'a>(command: &'a Command, entry: &Entry) -> Result<(&'a Arg, Vec<OsString>), Problem> {
    let key = &entry.key;
    let arguments = || {
        command.find_subcommand(CONFIGURED).into_iter().flat_map(Command::get_arguments).filter(
            |argument| {
                let own = matches!(argument.get_action(), ArgAction::Help | ArgAction::Version);
                !own && argument.get_id() != CONFIG
            },
        )
    };
    let Some(argument) = arguments().find(|argument| argument.get_long() == Some(key)) else {
        let message = match alike(key, arguments().filter_map(Arg::get_long)) {
            Some(other) => format!("unknown key {key:?}; did you mean {other:?}?"),
            None => format!("unknown key {key:?}; `tcpmon {CONFIGURED} --help` lists them"),
        };
        return Err(Problem { offset: entry.offset, message });
    };
    let complain =
        |offset, message: &str| Err(Problem { offset, message: format!("{key} {message}") });
    let takes_value = argument.get_action().takes_values();
    let repeatable = matches!(argument.get_action(), ArgAction::Append);
    let items = match &entry.value {
        Value::Many(_) if !repeatable => return complain(entry.offset, "takes one value, no list"),
        Value::Many(items) if items.is_empty() => {
            return complain(entry.offset, "is an empty list; leave the key out for the default");
        }
        Value::Many(items) => items.as_slice(),
        Value::One(item) => std::slice::from_ref(item),
    };
    let mut words = Vec::new();
    for item in items {
        let word = match (takes_value, item.text.as_str(), item.boolean) {
            (true, text, _) => format!("--{key}={text}"),
            (false, "true", true) => format!("--{key}"),
            (false, "false", true) => continue,
            (false, ..) => return complain(item.offset, "takes true or false"),
        };
        check(command, key, &word, item)?;
        words.push(word.into());
    }
    Ok((argument, words))
}

/// Has clap check one value by itself, so that a complaint is about that line of the file.
fn check(command: &Command, key: &str, word: &str, item: &Item) -> Result<(), Problem> {
    let argv = [OsStr::new("tcpmon"), OsStr::new(CONFIGURED), OsStr::new(word)];
    let Err(error) = command.clone().try_get_matches_from(argv) else { return Ok(()) };
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::TooFewValues
            | ErrorKind::TooManyValues
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::NoEquals
    ) {
        // What goes together with what is for the whole to show.
        return Ok(());
    }
    let reason = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ => match std::error::Error::source(&error) {
            Some(source) => source.to_string(),
            None => first_line(&error),
        },
    };
    let reason = one_line(&reason);
    Err(Problem {
        offset: item.offset,
        message: format!("bad value {:?} of {key}: {reason}", item.text),
    })
}

/// The key most like `key`, if any is like enough; a table too many or too few does not count.
fn alike<'a>(key: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or(key)
    }
    let likeness = |other| {
        [(key, other), (key, last(other)), (last(key), other)]
            .map(|(a, b)| strsim::normalized_damerau_levenshtein(a, b))
            .into_iter()
            .fold(0.0, f64::max)
    };
    keys.map(|other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

/// What clap complains of, without its hints on usage.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    one_line(paragraph.strip_prefix("error: ").unwrap_or(paragraph))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
