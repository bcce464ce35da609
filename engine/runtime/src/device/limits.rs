//! Cores and memory as cgroups and schedulers grant them, not as the bare machine has them.

use std::{fs, path::PathBuf};

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

/// Cores: the least of the affinity mask, the cgroup's quota and Slurm's grant; at least one.
pub(super) fn cores() -> u32 {
    let mask = sched_getaffinity(Pid::from_raw(0)).ok();
    let allowed = mask.map(|set| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count() as u32);
    let quota =
        cgroups().iter().filter_map(|folder| quota_cores(&fs::read_to_string(folder.join("cpu.max")).ok()?)).min();
    let slurm = std::env::var("SLURM_CPUS_PER_TASK").ok().and_then(|text| text.parse().ok());
    [allowed, quota, slurm].into_iter().flatten().min().unwrap_or(1).max(1)
}

/// Memory in bytes: the machine's, or the cgroup's limit if that is less.
pub(super) fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let limits = cgroups()
        .into_iter()
        .filter_map(|folder| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok());
    machine.into_iter().chain(limits).min().unwrap_or(1 << 30)
}

/// Processes that the kernel has killed for lack of memory so far: in this process's cgroup, or else on the machine.
pub fn out_of_memory_kills() -> u64 {
    let own = cgroups().into_iter().map(|folder| folder.join("memory.events"));
    let counters = own.chain([PathBuf::from("/proc/vmstat")]);
    counters.filter_map(|file| oom_kills(&fs::read_to_string(file).ok()?)).next().unwrap_or(0)
}

/// The counter `oom_kill` of `memory.events` or of `/proc/vmstat`.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// This process's cgroup (v2) and those above it: each may limit.
fn cgroups() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
    let root = PathBuf::from("/sys/fs/cgroup");
    root.join(own).ancestors().take_while(|folder| folder.starts_with(&root)).map(PathBuf::from).collect()
}

/// `QUOTA PERIOD` in whole cores, rounded up; `max` sets no limit.
fn quota_cores(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok().filter(|period| *period > 0)?);
    u32::try_from(quota.div_ceil(period)).ok()
}

fn total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_round_up_and_max_means_none() {
        assert_eq!(quota_cores("150000 100000\n"), Some(2));
        assert_eq!(quota_cores("max 100000"), None);
        assert_eq!(quota_cores("1 0"), None);
        assert_eq!(total_bytes("MemTotal:       2 kB\n"), Some(2048));
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_kills("oom 3\n"), None);
        assert!(cores() >= 1 && memory_bytes() > 0);
    }
}
