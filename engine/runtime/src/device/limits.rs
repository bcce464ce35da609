//! Cores and memory as affinity, cgroups and Slurm grant them, not as the bare machine has them.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use serde::Serialize;

use super::cgroup::Cgroups;

/// Where nothing tells how much memory there is.
const SOME_MEMORY: u64 = 1 << 30;

/// Who sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Machine,
    Affinity,
    Cgroup,
    Slurm,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Affinity => "affinity",
            Self::Cgroup => "cgroup",
            Self::Slurm => "Slurm",
        }
    }
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bound<T> {
    pub by: Source,
    pub limit: T,
}

/// All that limits this process; the least counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bounds {
    pub cores: Vec<Bound<u32>>,
    pub memory_bytes: Vec<Bound<u64>>,
}

impl Bounds {
    pub(super) fn of_this_process() -> Self {
        let groups = Cgroups::of_this_process();
        let variable = |name: &str| std::env::var(name).ok();
        let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
        let machine = fs::read_to_string("/proc/meminfo").ok();
        let cores = [
            (Source::Machine, online.and_then(|text| cpus(&text))),
            (Source::Affinity, affinity()),
            (Source::Cgroup, groups.cores()),
            (Source::Slurm, variable("SLURM_CPUS_PER_TASK").and_then(|text| text.parse().ok())),
        ];
        let memory = [
            (Source::Machine, machine.and_then(|text| total_bytes(&text))),
            (Source::Cgroup, groups.memory_bytes()),
            (Source::Slurm, variable("SLURM_MEM_PER_NODE").and_then(|text| slurm_bytes(&text))),
        ];
        Self { cores: known(cores), memory_bytes: known(memory) }
    }

    /// At least one.
    pub fn cores(&self) -> u32 {
        self.cores.iter().map(|bound| bound.limit).min().unwrap_or(1).max(1)
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.iter().map(|bound| bound.limit).min().unwrap_or(SOME_MEMORY)
    }
}

fn known<T, const N: usize>(found: [(Source, Option<T>); N]) -> Vec<Bound<T>> {
    found.into_iter().filter_map(|(by, limit)| Some(Bound { by, limit: limit? })).collect()
}

fn affinity() -> Option<u32> {
    let mask = sched_getaffinity(Pid::from_raw(0)).ok()?;
    Some((0..CpuSet::count()).filter(|cpu| mask.is_set(*cpu).unwrap_or(false)).count() as u32)
}

/// The number of processors in a list such as `0-3,8`.
fn cpus(text: &str) -> Option<u32> {
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    ranges.sum()
}

fn total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Megabytes; 0 asks for all of the node's.
fn slurm_bytes(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|megabytes| *megabytes > 0)?.checked_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts_and_keeps_the_name_of_who_set_it() {
        let bounds = Bounds {
            cores: known([(Source::Machine, Some(64)), (Source::Affinity, None), (Source::Slurm, Some(4))]),
            memory_bytes: known([(Source::Machine, Some(8 << 30)), (Source::Cgroup, Some(2 << 30))]),
        };
        assert_eq!((bounds.cores(), bounds.memory_bytes()), (4, 2 << 30));
        assert_eq!(bounds.cores[1], Bound { by: Source::Slurm, limit: 4 });
        let unknown = Bounds { cores: Vec::new(), memory_bytes: Vec::new() };
        assert_eq!((unknown.cores(), unknown.memory_bytes()), (1, SOME_MEMORY));
    }

    #[test]
    fn what_the_kernel_and_slurm_write_is_read() {
        assert_eq!((cpus("0-3,8\n"), cpus("0"), cpus("")), (Some(5), Some(1), None));
        assert_eq!(total_bytes("MemTotal:       2 kB\n"), Some(2048));
        assert_eq!((slurm_bytes("4096"), slurm_bytes("0"), slurm_bytes("4G")), (Some(4 << 30), None, None));
        let here = Bounds::of_this_process();
        assert!(here.cores() >= 1 && here.memory_bytes() > 0);
    }
}
