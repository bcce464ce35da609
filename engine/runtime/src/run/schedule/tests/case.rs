//! Random pipelines on random machines, from a seed.

use std::time::Duration;

use super::super::{Candidate, Capacity, Gpus, urgencies};

/// A stage, what it waits for, and how long it will really take.
#[derive(Clone, Debug)]
pub struct Stage {
    pub candidate: Candidate,
    pub needs: Vec<usize>,
    pub seconds: u64,
}

/// A pipeline in topological order, and the machine it runs on.
#[derive(Clone, Debug)]
pub struct Case {
    pub capacity: Capacity,
    pub stages: Vec<Stage>,
}

/// SplitMix64: Steele, Lea and Flood 2014.
pub struct Dice(pub u64);

impl Dice {
    /// From 0 up to but without `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

impl Case {
    /// Up to 40 stages on up to 4 GPUs; times are known, wrong or unknown; groups and jobs are limited.
    pub fn any(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let gpus: Vec<u64> = (0..dice.roll(5)).map(|_| [24, 40, 80][dice.roll(3) as usize]).collect();
        let capacity = Capacity {
            cores: 1 + dice.roll(8) as u32,
            memory_bytes: 16 + dice.roll(48),
            jobs: 1 + dice.roll(8) as u32,
            groups: vec![1 + dice.roll(3) as u32],
            gpus,
        };
        let count = 1 + dice.roll(40) as usize;
        let density = 2 + dice.roll(30);
        let stages = (0..count).map(|index| {
            let seconds = 1 + dice.roll(20);
            let expected = match dice.roll(4) {
                0 => None,
                1 => Some(1 + dice.roll(20)),
                _ => Some(seconds),
            };
            Stage {
                needs: (0..index).filter(|_| dice.one_in(density)).collect(),
                seconds,
                candidate: Candidate {
                    index,
                    cores: 1 + dice.roll(u64::from(capacity.cores) + 1) as u32,
                    memory_bytes: dice.roll(capacity.memory_bytes),
                    gpus: demand(&capacity, &mut dice),
                    group: dice.one_in(4).then_some(0),
                    urgency: 0.0,
                    expected: expected.map(Duration::from_secs),
                },
            }
        });
        Self { stages: stages.collect(), capacity }.ranked()
    }

    /// Up to 8 stages on 2 GPUs, all times known.
    pub fn small(seed: u64) -> Self {
        let mut dice = Dice(seed ^ 0x5ca1e);
        let capacity = Capacity { cores: 4, memory_bytes: 64, gpus: vec![80, 80], jobs: 8, groups: Vec::new() };
        let count = 4 + dice.roll(5) as usize;
        let density = 2 + dice.roll(6);
        let stages = (0..count).map(|index| {
            let seconds = 1 + dice.roll(9);
            let count = [0, 1, 1, 1, 2][dice.roll(5) as usize];
            let memory_bytes = [0, 20, 40, 50][dice.roll(4) as usize];
            Stage {
                needs: (0..index).filter(|_| dice.one_in(density)).collect(),
                seconds,
                candidate: Candidate {
                    index,
                    cores: 1 + dice.roll(2) as u32,
                    memory_bytes: 8,
                    gpus: Gpus { min: count, max: count, memory_bytes },
                    group: None,
                    urgency: 0.0,
                    expected: Some(Duration::from_secs(seconds)),
                },
            }
        });
        Self { stages: stages.collect(), capacity }.ranked()
    }

    fn ranked(mut self) -> Self {
        let needs: Vec<&[usize]> = self.stages.iter().map(|stage| stage.needs.as_slice()).collect();
        let seconds: Vec<f64> =
            self.stages.iter().map(|stage| stage.candidate.expected.map_or(1.0, |time| time.as_secs_f64())).collect();
        let order: Vec<u32> = (0..needs.len() as u32).collect();
        let needs: Vec<Vec<u32>> = needs.iter().map(|needs| needs.iter().map(|need| *need as u32).collect()).collect();
        let urgency = urgencies(&order, &needs, &seconds);
        for (stage, urgency) in self.stages.iter_mut().zip(urgency) {
            stage.candidate.urgency = urgency;
        }
        self
    }
}

/// Some GPUs that the machine has, shared or whole.
fn demand(capacity: &Capacity, dice: &mut Dice) -> Gpus {
    let memory_bytes = if dice.one_in(2) { 0 } else { 8 + dice.roll(40) };
    let serving = capacity.gpus.iter().filter(|bytes| **bytes >= memory_bytes).count() as u64;
    let min = if dice.one_in(2) { 0 } else { dice.roll(serving + 1) as u32 };
    Gpus { min, max: min + u32::from(dice.one_in(5)), memory_bytes }
}
