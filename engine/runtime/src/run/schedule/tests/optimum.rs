//! The shortest schedule by brute force, to say how far from it the scheduler ends.

use super::{super::Scheduler, case::Case, simulation::simulate};

/// What is leased in each second, as stages are set one after another.
struct Search<'a> {
    case: &'a Case,
    cores: Vec<u32>,
    gpus: [Vec<u64>; 2],
    ends: Vec<Option<u64>>,
    best: u64,
}

impl Search<'_> {
    /// Sets each stage that may be next at its earliest time on each choice of GPUs. Every active schedule is among
    /// these, and one of them is the shortest (Sprecher, Kolisch and Drexl 1995).
    fn set_next(&mut self, makespan: u64) {
        if self.ends.iter().all(Option::is_some) {
            self.best = self.best.min(makespan);
            return;
        }
        for index in 0..self.ends.len() {
            let stage = &self.case.stages[index];
            let is_next = self.ends[index].is_none() && stage.needs.iter().all(|need| self.ends[*need].is_some());
            if !is_next {
                continue;
            }
            let after = stage.needs.iter().filter_map(|need| self.ends[*need]).max().unwrap_or(0);
            let choices: &[&[usize]] = match stage.candidate.gpus.min {
                0 => &[&[]],
                1 => &[&[0], &[1]],
                _ => &[&[0, 1]],
            };
            for gpus in choices {
                let start = (after..).find(|start| self.fits(index, *start, gpus)).unwrap_or(0);
                // What comes behind it takes at least its urgency: a branch that cannot be shorter is left.
                if start + stage.candidate.urgency as u64 >= self.best {
                    continue;
                }
                let end = start + stage.seconds;
                self.put(index, start, gpus, true);
                self.ends[index] = Some(end);
                self.set_next(makespan.max(end));
                self.ends[index] = None;
                self.put(index, start, gpus, false);
            }
        }
    }

    fn gpu_bytes(&self, index: usize) -> u64 {
        match self.case.stages[index].candidate.gpus.memory_bytes {
            0 => 80,
            bytes => bytes,
        }
    }

    fn fits(&self, index: usize, start: u64, gpus: &[usize]) -> bool {
        let (stage, bytes) = (&self.case.stages[index], self.gpu_bytes(index));
        (start..start + stage.seconds).all(|second| {
            let second = second as usize;
            self.cores[second] + stage.candidate.cores <= self.case.capacity.cores
                && gpus.iter().all(|gpu| self.gpus[*gpu][second] + bytes <= 80)
        })
    }

    fn put(&mut self, index: usize, start: u64, gpus: &[usize], is_there: bool) {
        let (stage, bytes) = (&self.case.stages[index], self.gpu_bytes(index));
        for second in start as usize..(start + stage.seconds) as usize {
            let cores = &mut self.cores[second];
            *cores = if is_there { *cores + stage.candidate.cores } else { *cores - stage.candidate.cores };
            for gpu in gpus {
                let used = &mut self.gpus[*gpu][second];
                *used = if is_there { *used + bytes } else { *used - bytes };
            }
        }
    }
}

/// The shortest makespan in seconds, no longer than `known`.
fn optimum(case: &Case, known: u64) -> u64 {
    let horizon = case.stages.iter().map(|stage| stage.seconds as usize).sum::<usize>() * 2;
    let gpus = [vec![0; horizon], vec![0; horizon]];
    let ends = vec![None; case.stages.len()];
    let mut search = Search { case, cores: vec![0; horizon], gpus, ends, best: known };
    search.set_next(0);
    search.best
}

#[test]
fn every_small_schedule_is_within_a_twentieth_of_the_optimum() {
    let shares: Vec<f64> = (0..1000)
        .map(|seed| {
            let case = Case::small(seed);
            let made = simulate(&case, &mut Scheduler::new(case.capacity.clone())).unwrap().makespan;
            optimum(&case, made) as f64 / made as f64
        })
        .collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let worst = shares.iter().copied().fold(1.0, f64::min);
    let optimal = shares.iter().filter(|share| **share == 1.0).count();
    println!("optimum ÷ makespan: mean {mean:.4}, worst {worst:.3}, optimal in {optimal} of {}", shares.len());
    assert!(worst >= 0.95, "mean {mean}, worst {worst}");
}

/// The control: the search finds a shorter schedule than a poor one.
#[test]
fn the_search_beats_one_stage_after_another() {
    let shorter = (0..100).filter(|seed| {
        let case = Case::small(*seed);
        let one_by_one = case.stages.iter().map(|stage| stage.seconds).sum();
        optimum(&case, one_by_one) < one_by_one
    });
    assert!(shorter.count() > 80);
}
