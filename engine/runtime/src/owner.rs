//! Files that are written aside: names that say which process made them, so that what a killed one left can be swept.

use std::{fs, path::Path, sync::LazyLock};

use llmflow_contract::{Digest, Failure};

/// `HOST-PID.`: the host as a short digest, so that hosts that share a folder leave each other's files alone.
pub fn prefix() -> String {
    format!("{}-{}.", host(), std::process::id())
}

fn host() -> &'static str {
    static HOST: LazyLock<String> = LazyLock::new(|| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        Digest::of(name.as_encoded_bytes()).short()
    });
    &HOST
}

/// Writes a file that a reader finds whole or not at all, and its folder if need be. Nothing waits for the disk: it is for
/// what can be made again.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("writing", path, &error);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(failed)?;
    let aside = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fs::write(aside.path(), bytes).map_err(failed)?;
    aside.persist(path).map(drop).map_err(|lost| failed(lost.error))
}

/// Removes what processes of this host that no longer live left in `folder`. A pid that was given out anew protects it.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(is_orphan) {
            continue;
        }
        // What cannot be removed now is met again by the next run.
        let _ = if entry.path().is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
    }
}

fn is_orphan(name: &str) -> bool {
    let pid = name.split_once('.').and_then(|(owner, _)| owner.split_once('-')).filter(|(of, _)| *of == host());
    let pid = pid.and_then(|(_, pid)| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !lives(pid))
}

/// Does a process of this host live? One that ended and that nobody has asked about yet does not.
fn lives(pid: u32) -> bool {
    match fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) {
        // `PID (NAME) STATE …`: a name may hold anything.
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_dead_before_anybody_asks_about_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z") {
            std::thread::yield_now();
        }
        assert!(!lives(child.id()) && lives(std::process::id()));
        child.wait().unwrap();
        assert!(!lives(child.id()));
    }

    #[test]
    fn only_what_the_dead_of_this_host_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let dead = format!("{}-4294967295.scratch", host());
        let mine = format!("{}scratch", prefix());
        for name in [dead.as_str(), &mine, "other-4294967295.scratch", "notes.txt"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        sweep(folder.path());
        let mut left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [mine.as_str(), "notes.txt", "other-4294967295.scratch"].map(std::ffi::OsString::from);
        expected.sort();
        assert_eq!(left, expected);
    }
}
