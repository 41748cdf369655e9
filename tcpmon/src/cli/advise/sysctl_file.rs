//! `--sysctl-file`: the sysctls that are advised, as sysctl.d(5) has them, for one network
//! namespace, since each has values of its own.
//!
//! It may be root who writes, and into a folder that is not root's alone: so nothing follows a
//! symbolic link, nothing that is there is written to, and no name that somebody else has chosen
//! can end a line.

use crate::{
    cli::{Misuse, columns::printable},
    kernel::netns::HOST,
    model::report::AdviceRow,
};
use anyhow::{Context as _, bail};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
};

/// The first line of a file that this program has written and may write again.
const SIGNATURE: &str = "# Written by tcpmon advise; it is written anew by the next --sysctl-file.";

/// The sysctl and its value, where advice is to set one.
fn setting(row: &AdviceRow) -> Option<(&str, &str)> {
    let (key, value) = row.command.strip_prefix("sysctl -w ")?.split_once('=')?;
    Some((key, value.trim_matches('"')))
}

/// Whether advice is meant for that namespace; a plan's is for the one that it was made in.
fn is_for(row: &AdviceRow, netns: &str) -> bool {
    row.netns.is_empty() || row.netns == netns
}

/// What goes into the file.
fn text(advice: &[AdviceRow], netns: &str) -> String {
    let mut text = format!("{SIGNATURE}\n");
    // A String takes all that is written to it.
    if netns != HOST {
        let netns = printable(netns);
        let _ = writeln!(
            text,
            "# For the network namespace {netns}: to be applied in there, not on the host."
        );
    }
    let mut written = HashSet::new();
    for row in advice.iter().filter(|row| is_for(row, netns)) {
        let Some((key, value)) = setting(row) else { continue };
        // The first one is the most useful.
        if written.insert(key) {
            let [reason, key, value] = [&row.reason, key, value].map(printable);
            let _ = writeln!(text, "\n# {reason}\n{key} = {value}");
        }
    }
    text
}

/// Other namespaces that sysctls are advised for.
pub(super) fn others(advice: &[AdviceRow], netns: &str) -> BTreeSet<String> {
    let theirs = advice.iter().filter(|row| !is_for(row, netns) && setting(row).is_some());
    theirs.map(|row| printable(&row.netns).into_owned()).collect()
}

/// Writes the file, unless somebody else's is there.
///
/// # Errors
///
/// Where it is, or the file cannot be written.
pub(super) fn write(path: &Path, advice: &[AdviceRow], netns: &str) -> anyhow::Result<()> {
    let shown = path.display();
    if !may_replace(path)? {
        return Err(Misuse(format!(
            "{shown} is not of tcpmon's making and stays as it is; name another --sysctl-file"
        ))
        .into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().with_context(|| format!("{shown} names no file"))?;
    // Whole or not at all.
    let draft = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut file = match File::create_new(&draft) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
            "cannot write {shown}: the draft {} is there already; remove it, or name another \
             --sysctl-file",
            draft.display()
        ),
        Err(error) => bail!("cannot write {shown}: {error}; name another --sysctl-file"),
    };
    let written = file.write_all(text(advice, netns).as_bytes());
    if let Err(error) = written.and_then(|()| fs::rename(&draft, path)) {
        let _ = fs::remove_file(&draft);
        bail!("cannot write {shown}: {error}; name another --sysctl-file");
    }
    Ok(())
}

/// Whether there is nothing yet, or a file of this program's.
fn may_replace(path: &Path) -> anyhow::Result<bool> {
    // A pipe is not waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let cannot = |error: io::Error| {
        anyhow::anyhow!("cannot read {}: {error}; name another --sysctl-file", path.display())
    };
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(true),
        // A symbolic link.
        Err(Errno::LOOP) => return Ok(false),
        Err(error) => return Err(cannot(error.into())),
    };
    if !file.metadata().map_err(cannot)?.is_file() {
        return Ok(false);
    }
    let mut first = Vec::new();
    file.take(SIGNATURE.len() as u64).read_to_end(&mut first).map_err(cannot)?;
    Ok(first == SIGNATURE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::plan::plan;
    use std::os::unix::fs::symlink;

    fn row(netns: &str, command: &str) -> AdviceRow {
        AdviceRow {
            netns: netns.to_owned(),
            reason: "because".to_owned(),
            command: command.to_owned(),
            ..AdviceRow::default()
        }
    }

    #[test]
    fn only_sysctls_go_into_the_file() {
        let text = text(&plan(2_000.0, 1, None).advice, HOST);
        assert!(text.starts_with(SIGNATURE));
        assert!(text.contains("\nnet.ipv4.ip_local_port_range = 2048 65001\n"), "{text}");
        assert!(text.contains("\nnet.ipv4.tcp_tw_reuse = 1\n"), "{text}");
        assert!(!text.contains("ip address"), "{text}");
    }

    #[test]
    fn each_namespace_has_its_own() {
        let advice = [
            row("blue", "sysctl -w net.ipv4.tcp_max_tw_buckets=65536"),
            row("host", "sysctl -w net.ipv4.tcp_max_tw_buckets=524288"),
            row("host", "sysctl -w net.ipv4.tcp_max_tw_buckets=1048576"),
            row("red", "ss -tnp"),
        ];
        for (netns, value, others_are) in [
            ("host", Some("524288"), "blue"),
            ("blue", Some("65536"), "host"),
            ("red", None, "blue host"),
        ] {
            let text = text(&advice, netns);
            let values: Vec<&str> =
                text.lines().filter_map(|line| line.split_once(" = ")).map(|it| it.1).collect();
            assert_eq!(values, Vec::from_iter(value), "{netns}: {text}");
            assert_eq!(text.contains("in there, not on the host"), netns != HOST);
            let others: Vec<String> = others(&advice, netns).into_iter().collect();
            assert_eq!(others.join(" "), others_are, "{netns}");
        }
    }

    #[test]
    fn a_name_cannot_end_a_line() {
        let evil = "x\nkernel.core_pattern = |/tmp/x\n";
        let advice = [AdviceRow {
            reason: evil.to_owned(),
            ..row(evil, "sysctl -w net.ipv4.tcp_tw_reuse=1\nkernel.panic = 1")
        }];
        let text = text(&advice, evil);
        for line in text.lines().filter(|line| !line.is_empty()) {
            assert!(
                line.starts_with('#') || line.starts_with("net.ipv4.tcp_tw_reuse = "),
                "{text}"
            );
        }
        assert!(others(&advice, HOST).iter().all(|name| !name.contains('\n')));
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("90-tcpmon.conf");
        write(&path, &[], HOST).expect("written");
        write(&path, &plan(2_000.0, 1, None).advice, HOST).expect("written again");
        let ours = fs::read_to_string(&path).expect("a file");
        assert!(ours.contains("tcp_tw_reuse"), "{ours}");

        // Links to nothing, and to a file of ours: what is behind them is not touched.
        for (name, target) in [("dangling", "nothing"), ("link", "90-tcpmon.conf")] {
            symlink(target, folder.path().join(name)).expect("a link");
        }
        fs::write(folder.path().join("mine"), "mine\n").expect("written");
        fs::create_dir(folder.path().join("folder")).expect("a folder");
        for name in ["dangling", "link", "mine", "folder"] {
            let refused = write(&folder.path().join(name), &[], HOST).expect_err(name);
            let said = refused.to_string();
            assert!(refused.is::<Misuse>() && said.contains("stays as it is"), "{name}: {said}");
        }
        assert_eq!(fs::read_to_string(&path).expect("a file"), ours);
        assert_eq!(fs::read_to_string(folder.path().join("mine")).expect("a file"), "mine\n");

        // Somebody has guessed the draft's name: nothing is written through it.
        let draft = folder.path().join(format!(".90-tcpmon.conf.{}", std::process::id()));
        symlink("mine", &draft).expect("a link");
        let refused = write(&path, &[], HOST).expect_err("refused").to_string();
        assert!(refused.contains("is there already") && !refused.contains('\n'), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join("mine")).expect("a file"), "mine\n");
        fs::remove_file(&draft).expect("removed");
        // No draft is left behind.
        let names = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(names, 5);
    }
}
