//! What to type: the examples of help texts and man pages, and the meaning of exit codes.

use clap::Command;

/// A command line, and what it is for.
pub type Example = (&'static str, &'static str);

/// What the exit code of every command says.
pub const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "Done; also where nobody read the output to its end (`tcpmon tail | head`)."),
    ("1", "The work failed; one line on standard error says why, and what to do."),
    ("2", "The arguments or the configuration are wrong."),
];

/// What the exit code of `tcpmon report --exit-code` says.
pub const REPORT_CODES: [(&str, &str); 2] = [
    ("3", "With --exit-code: an alert of severity warning fires."),
    ("4", "With --exit-code: an alert of severity critical fires."),
];

/// Examples of a command; of the program itself for `tcpmon`.
#[must_use]
pub fn of(command: &str) -> &'static [Example] {
    match command {
        "tcpmon" => &[
            ("tcpmon check", "Can it run here?"),
            ("sudo tcpmon daemon", "Watch, and serve what is seen"),
            ("tcpmon tail --state time_wait", "Who leaves TIME_WAIT, live"),
            ("tcpmon report", "Where the ports go, and what to do"),
            ("tcpmon advise --rate 2000", "What 2,000 new connections a second take"),
            ("tcpmon explain time_wait", "What that is"),
        ],
        "daemon" => &[
            ("sudo tcpmon daemon", "Serve on 127.0.0.1:10066 and the Unix socket"),
            (
                "sudo tcpmon daemon --web.listen-address [::1]:10066",
                "Serve on another address; the option may be repeated",
            ),
            (
                "sudo tcpmon daemon --alertmanager.url http://alertmanager:9093",
                "Push alerts to Alertmanager",
            ),
        ],
        "tail" => &[
            ("tcpmon tail", "Everything"),
            ("tcpmon tail --state time_wait --netns host", "Who enters and leaves TIME_WAIT"),
            ("tcpmon tail --dport 5432 --service api", "One service towards one port"),
            ("tcpmon tail --json --count 10", "Ten transitions for a script"),
        ],
        "check" => &[
            ("tcpmon check", "Each requirement, and what to do about those not met"),
            ("tcpmon check --json", "The same for a script; the exit code answers too"),
        ],
        "explain" => &[
            ("tcpmon explain", "The state diagram, step by step"),
            ("tcpmon explain time_wait", "One state, with this machine's own figures"),
            ("tcpmon explain CLOSE-WAIT | less -R", "Every usual spelling is understood"),
        ],
        "top" => &[
            ("tcpmon top", "Live, full screen; ? shows the keys"),
            ("tcpmon top --interval 5", "Over a slow line"),
        ],
        "advise" => &[
            ("tcpmon advise", "From what the daemon observes"),
            ("tcpmon advise --rate 2000 --dest-count 2", "What 2,000 connections a second take"),
            (
                "tcpmon advise --sysctl-file 90-tcpmon.conf",
                "Write the host's sysctls to a file to install",
            ),
            ("tcpmon advise --netns shop", "For one network namespace"),
        ],
        "report" => &[
            ("tcpmon report", "One look, now"),
            ("tcpmon report --netns host", "Of one network namespace"),
            ("tcpmon report --exit-code > /dev/null", "For scripts: 3 warning, 4 critical"),
            ("tcpmon report --json", "For programs"),
        ],
        _ => &[],
    }
}

/// The command with its examples below each help text.
#[must_use]
pub fn with_examples(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let own = help_text(command.get_name());
    let mut command = command.after_long_help(own);
    for name in names {
        let text = help_text(&name);
        if !text.is_empty() {
            command = command.mut_subcommand(name, |command| command.after_long_help(text));
        }
    }
    command
}

/// Examples of a command, as help shows them.
fn help_text(command: &str) -> String {
    let examples = of(command);
    if examples.is_empty() {
        return String::new();
    }
    let lines: Vec<String> =
        examples.iter().map(|(line, purpose)| format!("  {line}\n      {purpose}")).collect();
    format!("Examples:\n{}", lines.join("\n"))
}
