//! A virtual clock, a checker that knows nothing of the scheduler's books, and 10,000 random schedules.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{Ahead, Candidate, Capacity, FORESEEN, Gpus, Lease, Scheduler, queue},
    case::{Case, Stage},
    machine, on_gpus,
};

/// What the simulation asks of a scheduler.
pub trait Schedule {
    fn push(&mut self, candidate: Candidate);
    fn next(&mut self, now: Duration) -> Option<(usize, Lease)>;
    fn finished(&mut self, index: usize);
    fn expect(&mut self, _: Vec<Ahead>) {}
}

impl Schedule for Scheduler {
    fn expect(&mut self, ahead: Vec<Ahead>) {
        Scheduler::expect(self, ahead);
    }
    fn push(&mut self, candidate: Candidate) {
        Scheduler::push(self, candidate).unwrap();
    }
    fn next(&mut self, now: Duration) -> Option<(usize, Lease)> {
        Scheduler::next(self, now)
    }
    fn finished(&mut self, index: usize) {
        Scheduler::finished(self, index);
    }
}

/// Starts whatever fits, most urgent first: what a reservation is there to prevent.
struct FirstFit {
    inner: BTreeMap<usize, Candidate>,
    free: Vec<usize>,
    held: BTreeMap<usize, Lease>,
}

impl Schedule for FirstFit {
    fn push(&mut self, candidate: Candidate) {
        self.inner.insert(candidate.index, candidate);
    }
    fn next(&mut self, _: Duration) -> Option<(usize, Lease)> {
        let fits = self.inner.values().filter(|candidate| candidate.gpus.min as usize <= self.free.len());
        let chosen = *fits.max_by(|a, b| a.urgency.total_cmp(&b.urgency).then(b.index.cmp(&a.index)))?;
        self.inner.remove(&chosen.index);
        let gpus = self.free.split_off(self.free.len() - chosen.gpus.min as usize);
        let gpus = gpus.into_iter().map(|gpu| gpu as u32).collect();
        let lease = Lease { cores: 1, memory_bytes: 0, gpus, gpu_memory_bytes: 80 };
        self.held.insert(chosen.index, lease.clone());
        Some((chosen.index, lease))
    }
    fn finished(&mut self, index: usize) {
        let lease = self.held.remove(&index);
        self.free.extend(lease.into_iter().flat_map(|lease| lease.gpus).map(|gpu| gpu as usize));
    }
}

/// What a schedule came to.
#[derive(Debug)]
pub struct Made {
    pub makespan: u64,
}

/// Carries a case through, checking the machine's limits from the leases alone after every start.
///
/// # Errors
/// The law that was broken.
pub fn simulate(case: &Case, scheduler: &mut dyn Schedule) -> Result<Made, String> {
    let mut wait = Wait::default();
    let mut running: BTreeMap<(u64, usize), Lease> = BTreeMap::new();
    let mut missing: Vec<usize> = case.stages.iter().map(|stage| stage.needs.len()).collect();
    let mut started = vec![false; case.stages.len()];
    let mut ready: Vec<usize> = (0..missing.len()).filter(|stage| missing[*stage] == 0).collect();
    ready.iter().for_each(|stage| scheduler.push(case.stages[*stage].candidate));
    let mut now = 0;
    let mut ended = vec![false; case.stages.len()];
    loop {
        scheduler.expect(ahead(case, &ended));
        while let Some((index, lease)) = scheduler.next(Duration::from_secs(now)) {
            let stage = &case.stages[index];
            if std::mem::replace(&mut started[index], true) || missing[index] > 0 {
                return Err(format!("stage {index} started twice, or too early"));
            }
            owns_what_it_asked_for(stage, &lease, &case.capacity)?;
            ready.retain(|other| *other != index);
            wait.overtaken(case, index, now);
            running.insert((now + stage.seconds, index), lease);
            within(&case.capacity, case, &running)?;
        }
        // One of the last few may wait for the others, as long as these are in time.
        if ended.iter().filter(|ended| !**ended).count() > FORESEEN {
            wait.check(case, &ready, &running, now)?;
        }
        let Some(((end, index), _)) = running.pop_first() else { break };
        now = end;
        scheduler.finished(index);
        ended[index] = true;
        for (next, stage) in case.stages.iter().enumerate().filter(|(_, stage)| stage.needs.contains(&index)) {
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.push(next);
                scheduler.push(stage.candidate);
            }
        }
    }
    match started.iter().position(|started| !started) {
        Some(stage) => Err(format!("stage {stage} never started")),
        None => Ok(Made { makespan: now }),
    }
}

/// The last few stages, as the engine shows them.
fn ahead(case: &Case, ended: &[bool]) -> Vec<Ahead> {
    let left = ended.iter().filter(|ended| !**ended).count();
    let stages = case.stages.iter().filter(|stage| !ended[stage.candidate.index] && left <= FORESEEN);
    let needs = |stage: &Stage| stage.needs.iter().copied().filter(|need| !ended[*need]).collect();
    stages.map(|stage| Ahead { candidate: stage.candidate, needs: needs(stage) }).collect()
}

fn owns_what_it_asked_for(stage: &Stage, lease: &Lease, capacity: &Capacity) -> Result<(), String> {
    let Gpus { min, max, memory_bytes } = stage.candidate.gpus;
    let count = lease.gpus.len() as u32;
    let is_enough = count >= min && count <= max.max(min);
    let whole = lease.gpus.iter().map(|gpu| capacity.gpus[*gpu as usize]).min().unwrap_or(0);
    let bytes = if memory_bytes == 0 { whole } else { memory_bytes };
    match is_enough && (count == 0 || lease.gpu_memory_bytes == bytes) {
        true => Ok(()),
        false => Err(format!("{lease:?} is not what {stage:?} asked for")),
    }
}

/// Sums what is leased; a lease whose need is not known owns its GPUs alone.
fn within(capacity: &Capacity, case: &Case, running: &BTreeMap<(u64, usize), Lease>) -> Result<(), String> {
    let cores: u32 = running.values().map(|lease| lease.cores).sum();
    let memory: u64 = running.values().map(|lease| lease.memory_bytes).sum();
    let mut gpus = vec![0; capacity.gpus.len()];
    for ((_, index), lease) in running {
        let wanted = case.stages[*index].candidate.gpus.memory_bytes;
        for gpu in &lease.gpus {
            let total = capacity.gpus[*gpu as usize];
            gpus[*gpu as usize] += if wanted == 0 { total } else { wanted };
        }
    }
    let grouped = running.keys().filter(|(_, index)| case.stages[*index].candidate.group.is_some()).count() as u32;
    let broken = [
        ("cores", cores > capacity.cores),
        ("memory", memory > capacity.memory_bytes),
        ("a GPU's memory", gpus.iter().zip(&capacity.gpus).any(|(used, total)| used > total)),
        ("jobs", running.len() as u32 > capacity.jobs),
        ("a group's limit", capacity.groups.first().is_some_and(|most| grouped > *most)),
    ];
    match broken.iter().find(|(_, is_broken)| *is_broken) {
        Some((what, _)) => Err(format!("over {what}: {running:?} on {capacity:?}")),
        None => Ok(()),
    }
}

/// How long the most urgent stage that may start has been so.
#[derive(Default)]
struct Wait {
    first: Option<(usize, u64)>,
}

impl Wait {
    /// A stage became ready and started in one moment: if it is more urgent, the wait begins anew.
    fn overtaken(&mut self, case: &Case, by: usize, now: u64) {
        let rank = |stage: usize| queue::rank(&case.stages[stage].candidate);
        self.first = self.first.map(|(stage, since)| (stage, if rank(by) < rank(stage) { now } else { since }));
    }

    /// While a stage is the most urgent, what runs ends in one longest time, and what passed it within its forecast by
    /// a second one; forecasts are at most as long again.
    fn check(
        &mut self,
        case: &Case,
        ready: &[usize],
        running: &BTreeMap<(u64, usize), Lease>,
        now: u64,
    ) -> Result<(), String> {
        let grouped = running.keys().filter(|(_, index)| case.stages[*index].candidate.group.is_some()).count() as u32;
        let is_closed = case.capacity.groups.first().is_some_and(|most| grouped >= *most);
        let may = ready.iter().filter(|stage| !is_closed || case.stages[**stage].candidate.group.is_none());
        let first = may.min_by_key(|stage| queue::rank(&case.stages[**stage].candidate)).copied();
        self.first = match (first, self.first) {
            (Some(stage), Some((same, since))) if stage == same => Some((stage, since)),
            (first, _) => first.map(|stage| (stage, now)),
        };
        let longest = case.stages.iter().map(|stage| stage.seconds).max().unwrap_or(0);
        let forecast = case.stages.iter().filter_map(|stage| stage.candidate.expected).max().unwrap_or_default();
        match self.first {
            Some((stage, since)) if now - since > longest + forecast.as_secs() => {
                Err(format!("stage {stage} starves: the most urgent since {since}, not started at {now}"))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn ten_thousand_random_schedules_break_no_limit_and_starve_nobody() {
    for seed in 0..10_000 {
        let case = Case::any(seed);
        let made = simulate(&case, &mut Scheduler::new(case.capacity.clone()));
        assert!(made.is_ok(), "seed {seed}: {made:?}");
    }
}

/// The control: the checker sees a scheduler that takes the GPUs, the memory or the cores for larger than they are.
#[test]
fn a_scheduler_that_overbooks_is_caught() {
    type Change = fn(&mut Capacity);
    let changes: [(&str, Change); 4] = [
        ("over a GPU's memory", |capacity| capacity.gpus.iter_mut().for_each(|bytes| *bytes *= 2)),
        ("over memory", |capacity| capacity.memory_bytes *= 2),
        ("over cores", |capacity| capacity.cores *= 2),
        ("over jobs", |capacity| capacity.jobs += 1),
    ];
    for (what, change) in changes {
        let caught = (0..1000).filter_map(|seed| {
            let case = Case::any(seed);
            let mut believed = case.capacity.clone();
            change(&mut believed);
            simulate(&case, &mut Scheduler::new(believed)).err()
        });
        assert!(caught.filter(|law| law.starts_with(what)).count() > 50, "{what}");
    }
}

/// One stage on four GPUs in front of pairs of chains that keep one GPU or the other busy.
fn wide_among_narrow() -> Case {
    let narrow = |index: usize, needs: Vec<usize>| Stage {
        seconds: 2 + index as u64 % 2,
        needs,
        candidate: on_gpus(index, 1.0, 1, 0),
    };
    let mut stages: Vec<Stage> = (0..8).map(|index| narrow(index, Vec::new())).collect();
    stages.extend((8..200).map(|index| narrow(index, vec![index - 8])));
    stages.push(Stage { seconds: 5, needs: vec![0], candidate: on_gpus(200, 9.0, 4, 0) });
    Case { capacity: machine(64, &[80; 4]), stages }
}

#[test]
fn a_stage_on_four_gpus_is_not_starved_by_those_on_one() {
    let case = wide_among_narrow();
    assert!(simulate(&case, &mut Scheduler::new(case.capacity.clone())).is_ok());
    let mut careless = FirstFit { inner: BTreeMap::new(), free: (0..4).collect(), held: BTreeMap::new() };
    let starved = simulate(&Case { capacity: case.capacity.clone(), ..case }, &mut careless).unwrap_err();
    assert!(starved.contains("stage 200 starves"), "{starved}");
}
