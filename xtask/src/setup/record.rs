//! The record of the eBPF toolchain: what `cargo xtask setup` found or installed.
//!
//! `xtask` writes it and `tcpmon/build.rs` reads it, each compiling this very
//! file, so that the format has one definition and the build script needs no
//! dependency. It is TOML of the plainest kind: comments, and `key = "text"`.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Where the record lies below the workspace's root. It stays there whatever
/// `CARGO_TARGET_DIR` says, so that both readers find it.
pub(crate) const RECORD_PATH: &str = "target/ebpf/toolchain.toml";

/// The tools that make the probes' object file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// What was asked for by flag or environment; `auto` if nothing was.
    pub(crate) choice: String,
    /// The line that `rustc -V` prints: it tells when the compiler has changed.
    pub(crate) version: String,
    /// The compiler itself, never rustup's proxy for it.
    pub(crate) rustc: PathBuf,
    /// The cargo that belongs to `rustc`: `-Z build-std` knows only its own
    /// release's layout of the standard library.
    pub(crate) cargo: PathBuf,
    /// The source of `core`, which has to be compiled for the BPF target.
    pub(crate) source: PathBuf,
    /// bpf-linker, bound to the LLVM that `rustc` writes its bitcode with.
    pub(crate) linker: PathBuf,
}

impl Record {
    /// Reads a record; the error says what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .and_then(|(key, value)| Some((key.trim(), unquote(value.trim())?)))
                .ok_or_else(|| format!("line {} is not `key = \"text\"`", index + 1))?;
            values.insert(key, value);
        }
        let mut take = |key| values.remove(key).ok_or_else(|| format!("`{key}` is missing"));
        Ok(Self {
            choice: take("choice")?,
            version: take("version")?,
            rustc: take("rustc")?.into(),
            cargo: take("cargo")?.into(),
            source: take("source")?.into(),
            linker: take("linker")?.into(),
        })
    }

    /// The first file named by the record that is not there any more.
    pub(crate) fn missing(&self) -> Option<&Path> {
        [&self.rustc, &self.cargo, &self.source, &self.linker]
            .into_iter()
            .find(|path| !path.exists())
            .map(PathBuf::as_path)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask setup` for tcpmon/build.rs; may be deleted.")?;
        for (key, value) in [
            ("choice", self.choice.as_str().into()),
            ("version", self.version.as_str().into()),
            ("rustc", self.rustc.to_string_lossy()),
            ("cargo", self.cargo.to_string_lossy()),
            ("source", self.source.to_string_lossy()),
            ("linker", self.linker.to_string_lossy()),
        ] {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(f, "{key} = \"{value}\"")?;
        }
        Ok(())
    }
}

/// The text between a pair of quotes, with `\"` and `\\` resolved.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(chars.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            char => text.push(char),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            choice: "auto".into(),
            version: "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)".into(),
            rustc: "/usr/bin/rustc".into(),
            cargo: "/usr/bin/cargo".into(),
            source: "/usr/lib/rustlib/src/rust/library".into(),
            linker: r#"/home/a "b" \c/bpf-linker"#.into(),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(Record::parse(&record().to_string()), Ok(record()));
    }

    #[test]
    fn each_key_is_needed() {
        let text = record().to_string();
        for key in ["choice", "version", "rustc", "cargo", "source", "linker"] {
            let without: Vec<&str> =
                text.lines().filter(|line| !line.starts_with(&format!("{key} ="))).collect();
            assert_eq!(Record::parse(&without.join("\n")), Err(format!("`{key}` is missing")));
        }
    }

    #[test]
    fn damaged_lines_are_named() {
        for line in
            ["rustc", "rustc = /usr/bin", r#"rustc = "a"#, r#"rustc = "a"b""#, r#"a = "\n""#]
        {
            assert_eq!(
                Record::parse(&format!("# fine\n{line}\n")),
                Err("line 2 is not `key = \"text\"`".into()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_vanished_file_is_found() {
        let here = PathBuf::from(file!());
        let there = std::env::current_exe().expect("own path");
        let mut record = record();
        for path in [&mut record.rustc, &mut record.cargo, &mut record.source, &mut record.linker] {
            path.clone_from(&there);
        }
        assert_eq!(record.missing(), None);
        record.source = here.join("nowhere");
        assert_eq!(record.missing(), Some(here.join("nowhere").as_path()));
    }
}
