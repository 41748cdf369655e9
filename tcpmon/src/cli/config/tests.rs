//! Tests of the configuration file, with a daemon of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "tcpmon", version)]
struct Program {
    #[arg(long, global = true, default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Daemon(Daemon),
    Tail {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Mode {
    Exact,
    Sampled,
}

#[derive(clap::Args, Debug)]
struct Daemon {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long = "web.listen-address", default_value = "127.0.0.1:10066")]
    listen: Vec<SocketAddr>,
    #[arg(long = "web.config.file")]
    web_config: Option<PathBuf>,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    top: u32,
    #[arg(long, required = true)]
    site: String,
    #[arg(long)]
    quiet: bool,
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    probe_stats: bool,
    #[arg(long, value_enum, default_value_t = Mode::Exact)]
    time_wait: Mode,
    #[arg(long, conflicts_with = "quiet")]
    loud: bool,
}

struct Setting {
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(text: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("tcpmon.toml"), text).expect("file");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tcpmon.toml")
    }

    fn merge(&self, line: &str) -> Result<Program, ConfigError> {
        let argv = line.split_whitespace().map(Into::into).collect();
        let matches = merge(Program::command(), argv, &self.path())?;
        Ok(Program::from_arg_matches(&matches)?)
    }

    fn daemon(&self, line: &str) -> Daemon {
        match self.merge(line).expect(line).command {
            What::Daemon(daemon) => daemon,
            What::Tail { .. } => panic!("{line} is no daemon"),
        }
    }

    fn complaint(&self, line: &str) -> String {
        let error = self.merge(line).map(|_| ()).expect_err(line);
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&self.path().display().to_string(), "FILE")
    }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[test]
fn keys_are_flags() {
    let setting = Setting::new(
        b"# what the site wants\n\
          site = \"lab\"\n\
          top = 0x64\n\
          quiet = true\n\
          probe-stats = false\n\
          time-wait = \"sampled\"\n\
          [web]\n\
          config.file = \"-odd=name,x\"\n\
          listen-address = [\"[::1]:1\", \"127.0.0.1:2\"]\n",
    );
    let daemon = setting.daemon("tcpmon daemon");
    assert_eq!((daemon.site.as_str(), daemon.top), ("lab", 100));
    assert_eq!(daemon.listen, addresses(&["[::1]:1", "127.0.0.1:2"]));
    assert_eq!(daemon.web_config, Some("-odd=name,x".into()));
    assert!(daemon.quiet && !daemon.probe_stats && !daemon.loud);
    assert_eq!((daemon.time_wait, daemon.config), (Mode::Sampled, None));
}

#[test]
fn one_value_will_do_for_a_list_and_quoted_keys_are_the_same() {
    let setting = Setting::new(b"site='x'\nquiet=false\n\"web.listen-address\" = '0.0.0.0:1'\n");
    let daemon = setting.daemon("tcpmon daemon");
    assert_eq!(daemon.listen, addresses(&["0.0.0.0:1"]));
    assert!(!daemon.quiet);
}

#[test]
fn flags_win() {
    let setting = Setting::new(
        b"site = 'file'\ntop = 7\nlog = 'debug'\nweb.listen-address = ['127.0.0.1:1']\n",
    );
    let daemon = setting.daemon("tcpmon daemon --site=flag --web.listen-address 127.0.0.1:9");
    assert_eq!((daemon.site.as_str(), daemon.top), ("flag", 7));
    assert_eq!(daemon.listen, addresses(&["127.0.0.1:9"]));
    // A flag that says what the default is has been said all the same.
    assert_eq!(setting.daemon("tcpmon daemon --top 50").top, 50);
    for (line, log) in [
        ("tcpmon daemon", "debug"),
        ("tcpmon --log daemon daemon", "daemon"),
        ("tcpmon --log=warn daemon --top 8", "warn"),
        ("tcpmon daemon --log trace --", "trace"),
        ("tcpmon daemon --", "debug"),
    ] {
        assert_eq!(setting.merge(line).expect(line).log, log, "{line}");
    }
}

#[test]
fn only_the_daemon_has_a_file_and_the_usual_one_may_be_missing() {
    let setting = Setting::new(b"not toml");
    assert!(setting.merge("tcpmon tail").is_ok());
    assert!(matches!(
        setting.merge("tcpmon tail --json").expect("tail").command,
        What::Tail { json: true }
    ));
    std::fs::remove_file(setting.path()).expect("remove");
    assert_eq!(setting.daemon("tcpmon daemon --site x").top, 50);
    // Without a file, what is missing is clap's to tell.
    assert!(setting.complaint("tcpmon daemon").contains("--site"));
    let missing = format!("tcpmon daemon --site x --config {}", setting.path().display());
    assert!(
        setting.complaint(&missing).starts_with("cannot read the configuration file FILE: No such")
    );
}

#[test]
fn a_file_can_be_named() {
    let setting = Setting::new(b"site = 'usual'\n");
    let other = setting.folder.path().join("other.toml");
    std::fs::write(&other, "site = 'other'\n").expect("file");
    for line in ["tcpmon daemon --config=", "tcpmon daemon --top 3 --config "] {
        let daemon = setting.daemon(&format!("{line}{}", other.display()));
        assert_eq!((daemon.site.as_str(), daemon.config.as_deref()), ("other", Some(&*other)));
    }
}

#[test]
fn help_and_version_need_no_file() {
    let setting = Setting::new(b"not toml");
    for line in ["tcpmon --help", "tcpmon daemon --help", "tcpmon --version"] {
        assert_eq!(setting.merge(line).expect_err(line).exit_code(), 0);
    }
    assert_eq!(setting.merge("tcpmon daemon --nonsense").expect_err("flag").exit_code(), 2);
}

#[test]
fn complaints_are_one_line_with_the_place() {
    for (text, complaint) in [
        (
            "site = 'x'\nweb.listen-adress = 1",
            "FILE:2:5: unknown key \"web.listen-adress\"; did you mean \"web.listen-address\"?",
        ),
        ("[web]\nsite = 1", "FILE:2:1: unknown key \"web.site\"; did you mean \"site\"?"),
        (
            "listen-address = 1",
            "FILE:1:1: unknown key \"listen-address\"; did you mean \"web.listen-address\"?",
        ),
        ("probe_stats = 1", "FILE:1:1: unknown key \"probe_stats\"; did you mean \"probe-stats\"?"),
        ("config = 'x'", "FILE:1:1: unknown key \"config\"; `tcpmon daemon --help` lists them"),
        ("help = true", "FILE:1:1: unknown key \"help\"; `tcpmon daemon --help` lists them"),
        ("zzz = 1\naaa = 2", "FILE:1:1: unknown key \"zzz\"; `tcpmon daemon --help` lists them"),
        ("top = 1001", "FILE:1:7: bad value \"1001\" of top: 1001 is not in 1..=1000"),
        ("top = 'ä'", "FILE:1:7: bad value \"ä\" of top: invalid digit found in string"),
        (
            "site = 'ä' \ntop = true",
            "FILE:2:7: bad value \"true\" of top: invalid digit found in string",
        ),
        (
            "web.listen-address = ['[::1]:1', 'x']",
            "FILE:1:34: bad value \"x\" of web.listen-address: invalid socket address syntax",
        ),
        (
            "web.listen-address = []",
            "FILE:1:5: web.listen-address is an empty list; leave the key out for the default",
        ),
        (
            "time-wait = 'both'",
            "FILE:1:13: bad value \"both\" of time-wait: expected one of exact, sampled",
        ),
        ("quiet = 'true'", "FILE:1:9: quiet takes true or false"),
        ("top = [1, 2]", "FILE:1:1: top takes one value, no list"),
        ("web.listen-address = [[1]]", "FILE:1:23: web.listen-address cannot be a list in a list"),
        ("site = 2026-01-01", "FILE:1:8: site cannot be a date or time; write it in quotes"),
        ("site = \"a\\u0000\"", "FILE:1:8: site cannot be text with a NUL byte"),
        ("web.x = 1\n[web]\ny = 1\n", "FILE:2:2: duplicate key"),
        ("\"web.top\" = 1\n[web]\ntop = 1", "FILE:3:1: web.top is given twice"),
        ("site = \n", "FILE:1:8: string values must be quoted, expected literal string"),
        (
            "site = 'x'\nloud = true\nquiet = true",
            "the configuration file FILE and the command line together: the argument '--loud' cannot be used with '--quiet'",
        ),
        (
            "top = 3",
            "the configuration file FILE and the command line together: the following required arguments were not provided:, --site <SITE>",
        ),
    ] {
        assert_eq!(Setting::new(text.as_bytes()).complaint("tcpmon daemon"), complaint, "{text}");
    }
    let latin1 = Setting::new(b"site = 'x'\n# \xe4").complaint("tcpmon daemon");
    assert_eq!(latin1, "FILE:2:3: this is not UTF-8 text");
    let long = Setting::new(&vec![b' '; (1 << 20) + 1]).complaint("tcpmon daemon");
    assert_eq!(long, "cannot read the configuration file FILE: it is longer than 1048576 bytes");
}

#[test]
fn a_bad_value_is_told_even_where_a_flag_wins() {
    let setting = Setting::new(b"site = 'x'\ntop = 0\n");
    assert!(setting.complaint("tcpmon daemon --top 3").starts_with("FILE:2:7: bad value"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_panics(bytes: Vec<u8>) {
        let _ = Setting::new(&bytes).merge("tcpmon daemon");
    }

    #[test]
    fn no_likely_file_panics(
        text in "(\\[?(web|top|site|quiet|listen-address|log)[]. =]{1,3}('[a-z=-]{0,4}'|[0-9-]{1,30}|true|\\[1, 'x'\\]|\\{\\})?\n){0,4}",
    ) {
        if let Err(error) = Setting::new(text.as_bytes()).merge("tcpmon daemon") {
            prop_assert_eq!(error.exit_code(), 2);
            let clap_itself = matches!(error, ConfigError::Arguments(_));
            prop_assert!(clap_itself || !error.to_string().contains('\n'), "{}", error);
        }
    }

    #[test]
    fn places_are_inside(bytes: Vec<u8>, offset: usize) {
        let (line, column) = file::position(&bytes, offset);
        prop_assert!(line >= 1 && column >= 1);
    }
}
