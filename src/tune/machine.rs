//! The machine, as its files tell. Invariant: nothing outside `root` is looked at or changed, and no
//! answer is longer than [`FILE_BYTES_MAX`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 1 << 20;

pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// `/`, or a folder that stands for it. Paths below are absolute, as the system names them.
    pub fn at(root: &Path) -> Machine {
        Machine { root: root.into() }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// The text of a file. `Ok(None)`: there is no such file.
    pub fn read(&self, path: &str) -> io::Result<Option<String>> {
        let file = match File::open(self.path(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// The text, where there is one and it may be read.
    pub fn text(&self, path: &str) -> Option<String> {
        self.read(path).ok().flatten().map(|text| text.trim().to_owned())
    }

    /// The first number of a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_whitespace().next()?.parse().ok()
    }

    /// All of the machine's memory, bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        let info = self.text("/proc/meminfo")?;
        let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
    }

    /// Names in a folder, in order.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Sets what the kernel shows as a file.
    pub fn set(&self, path: &str, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).truncate(true).open(self.path(path))?.write_all(value.as_bytes())
    }

    /// Puts a file in its place at once: whoever reads it sees the old or the new one. Its folder is
    /// made. Links are replaced, never followed.
    pub fn put(&self, path: &str, text: &str, mode: u32) -> io::Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        // One that a process of the same number left behind.
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| fs::rename(&beside, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        placed
    }

    pub fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    /// Removes a folder that holds nothing any more.
    pub fn tidy(&self, folder: &str) {
        let _ = fs::remove_dir(self.path(folder));
    }

    /// The text of a plain file of this very user, which nobody else can have written. Whoever may write
    /// to the folder cannot put another in its place between the look and the reading.
    pub fn read_own(&self, path: &str) -> io::Result<String> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path(path))?;
        let metadata = file.metadata()?;
        // The process's user, as the system shows it; a machine without /proc cannot be tuned.
        if !metadata.is_file() || metadata.uid() != fs::metadata("/proc/self")?.uid() {
            return Err(io::Error::other("it belongs to somebody else, or is no plain file"));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }
}
