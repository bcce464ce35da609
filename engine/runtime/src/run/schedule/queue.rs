//! Stages that could start, most urgent first, in one queue for each kind.
//!
//! Stages of one kind ask for nearly the same, so where the first of them does not fit the others are not looked at.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::Candidate;

/// All that could start, groups that are at their limit aside.
#[derive(Debug)]
pub(super) struct Ready {
    queues: Vec<Queue>,
    kinds: HashMap<Kind, usize>,
    /// The first of each queue whose group may start one more.
    heads: BTreeMap<Rank, usize>,
    groups: Vec<Group>,
    for_gpus: usize,
}

#[derive(Debug, Default)]
struct Queue {
    candidates: BTreeMap<Rank, Candidate>,
    /// Its entry among the heads.
    head: Option<Rank>,
}

#[derive(Debug)]
struct Group {
    most: u32,
    running: u32,
    queues: Vec<usize>,
}

/// The most urgent first, among equals the earlier in the plan.
type Rank = (Reverse<u64>, usize);

/// What makes two candidates alike: sizes and times are taken roughly, so that there are few kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    cores: u32,
    memory: u64,
    gpus: (u32, u64),
    expected: Option<u64>,
    group: Option<usize>,
}

impl Ready {
    pub(super) fn new(groups: Vec<u32>) -> Self {
        let groups = groups.into_iter().map(|most| Group { most: most.max(1), running: 0, queues: Vec::new() });
        Self {
            queues: Vec::new(),
            kinds: HashMap::new(),
            heads: BTreeMap::new(),
            groups: groups.collect(),
            for_gpus: 0,
        }
    }

    pub(super) fn waiting_for_gpus(&self) -> usize {
        self.for_gpus
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        let next = self.queues.len();
        let queue = *self.kinds.entry(kind(&candidate)).or_insert(next);
        if queue == next {
            self.queues.push(Queue::default());
            if let Some(group) = self.group(candidate.group) {
                group.queues.push(queue);
            }
        }
        self.for_gpus += usize::from(candidate.gpus.max > 0);
        self.queues[queue].candidates.insert(rank(&candidate), candidate);
        self.show(queue, self.is_open(candidate.group));
    }

    /// The first of each kind, most urgent first.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Candidate> {
        self.heads.iter().filter_map(|(rank, queue)| self.queues[*queue].candidates.get(rank))
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Candidate> {
        self.queues.iter().flat_map(|queue| queue.candidates.values())
    }

    /// How many more of each group may start.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.most.saturating_sub(group.running)).collect()
    }

    /// Takes out one that starts.
    pub(super) fn take(&mut self, candidate: &Candidate) -> Option<Candidate> {
        let queue = *self.kinds.get(&kind(candidate))?;
        let candidate = self.queues[queue].candidates.remove(&rank(candidate))?;
        self.for_gpus -= usize::from(candidate.gpus.max > 0);
        if let Some(group) = self.group(candidate.group) {
            group.running += 1;
        }
        if self.is_open(candidate.group) {
            self.show(queue, true);
        } else {
            self.show_group(candidate.group, false);
        }
        Some(candidate)
    }

    /// Takes out one that does not start, wherever it is.
    pub(super) fn withdraw(&mut self, index: usize) {
        let Some(candidate) = self.all().find(|candidate| candidate.index == index).copied() else { return };
        let Some(queue) = self.kinds.get(&kind(&candidate)).copied() else { return };
        self.queues[queue].candidates.remove(&rank(&candidate));
        self.for_gpus -= usize::from(candidate.gpus.max > 0);
        self.show(queue, self.is_open(candidate.group));
    }

    /// One of this group has ended.
    pub(super) fn left(&mut self, group: Option<usize>) {
        let was_open = self.is_open(group);
        if let Some(group) = self.group(group) {
            group.running = group.running.saturating_sub(1);
        }
        if !was_open {
            self.show_group(group, true);
        }
    }

    fn group(&mut self, group: Option<usize>) -> Option<&mut Group> {
        self.groups.get_mut(group?)
    }

    fn is_open(&self, group: Option<usize>) -> bool {
        group.and_then(|group| self.groups.get(group)).is_none_or(|group| group.running < group.most)
    }

    fn show_group(&mut self, group: Option<usize>, is_open: bool) {
        let queues = self.group(group).map(|group| std::mem::take(&mut group.queues)).unwrap_or_default();
        for queue in &queues {
            self.show(*queue, is_open);
        }
        if let Some(group) = self.group(group) {
            group.queues = queues;
        }
    }

    /// Brings a queue's entry among the heads up to date.
    fn show(&mut self, queue: usize, is_open: bool) {
        let first = self.queues[queue].candidates.keys().next().copied().filter(|_| is_open);
        let shown = std::mem::replace(&mut self.queues[queue].head, first);
        if shown != first {
            shown.and_then(|rank| self.heads.remove(&rank));
            if let Some(rank) = first {
                self.heads.insert(rank, queue);
            }
        }
    }
}

/// Where a candidate stands in its queue.
pub(super) fn rank(candidate: &Candidate) -> Rank {
    // Of floats from 0 upwards the bits are in the order of the values; NaN becomes 0.
    (Reverse(candidate.urgency.max(0.0).to_bits()), candidate.index)
}

fn kind(candidate: &Candidate) -> Kind {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Kind {
        cores: candidate.cores,
        memory: rough(candidate.memory_bytes),
        gpus: (candidate.gpus.min, rough(candidate.gpus.memory_bytes)),
        expected: candidate.expected.map(|expected| rough(milliseconds(expected))),
        group: candidate.group,
    }
}

/// The first four binary digits of a number: within an eighth of it.
fn rough(value: u64) -> u64 {
    let rest = (u64::BITS - 4).saturating_sub(value.leading_zeros());
    value >> rest << rest
}
