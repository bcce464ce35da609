//! What is free, and what one lease holds of it.

use llmflow_contract::{Gpus, Lease};

use super::{Candidate, Capacity};

/// Slots for stages, cores, memory, and the memory of each GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    slots: u32,
    cores: u32,
    memory_bytes: u64,
    gpus: Vec<Gpu>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gpu {
    free_bytes: u64,
    total_bytes: u64,
}

/// What a running stage holds: one slot, and this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    cores: u32,
    memory_bytes: u64,
    /// Ordinal of a GPU and the bytes held on it.
    gpus: Vec<(u32, u64)>,
}

impl Room {
    /// All of it is free.
    pub(super) fn new(capacity: &Capacity) -> Self {
        let gpus = capacity.gpus.iter().map(|bytes| Gpu { free_bytes: *bytes, total_bytes: *bytes });
        Self {
            slots: capacity.jobs.max(1),
            cores: capacity.cores.max(1),
            memory_bytes: capacity.memory_bytes,
            gpus: gpus.collect(),
        }
    }

    /// A demand that can be met once all of this is free, GPUs aside.
    pub(super) fn clamp(&self, mut candidate: Candidate) -> Candidate {
        candidate.cores = candidate.cores.clamp(1, self.cores);
        candidate.memory_bytes = candidate.memory_bytes.min(self.memory_bytes);
        candidate.gpus.max = candidate.gpus.max.max(candidate.gpus.min);
        candidate
    }

    pub(super) fn has_slot(&self) -> bool {
        self.slots > 0
    }

    pub(super) fn fits(&self, candidate: &Candidate) -> bool {
        let gpus = candidate.gpus.min as usize;
        self.slots > 0
            && candidate.cores <= self.cores
            && candidate.memory_bytes <= self.memory_bytes
            && (gpus == 0 || self.serving(&candidate.gpus).nth(gpus - 1).is_some())
    }

    /// GPUs that have the memory: ordinal, and the bytes to hold there.
    pub(super) fn serving(&self, wanted: &Gpus) -> impl Iterator<Item = (u32, u64)> {
        let wanted = wanted.memory_bytes;
        self.gpus.iter().zip(0..).filter_map(move |(gpu, ordinal)| {
            let bytes = if wanted == 0 { gpu.total_bytes } else { wanted };
            (bytes > 0 && bytes <= gpu.free_bytes).then_some((ordinal, bytes))
        })
    }

    /// What `candidate`, which fits, will hold: on at most `gpus` GPUs, the fullest that serve, so that whole ones stay whole.
    pub(super) fn hold(&self, candidate: &Candidate, gpus: u32) -> Hold {
        let mut serving: Vec<_> = self.serving(&candidate.gpus).collect();
        serving.sort_by_key(|(ordinal, _)| self.gpus[*ordinal as usize].free_bytes);
        serving.truncate(gpus as usize);
        serving.sort_unstable();
        Hold { cores: candidate.cores, memory_bytes: candidate.memory_bytes, gpus: serving }
    }

    pub(super) fn take(&mut self, hold: &Hold) {
        self.slots -= 1;
        self.cores -= hold.cores;
        self.memory_bytes -= hold.memory_bytes;
        for (ordinal, bytes) in &hold.gpus {
            self.gpus[*ordinal as usize].free_bytes -= bytes;
        }
    }

    pub(super) fn give(&mut self, hold: &Hold) {
        self.slots += 1;
        self.cores += hold.cores;
        self.memory_bytes += hold.memory_bytes;
        for (ordinal, bytes) in &hold.gpus {
            self.gpus[*ordinal as usize].free_bytes += bytes;
        }
    }
}

impl Hold {
    pub(super) fn lease(&self) -> Lease {
        Lease {
            cores: self.cores,
            memory_bytes: self.memory_bytes,
            gpus: self.gpus.iter().map(|(ordinal, _)| *ordinal).collect(),
            gpu_memory_bytes: self.gpus.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0),
        }
    }
}
