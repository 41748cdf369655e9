//! Set-up: everything the build needs that cargo does not bring.
//!
//! The probes are compiled for a target without a ready-made `core`, so they
//! need a compiler with the standard library's source, and bpf-linker bound to
//! that compiler's LLVM. What is found or installed is written to a [`record`]
//! that `tcpmon/build.rs` reads. When the record is there and still true,
//! set-up says nothing and takes a tenth of a second.

mod linker;
pub(crate) mod record;
mod rustup;
mod system;
mod toolchain;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use self::{
    record::{RECORD_PATH, Record},
    system::Family,
    toolchain::{Toolchain, Unfit, examine},
};
use crate::process::{attempt, find_program, step};

/// The variable that chooses a toolchain where no flag does.
pub const CHOICE_VARIABLE: &str = "TCPMON_EBPF_TOOLCHAIN";

/// The choice of the distribution's own toolchain.
const SYSTEM: &str = "system";

/// What the record says was chosen when nothing was.
const AUTO: &str = "auto";

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    // cargo tells where the sources are now; the folder may have been moved
    // since this was compiled.
    let own = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// The text of a file of this repository, by its path from the root.
pub fn read_source(path: impl AsRef<Path>) -> Result<String> {
    let path = workspace().join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Sets up what is missing. `flag` is a toolchain chosen on the command line:
/// the name of one of rustup's, the path of a compiler or of its sysroot, or
/// `system` for the distribution's.
pub fn ensure(flag: Option<&str>) -> Result<()> {
    let variable = env::var(CHOICE_VARIABLE).ok().filter(|value| !value.is_empty());
    let choice = flag.or(variable.as_deref()).or_else(|| choice_of_ci());
    let path = workspace().join(RECORD_PATH);
    if holds(&path, choice) {
        return Ok(());
    }
    let folder = path.parent().context("the record has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Two set-ups at once, in two terminals, would build the linker twice.
    let lock_path = folder.join("setup.lock");
    let lock = File::create(&lock_path)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if !holds(&path, choice) {
        step("set-up of the eBPF toolchain", || set_up(choice, folder, &path))?;
    }
    drop(lock);
    Ok(())
}

/// CI on Debian takes Debian's toolchain, so that the longest way of set-up is walked there.
fn choice_of_ci() -> Option<&'static str> {
    (in_ci() && Family::of_this_machine() == Family::Debian).then_some(SYSTEM)
}

/// Whether this runs in CI, where nothing may be left out.
pub fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Gets new lists of Debian packages.
pub fn update_package_lists() -> Result<()> {
    system::update()
}

/// Installs a Debian package that provides a program the tests need.
pub fn ensure_program(program: &str, debian_package: &str) -> Result<()> {
    if find_program(program).is_some() {
        return Ok(());
    }
    if Family::of_this_machine() == Family::Debian {
        return system::install_debian(&[debian_package]);
    }
    bail!("`{program}` is not installed: install the package that has it ({debian_package})")
}

/// Like [`ensure_program`], for one whose package would also run it as a service from now on.
/// `service` is the name of that.
pub fn ensure_idle_program(program: &str, debian_package: &str, service: &str) -> Result<()> {
    if find_program(program).is_none() && Family::of_this_machine() == Family::Debian {
        return system::install_debian_idle(debian_package, service);
    }
    ensure_program(program, debian_package)
}

/// Whether there is a record, made for this choice, and still true. Where
/// nothing is chosen, any record will do: a choice once made is kept.
fn holds(path: &Path, choice: Option<&str>) -> bool {
    let Some(record) = fs::read_to_string(path).ok().and_then(|text| Record::parse(&text).ok())
    else {
        return false;
    };
    choice.is_none_or(|choice| choice == record.choice)
        && record.missing().is_none()
        && toolchain::version_line(&record.rustc).is_ok_and(|line| line == record.version)
        && linker::works(&record.linker)
}

fn set_up(choice: Option<&str>, folder: &Path, path: &Path) -> Result<()> {
    let toolchain = match choice {
        None | Some(AUTO) => find(),
        Some(SYSTEM) => from_system(&mut Vec::new()),
        Some(choice) => chosen(choice),
    }?;
    let linker = linker::ensure(&toolchain, folder)?;
    let record = Record {
        choice: choice.unwrap_or(AUTO).to_owned(),
        version: toolchain.version,
        rustc: toolchain.rustc,
        cargo: toolchain.cargo,
        source: toolchain.source,
        linker,
    };
    let text = record.to_string();
    if Record::parse(&text).as_ref() != Ok(&record) {
        bail!("a path of the toolchain cannot be written down: {text}");
    }
    // Renamed into place, so that a build never reads half of it.
    let draft = path.with_extension("new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("xtask: the probes are built by {} ({})", record.version, record.rustc.display());
    Ok(())
}

/// The toolchain that was asked for; nothing else will do.
fn chosen(choice: &str) -> Result<Toolchain> {
    let refuse = |why: Unfit| anyhow!("the eBPF toolchain {choice} will not do: {why}");
    if choice.contains('/') {
        return examine(&toolchain::at_path(Path::new(choice))?).map_err(refuse);
    }
    let rustc = rustup::rustc(choice)?;
    match examine(&rustc) {
        Err(Unfit::NoSource(_)) => {
            step(&format!("rust-src for {choice} (rustup)"), || rustup::add_source(choice))?;
            examine(&rustc).map_err(refuse)
        }
        result => result.map_err(refuse),
    }
}

/// The first toolchain that will do: one of rustup's that has the source; the
/// one of rustup's in use, once it has the source; the distribution's.
fn find() -> Result<Toolchain> {
    let mut reasons = Vec::new();
    let names = if rustup::is_installed() { rustup::toolchains()? } else { Vec::new() };
    let mut lacking = None;
    for name in &names {
        match rustup::rustc(name).map(|rustc| (examine(&rustc), rustc)) {
            Ok((Ok(toolchain), _)) => return Ok(toolchain),
            Ok((Err(Unfit::NoSource(why)), rustc)) => {
                lacking.get_or_insert((name, rustc));
                reasons.push(why);
            }
            Ok((Err(Unfit::Other(why)), _)) => reasons.push(why),
            Err(error) => reasons.push(first_line(&error)),
        }
    }
    if let Some((name, rustc)) = lacking {
        let added = attempt(&format!("rust-src for {name} (rustup)"), || {
            rustup::add_source(name)?;
            examine(&rustc).map_err(|why| anyhow!("{why}"))
        });
        match added {
            Ok(toolchain) => return Ok(toolchain),
            // No answer from rustup's server is nothing out of the ordinary.
            Err(error) => reasons.push(first_line(&error)),
        }
    }
    from_system(&mut reasons)
}

/// The distribution's toolchain; Debian's is installed if need be.
fn from_system(reasons: &mut Vec<String>) -> Result<Toolchain> {
    let look = |reasons: &mut Vec<String>| {
        toolchain::of_the_system()
            .iter()
            .find_map(|rustc| examine(rustc).map_err(|why| reasons.push(why.to_string())).ok())
    };
    if let Some(toolchain) = look(reasons) {
        return Ok(toolchain);
    }
    let family = Family::of_this_machine();
    if family == Family::Debian {
        match system::install_debian_rust() {
            Ok(()) => reasons.clear(),
            Err(error) => reasons.push(format!("{error:#}")),
        }
        if let Some(toolchain) = look(reasons) {
            return Ok(toolchain);
        }
    }
    let reasons = reasons.join("\n  ");
    bail!("no Rust toolchain here can build the probes\n  {reasons}\n{}", family.advice())
}

/// The line of an error that names the cause; the rest is a program's output.
fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of files that exist but are no compiler.
    fn write_record(name: &str, change: impl Fn(&mut Record)) -> PathBuf {
        let own = env::current_exe().expect("own path");
        let mut record = Record {
            choice: AUTO.into(),
            version: "rustc 0.0.0".into(),
            rustc: own.clone(),
            cargo: own.clone(),
            source: own.clone(),
            linker: own,
        };
        change(&mut record);
        let path = env::temp_dir().join(format!("xtask-{name}-{}.toml", std::process::id()));
        fs::write(&path, record.to_string()).expect("own file");
        path
    }

    #[test]
    fn a_record_that_is_not_true_does_not_hold() {
        assert!(!holds(Path::new("/nonexistent"), None));
        for (name, change) in [
            ("vanished", (|record| record.rustc = "/nonexistent".into()) as fn(&mut Record)),
            ("no-compiler", |record| record.rustc = "/bin/false".into()),
            ("other-version", |record| record.rustc = "/bin/echo".into()),
        ] {
            let path = write_record(name, change);
            assert!(!holds(&path, None), "{name}");
            fs::remove_file(path).expect("own file");
        }
    }

    #[test]
    fn a_chosen_path_must_exist() {
        let error = chosen("/nonexistent/rustc").expect_err("no such path");
        assert!(format!("{error:#}").contains("/nonexistent/rustc"), "{error:#}");
    }
}
