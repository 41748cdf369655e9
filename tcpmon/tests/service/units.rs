//! The unit files, read as far as the tests need them, and what systemd-analyze says of them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A file of this repository.
pub(crate) fn read(name: &str) -> String {
    let path = folder().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Says so where there is none: a virtual machine of ours has no systemd.
pub(crate) fn has_systemd_analyze() -> Option<()> {
    let there = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status();
    if there.is_err() {
        eprintln!("not looked at: there is no systemd-analyze");
    }
    there.ok().map(|_| ())
}

/// The lines of the unit, and of a drop-in behind them.
pub(crate) struct Unit(Vec<(String, String)>);

impl Unit {
    pub(crate) fn new(drop_in: Option<&str>) -> Self {
        let mut text = read("deploy/systemd/tcpmon.service");
        text += &drop_in.map(|name| read(&format!("deploy/systemd/{name}"))).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once('='));
        Self(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The words of a list: an empty one forgets what was before.
    fn words(&self, key: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for (_, value) in self.0.iter().filter(|(own, _)| own == key) {
            if value.is_empty() {
                words.clear();
            }
            words.extend(value.split_whitespace());
        }
        words
    }

    pub(crate) fn capabilities(&self, key: &str) -> Vec<String> {
        self.words(key).into_iter().map(str::to_owned).collect()
    }

    /// Of which families it may have sockets.
    pub(crate) fn address_families(&self) -> BTreeSet<String> {
        self.words("RestrictAddressFamilies").into_iter().map(str::to_owned).collect()
    }

    /// What SystemCallFilter= lets through.
    pub(crate) fn system_calls(&self) -> BTreeSet<String> {
        let mut allowed = BTreeSet::new();
        expand("@default", &mut allowed);
        for (_, value) in self.0.iter().filter(|(key, _)| key == "SystemCallFilter") {
            match value.strip_prefix('~') {
                None => value.split(' ').for_each(|name| expand(name, &mut allowed)),
                Some(taken) => {
                    let mut away = BTreeSet::new();
                    taken.split(' ').for_each(|name| expand(name, &mut away));
                    allowed.retain(|name| !away.contains(name));
                }
            }
        }
        allowed
    }
}

/// A system call, or all of a set.
fn expand(name: &str, into: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        into.insert(name.to_owned());
        return;
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = String::from_utf8(output.expect("systemd-analyze").stdout).expect("UTF-8");
    let members = output.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#'));
    members.filter(|line| !line.is_empty()).for_each(|member| expand(member, into));
}

/// A folder that looks like the root of a system with the unit in it.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new(drop_in: Option<&str>) -> Self {
        let root = Self(tempfile::tempdir().expect("a folder"));
        let units = "usr/lib/systemd/system";
        for unit in ["tcpmon.service", "tcpmon.socket"] {
            root.put(&format!("{units}/{unit}"), &read(&format!("deploy/systemd/{unit}")));
        }
        if let Some(name) = drop_in {
            let text = read(&format!("deploy/systemd/{name}"));
            root.put(&format!("etc/systemd/system/tcpmon.service.d/{name}"), &text);
        }
        for program in ["usr/bin/tcpmon", "bin/kill"] {
            root.put(program, "#!/bin/sh\n");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(root.0.path().join(program), mode).expect("a mode");
        }
        for entry in fs::read_dir("/usr/lib/systemd/system").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".target") {
                let _ = fs::copy(entry.path(), root.0.path().join(units).join(entry.file_name()));
            }
        }
        root
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn analyze(&self, words: &[&str]) -> String {
        let mut command = Command::new("systemd-analyze");
        let root = format!("--root={}", self.0.path().display());
        let output = command.args([words[0], &root]).args(&words[1..]).output();
        let output = output.expect("systemd-analyze");
        let told = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command:?}: {told}");
        told
    }

    pub(crate) fn verify(&self, units: &[&str]) {
        let told = self.analyze(&[&["verify"], units].concat());
        assert_eq!(told, "", "systemd-analyze verify");
    }

    pub(crate) fn exposure(&self, unit: &str) -> f64 {
        let told = self.analyze(&["security", "--offline=true", "--no-pager", unit]);
        let (_, rest) = told.split_once("Overall exposure level for").expect(&told);
        let score = rest.split_once(": ").and_then(|(_, score)| score.split(' ').next());
        score.and_then(|score| score.parse().ok()).expect(rest)
    }
}
