//! `cargo xtask manifests`: the files under deploy/ that are made from others there.
//!
//! The Prometheus operator wants the rules inside a document of its own, and a kustomization can
//! neither include a file there nor reach one outside of its folder. So the document is made from
//! the rules, and `tcpmon/tests/deploy.rs` sees that it has been made anew.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{build, setup};

/// The rules that go into the document, in this order.
const RULES: [&str; 2] =
    ["deploy/prometheus/tcpmon.rules.yml", "deploy/prometheus/tcpmon.recording.yml"];

/// The document, from the root of the workspace.
pub const PROMETHEUS_RULE: &str = "deploy/kubernetes/prometheusrule.yaml";

const HEAD: &str = "\
# Of the Prometheus operator. Made by `cargo xtask manifests` from the rules in deploy/prometheus:
# change those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tcpmon
spec:
  groups:
";

/// Writes what is made.
pub fn main() -> Result<()> {
    let path = setup::workspace().join(PROMETHEUS_RULE);
    fs::write(&path, prometheus_rule()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", build::short(&path).display());
    Ok(())
}

/// The rules as the operator wants them.
pub fn prometheus_rule() -> Result<String> {
    let mut document = HEAD.to_owned();
    for file in RULES {
        let groups = groups(&setup::read_source(file)?)
            .with_context(|| format!("{file}: there is no line `groups:`"))?;
        document.push_str(&groups);
    }
    Ok(document)
}

/// What is below `groups:`, one step further in. The text and not its meaning, so that comments
/// and the way that queries are broken into lines stay; a reader of one file knows the other.
fn groups(rules: &str) -> Option<String> {
    let (_, groups) = rules.split_once("\ngroups:\n")?;
    let mut text = String::with_capacity(groups.len() + groups.len() / 8);
    for line in groups.lines() {
        if !line.is_empty() {
            text.push_str("  ");
        }
        text.push_str(line);
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_move_in_by_a_step() {
        let rules = "# About.\ngroups:\n  - name: a\n\n    rules: []\n";
        assert_eq!(groups(rules).as_deref(), Some("    - name: a\n\n      rules: []\n"));
        assert_eq!(groups("rules: []\n"), None);
    }
}
