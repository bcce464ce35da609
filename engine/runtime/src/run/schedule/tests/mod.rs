//! Behaviour by hand, then 10,000 random schedules against a checker, and small ones against the optimum.

mod case;
mod optimum;
mod simulation;

use super::*;

const GIB: u64 = 1 << 30;

fn machine(cores: u32, gpus: &[u64]) -> Capacity {
    Capacity { cores, memory_bytes: 64 * GIB, gpus: gpus.to_vec(), jobs: 64, groups: Vec::new() }
}

/// Of one core, never timed.
fn candidate(index: usize, urgency: f64) -> Candidate {
    Candidate { index, cores: 1, memory_bytes: GIB, gpus: Gpus::default(), group: None, urgency, expected: None }
}

fn on_gpus(index: usize, urgency: f64, count: u32, memory_bytes: u64) -> Candidate {
    Candidate { gpus: Gpus { min: count, max: count, memory_bytes }, ..candidate(index, urgency) }
}

fn expected(candidate: Candidate, seconds: u64) -> Candidate {
    Candidate { expected: Some(Duration::from_secs(seconds)), ..candidate }
}

fn scheduler(capacity: Capacity, candidates: &[Candidate]) -> Scheduler {
    let mut scheduler = Scheduler::new(capacity);
    for candidate in candidates {
        scheduler.push(*candidate).unwrap();
    }
    scheduler
}

/// Indices of what starts at second `now`.
fn starts(scheduler: &mut Scheduler, now: u64) -> Vec<usize> {
    std::iter::from_fn(|| scheduler.next(Duration::from_secs(now))).map(|(index, _)| index).collect()
}

#[test]
fn the_critical_path_goes_first_within_the_cores() {
    let mut scheduler = scheduler(machine(2, &[]), &[candidate(0, 1.0), candidate(1, 5.0), candidate(2, 3.0)]);
    assert_eq!(starts(&mut scheduler, 0), [1, 2]);
    scheduler.finished(2);
    assert_eq!(starts(&mut scheduler, 1), [0]);
    assert_eq!(urgencies(&[0, 1, 2], &[vec![], vec![0], vec![0]], &[1.0, 2.0, 9.0]), [10.0, 2.0, 9.0]);
}

#[test]
fn what_asks_for_more_than_the_machine_has_runs_alone() {
    let giant = Candidate { cores: 64, memory_bytes: 1 << 50, ..candidate(0, 9.0) };
    let mut scheduler = scheduler(machine(2, &[]), &[giant, candidate(1, 1.0)]);
    let (index, lease) = scheduler.next(Duration::ZERO).unwrap();
    assert_eq!((index, lease.cores, lease.memory_bytes), (0, 2, 64 * GIB));
    assert_eq!(scheduler.next(Duration::ZERO), None);
}

#[test]
fn a_gpu_that_the_machine_does_not_have_is_refused_at_once() {
    let mut scheduler = Scheduler::new(machine(2, &[24 * GIB, 80 * GIB]));
    assert_eq!(scheduler.push(on_gpus(0, 1.0, 2, 40 * GIB)), Err(TooFewGpus { wanted: 2, fitting: 1 }));
    assert_eq!(scheduler.next(Duration::ZERO), None);
    assert_eq!(scheduler.push(on_gpus(0, 1.0, 2, 0)), Ok(()));
}

#[test]
fn leases_share_a_gpu_within_its_memory_and_an_unknown_need_takes_it_whole() {
    let shared = [on_gpus(0, 9.0, 1, 50 * GIB), on_gpus(1, 8.0, 1, 30 * GIB), on_gpus(2, 7.0, 1, 30 * GIB)];
    let mut scheduler = scheduler(machine(8, &[80 * GIB]), &shared);
    let lease = scheduler.next(Duration::ZERO).unwrap().1;
    assert_eq!((lease.gpus, lease.gpu_memory_bytes), (vec![0], 50 * GIB));
    assert_eq!(starts(&mut scheduler, 0), [1]);
    scheduler.push(on_gpus(3, 99.0, 1, 0)).unwrap();
    scheduler.finished(1);
    assert_eq!(starts(&mut scheduler, 1), [] as [usize; 0], "a share would hold up the whole");
    scheduler.finished(0);
    let (index, lease) = scheduler.next(Duration::ZERO).unwrap();
    assert_eq!((index, lease.gpu_memory_bytes), (3, 80 * GIB));
}

#[test]
fn the_fullest_gpu_that_serves_is_shared_and_the_smallest_is_taken() {
    let mut scheduler = Scheduler::new(machine(8, &[80 * GIB, 24 * GIB, 80 * GIB]));
    let mut gpus = |candidate| {
        scheduler.push(candidate).unwrap();
        scheduler.next(Duration::ZERO).map(|(_, lease)| lease.gpus)
    };
    assert_eq!(gpus(on_gpus(0, 1.0, 1, 10 * GIB)), Some(vec![1]));
    assert_eq!(gpus(on_gpus(1, 1.0, 1, 40 * GIB)), Some(vec![0]));
    assert_eq!(gpus(on_gpus(2, 1.0, 1, 30 * GIB)), Some(vec![0]));
    assert_eq!(gpus(on_gpus(3, 1.0, 1, 0)), Some(vec![2]));
}

#[test]
fn one_that_takes_gpus_whole_is_given_the_emptiest() {
    let mut scheduler = scheduler(machine(8, &[40 * GIB, 79 * GIB, 60 * GIB]), &[on_gpus(0, 1.0, 2, 0)]);
    assert_eq!(scheduler.next(Duration::ZERO).unwrap().1.gpus, [1, 2]);
}

#[test]
fn gpus_that_are_found_later_are_leased() {
    let mut scheduler = Scheduler::new(machine(8, &[0, 0]));
    assert_eq!(scheduler.push(on_gpus(0, 1.0, 1, 0)).unwrap_err().fitting, 0);
    scheduler.find_gpus(&[GIB, 2 * GIB]);
    scheduler.push(on_gpus(0, 1.0, 1, 0)).unwrap();
    assert_eq!(scheduler.next(Duration::ZERO).unwrap().1.gpus, [1]);
    scheduler.finished(0);
    scheduler.push(on_gpus(1, 1.0, 2, 0)).unwrap();
    assert_eq!(scheduler.next(Duration::ZERO).unwrap().1.gpus, [0, 1]);
}

#[test]
fn gpus_beyond_the_least_go_to_a_stage_that_waits_alone_for_them() {
    let wide = |index| Candidate { gpus: Gpus { min: 1, max: 4, memory_bytes: 0 }, ..candidate(index, 1.0) };
    let mut alone = scheduler(machine(8, &[GIB; 4]), &[wide(0)]);
    assert_eq!(alone.next(Duration::ZERO).unwrap().1.gpus, [0, 1, 2, 3]);
    let mut together = scheduler(machine(8, &[GIB; 4]), &[wide(0), wide(1)]);
    assert_eq!(together.next(Duration::ZERO).unwrap().1.gpus, [0]);
    assert_eq!(together.next(Duration::ZERO).unwrap().1.gpus, [1, 2, 3]);
}

#[test]
fn only_what_cannot_delay_a_wide_stage_passes_it() {
    let running = expected(on_gpus(0, 99.0, 3, 0), 10);
    let wide = on_gpus(1, 9.0, 4, 0);
    let narrow = |index, seconds| expected(on_gpus(index, 1.0, 1, 0), seconds);
    let mut scheduler = scheduler(machine(8, &[GIB; 4]), &[running, wide, narrow(2, 11), narrow(3, 10)]);
    scheduler.push(on_gpus(4, 2.0, 1, 0)).unwrap(); // never timed
    scheduler.push(candidate(5, 0.5)).unwrap(); // on a core that nobody needs
    assert_eq!(starts(&mut scheduler, 0), [0, 3, 5]);
    scheduler.finished(3);
    assert_eq!(starts(&mut scheduler, 9), [] as [usize; 0]);
    scheduler.finished(0);
    assert_eq!(starts(&mut scheduler, 10), [1]);
}

#[test]
fn nothing_passes_on_what_is_reserved_while_the_wait_is_for_a_stage_never_timed() {
    let mut scheduler = scheduler(
        machine(8, &[GIB; 2]),
        &[on_gpus(0, 99.0, 1, 0), on_gpus(1, 9.0, 2, 0), expected(on_gpus(2, 1.0, 1, 0), 1)],
    );
    assert_eq!(starts(&mut scheduler, 0), [0]);
}

#[test]
fn what_is_taken_back_does_not_start_and_may_come_again() {
    let mut scheduler = scheduler(machine(1, &[]), &[candidate(0, 2.0), candidate(1, 1.0)]);
    scheduler.withdraw(0);
    scheduler.withdraw(7); // of one that is not there
    assert_eq!(starts(&mut scheduler, 0), [1]);
    scheduler.push(candidate(0, 2.0)).unwrap();
    scheduler.finished(1);
    assert_eq!(starts(&mut scheduler, 1), [0]);
}

#[test]
fn a_group_at_its_limit_holds_up_nobody_else() {
    let of_group = |index| Candidate { group: Some(0), ..candidate(index, 9.0) };
    let capacity = Capacity { groups: vec![2], ..machine(4, &[]) };
    let mut scheduler = scheduler(capacity, &[of_group(0), of_group(1), of_group(2), of_group(3), candidate(4, 1.0)]);
    assert_eq!(starts(&mut scheduler, 0), [0, 1, 4]);
    scheduler.finished(4);
    assert_eq!(starts(&mut scheduler, 1), [] as [usize; 0]);
    scheduler.finished(0);
    assert_eq!(starts(&mut scheduler, 2), [2]);
}

/// A long stage could have the GPU at once; a short one that much waits for wants it in a second.
fn two_that_want_one_gpu() -> [Ahead; 4] {
    let ahead =
        |candidate, seconds, needs: &[usize]| Ahead { candidate: expected(candidate, seconds), needs: needs.to_vec() };
    [
        ahead(on_gpus(0, 10.0, 1, 0), 10, &[]),
        ahead(candidate(1, 12.0), 1, &[]),
        ahead(on_gpus(2, 11.0, 1, 0), 1, &[1]),
        ahead(candidate(3, 10.0), 10, &[2]),
    ]
}

#[test]
fn of_the_last_few_one_waits_where_all_of_them_end_sooner_for_it() {
    let [long, first, short, last] = two_that_want_one_gpu();
    let candidates = [long.candidate, first.candidate];
    let mut sighted = scheduler(machine(4, &[GIB]), &candidates);
    sighted.expect(two_that_want_one_gpu().to_vec());
    assert_eq!(starts(&mut sighted, 0), [1]);
    sighted.finished(1);
    sighted.push(short.candidate).unwrap();
    sighted.expect(vec![long.clone(), Ahead { needs: Vec::new(), ..short }, last.clone()]);
    assert_eq!(starts(&mut sighted, 1), [2]);
    sighted.finished(2);
    sighted.push(last.candidate).unwrap();
    sighted.expect(vec![long, Ahead { needs: Vec::new(), ..last }]);
    assert_eq!(starts(&mut sighted, 2), [0, 3]);
    // The control: one who sees only what is ready starts the long one, and all end nine seconds later.
    assert_eq!(starts(&mut scheduler(machine(4, &[GIB]), &candidates), 0), [1, 0]);
}

#[test]
fn nothing_is_kept_waiting_for_a_stage_that_is_late() {
    let [long, first, ..] = two_that_want_one_gpu();
    let mut scheduler = scheduler(machine(4, &[GIB]), &[long.candidate, first.candidate]);
    scheduler.expect(two_that_want_one_gpu().to_vec());
    assert_eq!(starts(&mut scheduler, 0), [1]);
    assert_eq!(starts(&mut scheduler, 1), [] as [usize; 0], "it is to end any moment");
    assert_eq!(starts(&mut scheduler, 2), [0]);
}

#[test]
fn nothing_is_kept_waiting_for_a_time_that_nobody_knows() {
    let ahead = two_that_want_one_gpu();
    let mut untimed = ahead.to_vec();
    untimed[3].candidate.expected = None;
    let mut pausing = ahead.to_vec();
    pausing[2].needs.clear(); // it waits for no stage, and is not ready
    for unknown in [untimed, pausing] {
        let mut scheduler = scheduler(machine(4, &[GIB]), &[ahead[0].candidate, ahead[1].candidate]);
        scheduler.expect(unknown);
        assert_eq!(starts(&mut scheduler, 0), [1, 0]);
    }
}

#[test]
fn no_more_stages_run_than_jobs_are_allowed() {
    let capacity = Capacity { jobs: 2, ..machine(8, &[]) };
    let mut scheduler = scheduler(capacity, &[candidate(0, 1.0), candidate(1, 2.0), candidate(2, 3.0)]);
    assert_eq!(starts(&mut scheduler, 0), [2, 1]);
    scheduler.finished(2);
    assert_eq!(starts(&mut scheduler, 1), [0]);
}

/// Counted, not timed: a call that looked at all that is ready would look at 5 million stages here, not at 30,000.
#[test]
fn a_start_costs_the_same_however_many_are_ready() {
    let candidates: Vec<_> = (0..10_000).map(|index| expected(on_gpus(index, index as f64, 1, GIB), 3)).collect();
    let mut scheduler = scheduler(machine(2, &[GIB; 2]), &candidates);
    for step in 0..5_000 {
        assert!(scheduler.ready.heads().count() <= 1);
        assert_eq!(starts(&mut scheduler, step), [9_999 - 2 * step as usize, 9_998 - 2 * step as usize]);
        scheduler.finished(9_999 - 2 * step as usize);
        scheduler.finished(9_998 - 2 * step as usize);
    }
}
