//! The package for Fedora and its kin, by the crate `rpm`: rpmbuild would want a tree of folders, a
//! spec file and a machine that has it.
//!
//! The files are the .deb's, the scripts do what Fedora's macros for systemd do. Packed by zstd, as
//! Fedora's own: every rpm that comes with a new enough kernel reads it. The crate's gzip would choose
//! another implementation of it for the daemon too, wherever both are built at once, as for tests.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};
use rpm::{
    BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder, Scriptlet,
    Timestamp,
};

use super::{
    Release,
    tree::{Entry, Kind, Tree},
};
use crate::setup;

/// Where zsh looks here and where it looks on Debian; other paths are the same.
const ZSH: [&str; 2] = ["usr/share/zsh/site-functions/", "usr/share/zsh/vendor-completions/"];

/// The package's own number, beside the version of what is in it.
const REVISION: &str = "1";

pub(super) fn make(release: &Release, tree: &Tree) -> Result<()> {
    let (summary, description) = about()?;
    // `-` divides version and revision; `~` is before the version without it.
    let version = release.version.replace('-', "~");
    let arch = Release::machine();
    let mut package = PackageBuilder::new("tcpmon", &version, "MIT OR Apache-2.0", arch, &summary);
    let time = u32::try_from(release.time).context("the time of the commit")?;
    let config = BuildConfig::v4().compression(CompressionWithLevel::Zstd(19));
    package.using_config(config.source_date(Timestamp(time)));
    package.release(REVISION).description(description).build_host("localhost");
    for folder in own_folders(tree) {
        package.with_dir_entry(FileOptions::dir(folder).permissions(0o755))?;
    }
    for entry in tree.entries() {
        add(&mut package, entry)?;
    }
    package.post_install_script(script("post")?);
    package.pre_uninstall_script(script("preun")?);
    package.post_uninstall_script(script("postun")?);
    // Needed by no means, but where both are installed at once the scripts find it.
    package.order_with_requires(Dependency::any("systemd"));
    let name = format!("tcpmon-{version}-{REVISION}.{arch}.rpm");
    let package = package.build().context("the crate rpm makes the .rpm")?;
    package.write_file(release.out.join(name))?;
    Ok(())
}

/// Summary and description, from Debian's control file: one text for both.
fn about() -> Result<(String, String)> {
    const CONTROL: &str = "deploy/debian/control";
    description(&setup::read_source(CONTROL)?)
        .with_context(|| format!("{CONTROL} has no description"))
}

fn description(control: &str) -> Option<(String, String)> {
    let mut lines = control.lines().skip_while(|line| !line.starts_with("Description: "));
    let summary = lines.next()?.strip_prefix("Description: ")?.to_owned();
    let lines: Vec<_> = lines.map_while(|line| line.strip_prefix(' ')).collect();
    // deb-control(5): a dot is an empty line.
    let lines: Vec<_> = lines.iter().map(|line| if *line == "." { "" } else { line }).collect();
    Some((summary, lines.join("\n")))
}

fn add(package: &mut PackageBuilder, entry: &Entry) -> Result<()> {
    let path = entry.path.replace(ZSH[1], ZSH[0]);
    let options = FileOptions::new(format!("/{path}"))
        .permissions(entry.kind.mode())
        .user("root")
        .group("root");
    let name = path.rsplit('/').next().unwrap_or_default();
    let options = match entry.kind {
        Kind::Configuration => options.config().noreplace(),
        Kind::Data if name.starts_with("LICENSE-") => options.license(),
        Kind::Data if path.contains("/doc/") || path.contains("/man/") => options.doc(),
        Kind::Data | Kind::Program => options,
    };
    package.with_file_contents(entry.bytes.clone(), options)?;
    Ok(())
}

/// The folders that come and go with the package: rpm removes no others.
fn own_folders(tree: &Tree) -> BTreeSet<String> {
    let parents =
        tree.entries().iter().flat_map(|entry| Path::new(&entry.path).ancestors().skip(1));
    let own = parents.filter(|path| path.iter().any(|part| part == "tcpmon"));
    own.map(|path| format!("/{}", path.display())).collect()
}

fn script(name: &str) -> Result<Scriptlet> {
    let text = setup::read_source(Path::new("deploy/rpm").join(name))?;
    Ok(Scriptlet::new(text).prog(vec!["/bin/sh"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_debian_s_without_its_marks() {
        let control =
            "Package: a\nDescription: what it is\n One line.\n .\n Another.\nHomepage: b\n";
        let (summary, text) = description(control).expect("a description");
        assert_eq!(summary, "what it is");
        assert_eq!(text, "One line.\n\nAnother.");
        assert_eq!(description("Package: a\n"), None);
    }
}
