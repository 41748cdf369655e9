//! The configuration file that packages install: every key, explained, with its default, from the
//! one definition of the options.

use clap::{Arg, ArgAction, Command};
use std::fmt::Write as _;

/// Columns that explanations may take.
const WIDTH: usize = 100;

const HEAD: &str = "\
# Configuration of `tcpmon daemon`. Every key is a flag of the same name; flags win over this file.
# Lines that begin with `#` and a key show its default. `systemctl reload tcpmon` puts log-level
# and the file of web.config.file into force; what else is changed takes a restart.
";

/// The text of the file; `daemon` is the definition of the command that it configures.
#[must_use]
pub fn text(daemon: &Command) -> String {
    let mut text = HEAD.to_owned();
    let hidden = |arg: &&Arg| {
        arg.is_hide_set() || matches!(arg.get_action(), ArgAction::Help | ArgAction::Version)
    };
    for argument in daemon.get_arguments().filter(|argument| !hidden(argument)) {
        let Some(name) = argument.get_long().filter(|name| *name != "config") else { continue };
        text.push('\n');
        let help = argument.get_long_help().or(argument.get_help());
        explain(&help.map(ToString::to_string).unwrap_or_default(), &mut text);
        let choices: Vec<_> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name().to_owned())
            .collect();
        if !choices.is_empty() && argument.get_action().takes_values() && !is_boolean(&choices) {
            explain(&format!("One of: {}", choices.join(", ")), &mut text);
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "#{name} = {}", value(argument, &choices));
    }
    text
}

fn explain(help: &str, text: &mut String) {
    let mut line = String::from("#");
    for word in help.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

fn is_boolean(choices: &[String]) -> bool {
    choices.iter().all(|choice| matches!(choice.as_str(), "true" | "false"))
}

/// The default as TOML has it; where there is none, something of its kind.
fn value(argument: &Arg, choices: &[String]) -> String {
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let one = |text: &str| {
        let boolean = matches!(text, "true" | "false") && is_boolean(choices);
        if boolean || text.parse::<f64>().is_ok() { text.to_owned() } else { format!("{text:?}") }
    };
    let name = argument.get_value_names().and_then(|names| names.first());
    let defaults = match (defaults.is_empty(), name) {
        (false, _) => defaults.iter().map(|text| one(text)).collect(),
        (true, _) if !argument.get_action().takes_values() => vec!["false".to_owned()],
        (true, name) => vec![format!("{:?}", name.map_or("", |name| name.as_str()))],
    };
    if matches!(argument.get_action(), ArgAction::Append) {
        format!("[{}]", defaults.join(", "))
    } else {
        defaults.join("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Arguments, config};
    use clap::CommandFactory as _;

    fn command() -> Command {
        Arguments::command()
    }

    fn example() -> String {
        text(command().find_subcommand("daemon").expect("the daemon"))
    }

    #[test]
    fn every_key_is_there_and_its_default_will_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tcpmon.toml");
        let example = example();
        let keys: Vec<_> = example.lines().filter(|line| is_key(line)).collect();
        assert!(keys.len() > 15, "{example}");
        for argument in command().find_subcommand("daemon").expect("the daemon").get_arguments() {
            if let Some(name) =
                argument.get_long().filter(|name| !["config", "help"].contains(name))
            {
                assert!(keys.iter().any(|line| line.starts_with(&format!("#{name} = "))), "{name}");
            }
        }
        let live = keys.iter().map(|line| &line[1..]).collect::<Vec<_>>().join("\n");
        for text in [&example, &live] {
            std::fs::write(&file, text).expect("written");
            let argv = vec!["tcpmon".into(), "daemon".into(), "--config".into(), (&file).into()];
            let read = config::merge(command(), argv, std::path::Path::new("/nowhere"));
            read.unwrap_or_else(|error| panic!("{error} in\n{text}"));
        }
    }

    fn is_key(line: &str) -> bool {
        line.strip_prefix('#').is_some_and(|rest| !rest.starts_with(' ') && rest.contains(" = "))
    }

    #[test]
    fn it_is_made_for_reading() {
        let example = example();
        assert!(example.contains("#web.listen-address = [\"127.0.0.1:10066\"]\n"), "{example}");
        assert!(example.contains("#probe-stats = true\n") && example.contains("#top = 50\n"));
        assert!(example.contains("# One of: all, host\n#namespaces = \"all\"\n"), "{example}");
        assert!(example.lines().all(|line| line.len() <= WIDTH), "{example}");
    }
}
