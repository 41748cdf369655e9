//! What a package installs where: the same for all kinds of package.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Release, output};
use crate::{process::step, setup};

/// What a file is to a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Program,
    Data,
    /// An administrator's from the first installation on.
    Configuration,
}

impl Kind {
    /// Who may do what with the file.
    pub(super) const fn mode(self) -> u16 {
        match self {
            Self::Program => 0o755,
            Self::Data | Self::Configuration => 0o644,
        }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Without the leading slash.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
}

/// All files, in the order of their paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree(Vec<Entry>);

/// Files of this repository that are installed as they are: from, to.
const FILES: [(&str, &str); 10] = [
    ("deploy/systemd/tcpmon.service", "usr/lib/systemd/system/tcpmon.service"),
    ("deploy/systemd/tcpmon.sysusers", "usr/lib/sysusers.d/tcpmon.conf"),
    ("deploy/systemd/tcpmon.socket", "usr/share/doc/tcpmon/examples/tcpmon.socket"),
    ("deploy/systemd/host.conf", "usr/share/doc/tcpmon/examples/host.conf"),
    ("LICENSE-MIT", "usr/share/doc/tcpmon/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/tcpmon/LICENSE-APACHE"),
    ("LICENSE-MIT", "usr/share/doc/tcpmon/copyright"),
    ("README.md", "usr/share/doc/tcpmon/README.md"),
    ("SECURITY.md", "usr/share/doc/tcpmon/SECURITY.md"),
    ("deploy/container/Containerfile", "usr/share/doc/tcpmon/examples/Containerfile"),
];

/// Folders whose files are installed as they are.
const FOLDERS: [(&str, &str); 3] = [
    ("docs", "usr/share/doc/tcpmon/docs"),
    ("deploy/prometheus", "usr/share/tcpmon/prometheus"),
    ("deploy/grafana", "usr/share/tcpmon/grafana"),
];

/// Shells, and where each looks for completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/tcpmon"),
    ("zsh", "usr/share/zsh/vendor-completions/_tcpmon"),
    ("fish", "usr/share/fish/vendor_completions.d/tcpmon.fish"),
];

impl Tree {
    /// All that belongs to a release.
    pub(super) fn of(release: &Release) -> Result<Self> {
        let mut tree = Self::default();
        let root = setup::workspace();
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        tree.add("usr/bin/tcpmon", read(&release.binary)?, Kind::Program);
        let example = output(Command::new(&release.binary).arg("example-config"))?;
        tree.add("etc/tcpmon/tcpmon.toml", example, Kind::Configuration);
        for (from, to) in FILES {
            tree.add(to, read(&root.join(from))?, Kind::Data);
        }
        for (from, to) in FOLDERS {
            tree.add_folder(&root.join(from), to)?;
        }
        if let Err(error) = step("man pages and completions", || tree.add_generated(release)) {
            eprintln!("xtask: packed without them: {error:#}");
        }
        tree.0.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(tree)
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, kind: Kind) {
        self.0.push(Entry { path: path.to_owned(), bytes, kind });
    }

    fn add_folder(&mut self, from: &Path, to: &str) -> Result<()> {
        let entries = fs::read_dir(from)
            .with_context(|| format!("cannot pack the folder {}", from.display()))?;
        for entry in entries {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let to = format!("{to}/{}", name.to_string_lossy());
            if entry.is_dir() {
                self.add_folder(&entry, &to)?;
            } else {
                self.add(&to, fs::read(&entry)?, Kind::Data);
            }
        }
        Ok(())
    }

    /// What the program tells of itself.
    fn add_generated(&mut self, release: &Release) -> Result<()> {
        let generate = || {
            let mut command = Command::new(&release.binary);
            command.arg("generate");
            command
        };
        let folder = release.out.join(".man");
        output(generate().arg("man").arg(&folder))?;
        for entry in fs::read_dir(&folder)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            // gzip -n: neither name nor time.
            let packed = output(Command::new("gzip").args(["-9nc"]).arg(&path))?;
            let to = format!("usr/share/man/man1/{}.gz", name.to_string_lossy());
            self.add(&to, packed, Kind::Data);
        }
        fs::remove_dir_all(folder)?;
        for (shell, to) in SHELLS {
            self.add(to, output(generate().args(["completions", shell]))?, Kind::Data);
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Writes all files below a folder, with the modes that they are to have.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        for entry in &self.0 {
            let path = root.join(&entry.path);
            let folder = path.parent().context("a file has a folder")?;
            fs::create_dir_all(folder)?;
            fs::write(&path, &entry.bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.kind.mode().into()))?;
        }
        open_folders(root)
    }
}

/// Whatever umask there is, everybody may look into the folders.
fn open_folders(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            open_folders(&path)?;
        }
    }
    Ok(())
}
