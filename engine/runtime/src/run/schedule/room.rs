//! What is free, and what one lease holds of it.

use std::cmp::Reverse;

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
        Self {
            slots: capacity.jobs.max(1),
            cores: capacity.cores.max(1),
            memory_bytes: capacity.memory_bytes,
            gpus: all_free(&capacity.gpus),
        }
    }

    pub(super) fn find_gpus(&mut self, memory: &[u64]) {
        self.gpus = all_free(memory);
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
    /// One that takes each whole is given the emptiest: what others keep of the rest it cannot know.
    pub(super) fn hold(&self, candidate: &Candidate, gpus: u32) -> Hold {
        let mut serving: Vec<_> = self.serving(&candidate.gpus).collect();
        match candidate.gpus.memory_bytes {
            0 => serving.sort_by_key(|(_, bytes)| Reverse(*bytes)),
            _ => serving.sort_by_key(|(ordinal, _)| self.gpus[*ordinal as usize].free_bytes),
        }
        serving.truncate(gpus as usize);
        Hold::new(candidate, serving)
    }

    /// What `candidate`, which fits, could hold: on as few GPUs as it can, the fullest or the emptiest that serve.
    pub(super) fn ways_to_hold(&self, candidate: &Candidate) -> impl Iterator<Item = Hold> + use<> {
        let gpus = candidate.gpus.min as usize;
        let mut serving: Vec<_> = self.serving(&candidate.gpus).collect();
        serving.sort_by_key(|(ordinal, _)| self.gpus[*ordinal as usize].free_bytes);
        let free = |(ordinal, _): &(u32, u64)| self.gpus[*ordinal as usize].free_bytes;
        let (fullest, emptiest) = (&serving[..gpus], &serving[serving.len() - gpus..]);
        let is_same = fullest.iter().map(free).eq(emptiest.iter().map(free));
        let (fullest, emptiest) = (Hold::new(candidate, fullest.to_vec()), Hold::new(candidate, emptiest.to_vec()));
        match candidate.gpus.memory_bytes {
            0 => std::iter::once(emptiest).chain((!is_same).then_some(fullest)),
            _ => std::iter::once(fullest).chain((!is_same).then_some(emptiest)),
        }
    }

    /// What a candidate will hold at least, wherever it does.
    pub(super) fn least_hold(&self, candidate: &Candidate) -> Hold {
        let mut serving: Vec<_> = self.serving(&candidate.gpus).collect();
        serving.sort_by_key(|(_, bytes)| *bytes);
        serving.truncate(candidate.gpus.min as usize);
        Hold::new(candidate, serving)
    }

    /// To add up what is held for how long, where all of this is free.
    pub(super) fn no_work(&self) -> Work {
        let total: u64 = self.gpus.iter().map(|gpu| gpu.total_bytes).sum();
        let rooms = [f64::from(self.slots), f64::from(self.cores), self.memory_bytes as f64, total as f64];
        Work { rooms, held: [0.0; 4] }
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

/// Slots, cores, memory and memory of GPUs, and what is held of each for how many microseconds.
pub(super) struct Work {
    rooms: [f64; 4],
    held: [f64; 4],
}

impl Work {
    pub(super) fn add(&mut self, hold: &Hold, micros: u64) {
        let on_gpus: u64 = hold.gpus.iter().map(|(_, bytes)| *bytes).sum();
        let parts = [1.0, f64::from(hold.cores), hold.memory_bytes as f64, on_gpus as f64];
        for (held, part) in self.held.iter_mut().zip(parts) {
            *held += part * micros as f64;
        }
    }
    /// No order of the work takes fewer microseconds.
    pub(super) fn least_time(&self) -> u64 {
        let times = self.held.iter().zip(self.rooms).map(|(held, room)| if *held > 0.0 { held / room } else { 0.0 });
        // Rounded down, and by one more: a bound that is a rounding too high would hide the best schedule.
        (times.fold(0.0, f64::max) as u64).saturating_sub(1)
    }
}

/// GPUs of which nothing is held.
fn all_free(memory: &[u64]) -> Vec<Gpu> {
    memory.iter().map(|bytes| Gpu { free_bytes: *bytes, total_bytes: *bytes }).collect()
}

impl Hold {
    fn new(candidate: &Candidate, mut gpus: Vec<(u32, u64)>) -> Self {
        gpus.sort_unstable();
        Self { cores: candidate.cores, memory_bytes: candidate.memory_bytes, gpus }
    }

    pub(super) fn lease(&self) -> Lease {
        Lease {
            cores: self.cores,
            memory_bytes: self.memory_bytes,
            gpus: self.gpus.iter().map(|(ordinal, _)| *ordinal).collect(),
            gpu_memory_bytes: self.gpus.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0),
        }
    }
}
