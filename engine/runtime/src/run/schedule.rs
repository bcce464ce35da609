//! Which ready stages start now: a pure function of what is ready and what is free.

use std::{cmp::Ordering, collections::BinaryHeap};

use llmflow_contract::Lease;

/// A stage that could start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub index: usize,
    pub cores: u32,
    pub memory_bytes: u64,
    /// Length of the longest path of work behind it, itself included: higher goes first.
    pub urgency: f64,
}

impl Eq for Candidate {}
impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.urgency.total_cmp(&other.urgency).then(other.index.cmp(&self.index))
    }
}

/// The queue of ready stages and what nobody has leased.
#[derive(Debug)]
pub struct Scheduler {
    ready: BinaryHeap<Candidate>,
    free_cores: u32,
    free_memory_bytes: u64,
    running: u32,
    jobs: u32,
}

impl Scheduler {
    pub fn new(cores: u32, memory_bytes: u64, jobs: Option<u32>) -> Self {
        Self {
            ready: BinaryHeap::new(),
            free_cores: cores,
            free_memory_bytes: memory_bytes,
            running: 0,
            jobs: jobs.unwrap_or(u32::MAX),
        }
    }
    pub fn push(&mut self, candidate: Candidate) {
        self.ready.push(candidate);
    }
    /// The most urgent stage, if it fits now: less urgent ones never pass it, or it would starve.
    pub fn next(&mut self) -> Option<(usize, Lease)> {
        let first = self.ready.peek()?;
        let fits = first.cores <= self.free_cores && first.memory_bytes <= self.free_memory_bytes;
        if self.running >= self.jobs || !(fits || self.running == 0) {
            return None;
        }
        let first = self.ready.pop()?;
        self.free_cores = self.free_cores.saturating_sub(first.cores);
        self.free_memory_bytes = self.free_memory_bytes.saturating_sub(first.memory_bytes);
        self.running += 1;
        Some((first.index, Lease { cores: first.cores, memory_bytes: first.memory_bytes, gpus: Vec::new() }))
    }
    pub fn finished(&mut self, lease: &Lease) {
        self.running -= 1;
        self.free_cores += lease.cores;
        self.free_memory_bytes += lease.memory_bytes;
    }
}

/// Urgency of every stage: its own seconds plus the most urgent one behind it. `order` is topological.
pub fn urgencies(order: &[u32], needs: &[&[u32]], seconds: &[f64]) -> Vec<f64> {
    let mut urgency = seconds.to_vec();
    for stage in order.iter().rev().map(|stage| *stage as usize) {
        for need in needs[stage].iter().map(|need| *need as usize) {
            urgency[need] = urgency[need].max(seconds[need] + urgency[stage]);
        }
    }
    urgency
}
