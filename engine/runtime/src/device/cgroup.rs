//! Control groups of both versions: what they grant this process, and whom they have killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folders whose limits bind this process: its own group's and those above it.
#[derive(Debug)]
pub(super) struct Cgroups {
    root: PathBuf,
    /// The text of `/proc/self/cgroup`.
    own: String,
}

impl Cgroups {
    pub(super) fn of_this_process() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { root: PathBuf::from("/sys/fs/cgroup"), own }
    }

    /// The least quota, in whole cores, rounded up.
    pub(super) fn cores(&self) -> Option<u32> {
        let unified = self.folders("").into_iter().filter_map(|folder| {
            let text = read(&folder, "cpu.max")?;
            let (quota, period) = text.split_once(' ')?;
            whole_cores(quota, period)
        });
        let first = self.folders("cpu").into_iter().filter_map(|folder| {
            whole_cores(&read(&folder, "cpu.cfs_quota_us")?, &read(&folder, "cpu.cfs_period_us")?)
        });
        unified.chain(first).min()
    }

    /// The least limit on memory, in bytes.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let unified = self.folders("").into_iter().filter_map(|folder| read(&folder, "memory.max")?.parse().ok());
        let first = self
            .folders("memory")
            .into_iter()
            .filter_map(|folder| read(&folder, "memory.limit_in_bytes")?.parse().ok());
        // Version 1 has no word for "no limit": it gives the largest number of pages.
        unified.chain(first).filter(|bytes: &u64| *bytes < 1 << 62).min()
    }

    fn oom_kills(&self) -> Option<u64> {
        let unified = self.folders("").into_iter().map(|folder| folder.join("memory.events"));
        let first = self.folders("memory").into_iter().map(|folder| folder.join("memory.oom_control"));
        unified.chain(first).find_map(|file| oom_kills(&fs::read_to_string(file).ok()?))
    }

    /// The group of a controller (version 1) or of all (version 2, no name), and those above it. In a container the
    /// path may be the host's: then only its root is there.
    fn folders(&self, controller: &str) -> Vec<PathBuf> {
        let is_it = |line: &&str| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next().is_some_and(|names| names.split(',').any(|name| name == controller))
        };
        let Some(own) = self.own.lines().find(is_it).and_then(|line| line.splitn(3, ':').nth(2)) else {
            return Vec::new();
        };
        let root = self.root.join(controller);
        let own = root.join(own.trim_start_matches('/'));
        own.ancestors().take_while(|folder| folder.starts_with(&root)).map(PathBuf::from).collect()
    }
}

/// Processes that the kernel has killed for lack of memory so far: in this process's group, or else on the machine.
pub fn out_of_memory_kills() -> u64 {
    let on_machine = || oom_kills(&fs::read_to_string("/proc/vmstat").ok()?);
    Cgroups::of_this_process().oom_kills().or_else(on_machine).unwrap_or(0)
}

/// The counter `oom_kill` of `memory.events`, `memory.oom_control` or `/proc/vmstat`.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned())
}

/// Rounded up; `max` and -1 set no limit.
fn whole_cores(quota: &str, period: &str) -> Option<u32> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok().filter(|period| *period > 0)?);
    u32::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(own: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = folder.path().to_owned();
        (folder, Cgroups { root, own: own.to_owned() })
    }

    #[test]
    fn the_least_limit_on_the_way_up_binds() {
        let (_folder, groups) = groups(
            "0::/job/step\n",
            &[
                ("job/step/cpu.max", "max 100000\n"),
                ("job/cpu.max", "150000 100000\n"),
                ("cpu.max", "800000 100000\n"),
                ("job/step/memory.max", "max\n"),
                ("job/memory.max", "1073741824\n"),
                ("job/step/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            ],
        );
        assert_eq!((groups.cores(), groups.memory_bytes(), groups.oom_kills()), (Some(2), Some(1 << 30), Some(2)));
    }

    #[test]
    fn groups_of_version_1_bind_too_and_its_largest_number_means_none() {
        let own = "4:memory:/docker/5c1a\n3:cpu,cpuacct:/docker/5c1a\n";
        let (_folder, groups) = groups(
            own,
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/docker/5c1a/memory.limit_in_bytes", "2147483648\n"),
                ("memory/docker/5c1a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("cpu/docker/5c1a/cpu.cfs_quota_us", "300000\n"),
                ("cpu/docker/5c1a/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!((groups.cores(), groups.memory_bytes(), groups.oom_kills()), (Some(3), Some(2 << 30), Some(1)));
    }

    #[test]
    fn without_groups_there_is_no_limit() {
        let (_folder, groups) = groups("", &[]);
        assert_eq!((groups.cores(), groups.memory_bytes(), groups.oom_kills()), (None, None, None));
        assert_eq!((whole_cores("1", "0"), oom_kills("oom 3\n")), (None, None));
    }
}
