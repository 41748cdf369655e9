//! Archives as the kernel unpacks them at its start: cpio in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

/// File types of st_mode (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Every header, name and content begins at a multiple of this.
const ALIGNMENT: usize = 4;

/// The entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written. All entries belong to root and have no time.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// An archive without entries.
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0, folders: BTreeSet::new() }
    }

    /// Adds a folder and those above it, unless they are there.
    pub(super) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let path = relative(path)?;
        for folder in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if !folder.as_os_str().is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY | 0o755, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with these permissions, and the folders above it.
    pub(super) fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) -> io::Result<()> {
        let path = relative(path)?;
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        self.entry(&path, REGULAR | (permissions & 0o7777), content)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(Path::new(TRAILER), 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.as_os_str().as_encoded_bytes();
        let too_large = |_| io::Error::other(format!("{} is too large", path.display()));
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize with its NUL, check.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08x}")?;
        }
        self.aligned(&[&header, name, b"\0"])?;
        self.aligned(&[content])
    }

    fn aligned(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut length = 0;
        for part in parts {
            self.out.write_all(part)?;
            length += part.len();
        }
        self.out.write_all(&[0; ALIGNMENT][..length.next_multiple_of(ALIGNMENT) - length])
    }
}

/// A path as it stands in an archive: from the root, which has no name.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut below = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => below.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("{} leads upwards", path.display())));
            }
        }
    }
    Ok(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of every entry.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let header = std::str::from_utf8(&archive[..110]).expect("a header");
            assert_eq!(&header[..6], "070701");
            let field = |number: usize| {
                let digits = &header[6 + 8 * number..][..8];
                u32::from_str_radix(digits, 16).expect("hexadecimal")
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[110..110 + name_size - 1];
            assert_eq!(archive[110 + name_size - 1], 0);
            archive = &archive[(110 + name_size).next_multiple_of(4)..];
            let content = archive[..size].to_vec();
            archive = &archive[size.next_multiple_of(4)..];
            let name = String::from_utf8(name.to_vec()).expect("UTF-8");
            if name == TRAILER {
                assert!(archive.is_empty());
                return entries;
            }
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn every_folder_comes_once_and_before_what_is_in_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/usr/bin/a"), 0o755, b"12345").expect("a file");
        archive.file(Path::new("usr/bin/bc"), 0o644, b"").expect("a file");
        archive.folder(Path::new("/usr/lib")).expect("a folder");
        let seen = entries(&archive.finish().expect("an archive"));
        let expected: [(&str, u32, &[u8]); 5] = [
            ("usr", 0o040_755, b""),
            ("usr/bin", 0o040_755, b""),
            ("usr/bin/a", 0o100_755, b"12345"),
            ("usr/bin/bc", 0o100_644, b""),
            ("usr/lib", 0o040_755, b""),
        ];
        let seen: Vec<(&str, u32, &[u8])> =
            seen.iter().map(|(name, mode, content)| (&**name, *mode, &**content)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_is_written_outside_the_root() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file(Path::new("/usr/../../etc/passwd"), 0o644, b"").is_err());
    }
}
