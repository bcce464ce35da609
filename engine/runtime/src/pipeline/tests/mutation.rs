//! Files nobody would write: whatever stands in one, it is refused or read, and never takes the program down.

use std::time::{Duration, Instant};

use super::{VALID, load};
use crate::pipeline::SourceFile;

/// In an ordinary run; `LLMFLOW_YAML_MUTATIONS` says another number: 1000000 is the full tier.
const MUTATIONS: u64 = 20_000;
const EVERYTHING: &str = include_str!("../../../../../tests/pipelines/valid/everything.yaml");
/// What the grammar gives a meaning to: blind bytes seldom hit on it.
const PIECES: [&str; 24] = [
    "${matrix.x}",
    "${params.share}",
    "${secret.X}",
    "${env.REGION}",
    "$${",
    "matrix: {x: [1, 2]}",
    "include: [{x: 3}]",
    "exclude: [{x: 1}]",
    "when: \"rows.a > 1\"",
    "frozen: true",
    "cache: no",
    "@x=1",
    "rows.",
    "&a ",
    "*a",
    "<<: *a",
    ".nan",
    "1e999",
    "99999999999T",
    "~",
    "\n",
    "  ",
    "publish: {rows: s3://b/k}",
    "profiles: {p: {stages: {rows: {with: {}}}}}",
];

/// Vigna's splitmix64: enough to choose bytes with.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A valid file with one to four changes: bytes replaced, removed or added, pieces of the grammar put in, parts of
/// the file moved or repeated.
fn mutated(rng: &mut SplitMix) -> String {
    let seed = if rng.below(2) == 0 { VALID } else { EVERYTHING };
    let mut bytes = seed.as_bytes().to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 => bytes[at] = b"{}[]:,&*#|>'\"$!%@-? \n\t\0ax9"[rng.below(26)],
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, rng.next() as u8),
            3 => drop(bytes.splice(at..at, PIECES[rng.below(PIECES.len())].bytes())),
            4 => {
                let end = (at + rng.below(60)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => bytes.truncate(at.max(40)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_mutation_of_a_file_panics() {
    let count = std::env::var("LLMFLOW_YAML_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(MUTATIONS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let start = Instant::now();
    let tried = |thread: u64| {
        let (mut slowest, mut valid) = (Duration::ZERO, 0_u64);
        for round in (thread..count).step_by(threads as usize) {
            let mut rng = SplitMix(round);
            let text = mutated(&mut rng);
            let begun = cpu_time();
            let loaded = load(&text, &[]);
            valid += u64::from(loaded.diagnostics.is_empty());
            assert!(loaded.diagnostics.to_string().is_empty() == loaded.diagnostics.is_empty(), "round {round}");
            loaded.stages.iter().for_each(|stage| drop((stage.with(), stage.needs())));
            slowest = slowest.max(cpu_time().saturating_sub(begun));
        }
        (slowest, valid)
    };
    let results: Vec<(Duration, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || tried(thread))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let valid: u64 = results.iter().map(|(_, valid)| valid).sum();
    let slowest = results.iter().map(|(slowest, _)| *slowest).max().unwrap_or_default();
    println!("{count} mutations in {:?}, {valid} of them valid, the slowest {slowest:?}", start.elapsed());
    assert!(valid > count / 100, "mutations that are all refused at once reach nothing");
    assert!(slowest < Duration::from_millis(100), "{slowest:?} of one core");
}

/// What this thread has worked: waiting for a core is not the reader's fault. Zero where the kernel does not say.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The mutations can show a panic: this reader has one, as any has that takes a colon for granted.
#[test]
fn a_reader_that_panics_is_found() {
    let naive = |text: &str| text.lines().map(|line| line.split_once(':').unwrap().0.len()).sum::<usize>();
    let panics = (0..50).any(|round| {
        let text = mutated(&mut SplitMix(round));
        let hook = std::panic::catch_unwind(|| naive(&SourceFile::new("p.yaml", text).text));
        hook.is_err()
    });
    assert!(panics);
}
