//! Finds texts that are nearly the same: MinHash and LSH propose pairs, their true Jaccard similarity decides.
//!
//! Owns: words, shingles, signatures, bands, clusters. Must not know: rows, datasets, reports.
//! Sources: Broder 1997 (MinHash); Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3 (bands).

use std::collections::HashMap;

use llmflow_contract::{Context, Failure, counter_rng};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

/// How alike is alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Words of a shingle.
    pub ngram: usize,
    /// Hashes of a signature.
    pub num_perm: usize,
    /// Least Jaccard similarity of a pair, over sets of shingles.
    pub threshold: f64,
}

/// Share of the pairs just at the threshold that the bands must propose; above it nearly all are.
const RECALL_AT_THRESHOLD: f64 = 0.999;
/// Texts hashed between two looks at cancellation.
const CHUNK: usize = 256;

impl Settings {
    /// The set of a text's shingles at these settings.
    pub fn shingles(&self, text: &str) -> Vec<u64> {
        shingles(text, self.ngram)
    }

    /// Bands and rows a band: the longest band (fewest false proposals) that still finds
    /// [`RECALL_AT_THRESHOLD`] of the pairs, `1 - (1 - t^r)^b`.
    pub fn bands(&self) -> (usize, usize) {
        let recall = |rows: usize| {
            let bands = self.num_perm / rows;
            1.0 - (1.0 - self.threshold.powi(rows as i32)).powi(bands as i32)
        };
        let rows = (1..=self.num_perm).rev().find(|rows| recall(*rows) >= RECALL_AT_THRESHOLD).unwrap_or(1);
        (self.num_perm / rows, rows)
    }
}

/// The set of a text's shingles, as sorted 64-bit hashes.
///
/// Words are maximal runs of letters and digits after lower-casing; a text of fewer than `ngram` words is one shingle.
fn shingles(text: &str, ngram: usize) -> Vec<u64> {
    let lower = text.to_lowercase();
    // Words separated by single spaces, and where each begins.
    let mut words = String::with_capacity(lower.len());
    let mut starts = Vec::new();
    for word in lower.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        starts.push(words.len());
        words.push_str(word);
    }
    if starts.is_empty() {
        return vec![xxh3_64(text.as_bytes())];
    }
    if starts.len() <= ngram {
        return vec![xxh3_64(words.as_bytes())];
    }
    let end_of = |word: usize| starts.get(word + 1).map_or(words.len(), |next| next - 1);
    let mut hashes: Vec<u64> = (0..=starts.len() - ngram)
        .map(|first| xxh3_64(&words.as_bytes()[starts[first]..end_of(first + ngram - 1)]))
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Jaccard similarity of two sorted sets: shared over all.
pub(crate) fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut left, mut right, mut shared) = (0, 0, 0_usize);
    while left < a.len() && right < b.len() {
        match a[left].cmp(&b[right]) {
            std::cmp::Ordering::Less => left += 1,
            std::cmp::Ordering::Greater => right += 1,
            std::cmp::Ordering::Equal => {
                shared += 1;
                left += 1;
                right += 1;
            }
        }
    }
    shared as f64 / (a.len() + b.len() - shared) as f64
}

/// Texts in groups: two are together if a chain of verified pairs joins them.
#[derive(Debug)]
pub(crate) struct Clusters {
    /// For each text the first of its group, by index.
    pub first: Vec<usize>,
    /// Pairs whose true similarity was computed.
    pub compared: u64,
    /// The pairs among them at or above the threshold.
    pub verified: Vec<(usize, usize)>,
}

/// Groups sets of shingles. The same for every number of threads.
///
/// # Errors
/// Class `cancelled`.
pub(crate) fn clusters(ctx: &Context, sets: &[Vec<u64>], settings: &Settings) -> Result<Clusters, Failure> {
    let (bands, rows) = settings.bands();
    let mut groups = Groups::new(sets.len());
    let mut found = Clusters { first: Vec::new(), compared: 0, verified: Vec::new() };
    // Equal sets are together without a comparison; one of each goes on.
    let mut first_with: HashMap<&[u64], usize> = HashMap::new();
    let mut distinct = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let first = *first_with.entry(set).or_insert(index);
        if first == index {
            distinct.push(index);
        } else {
            groups.join(first, index);
            found.verified.push((first, index));
        }
    }
    let signatures = signatures(ctx, sets, &distinct, settings.num_perm)?;
    for band in 0..bands {
        ctx.check()?;
        let key = |position: usize| {
            let start = position * settings.num_perm + band * rows;
            &signatures[start..start + rows]
        };
        let mut order: Vec<usize> = (0..distinct.len()).collect();
        order.par_sort_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
        for bucket in order.chunk_by(|a, b| key(*a) == key(*b)) {
            for (at, later) in bucket.iter().enumerate() {
                if at % CHUNK == 0 {
                    ctx.check()?;
                }
                for earlier in &bucket[..at] {
                    let (a, b) = (distinct[*earlier], distinct[*later]);
                    if groups.first(a) == groups.first(b) {
                        continue;
                    }
                    found.compared += 1;
                    if jaccard(&sets[a], &sets[b]) >= settings.threshold {
                        groups.join(a, b);
                        found.verified.push((a, b));
                    }
                }
            }
        }
    }
    found.first = (0..sets.len()).map(|index| groups.first(index)).collect();
    Ok(found)
}

/// MinHash signatures of the sets at `distinct`, one after the other.
fn signatures(ctx: &Context, sets: &[Vec<u64>], distinct: &[usize], num_perm: usize) -> Result<Vec<u32>, Failure> {
    let permutations = permutations(num_perm);
    let mut all = vec![u32::MAX; distinct.len() * num_perm];
    for (chunk, indices) in all.chunks_mut(CHUNK * num_perm).zip(distinct.chunks(CHUNK)) {
        ctx.check()?;
        chunk.par_chunks_mut(num_perm).zip(indices).for_each(|(signature, index)| {
            for hash in &sets[*index] {
                for (least, (multiply, add)) in signature.iter_mut().zip(&permutations) {
                    let permuted = (hash.wrapping_mul(*multiply).wrapping_add(*add) >> 32) as u32;
                    *least = permuted.min(*least);
                }
            }
        });
    }
    Ok(all)
}

/// Factors (odd) and offsets of the hash functions, fixed for ever: signatures never depend on a run's seed.
fn permutations(num_perm: usize) -> Vec<(u64, u64)> {
    let bytes = |purpose: &str| counter_rng(1, purpose).get_seed();
    let number = |index: usize, purpose: &str| xxh3_64(&[&bytes(purpose)[..], &index.to_le_bytes()].concat());
    (0..num_perm).map(|index| (number(index, "minhash factor") | 1, number(index, "minhash offset"))).collect()
}

/// Union-find whose root is always the earliest member.
struct Groups(Vec<usize>);

impl Groups {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }
    fn first(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first(a), self.first(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;

    const SETTINGS: Settings = Settings { ngram: 5, num_perm: 112, threshold: 0.8 };

    #[test]
    fn shingles_are_sets_of_runs_of_words() {
        assert_eq!(shingles("One two, THREE four five", 5), shingles("one two three four five!", 5));
        assert_eq!(shingles("a b c d e f", 5).len(), 2);
        assert_eq!(shingles("a b a b a b a b", 2).len(), 2);
        assert_eq!(shingles("short", 5).len(), 1);
        assert_ne!(shingles("!!", 5), shingles("??", 5));
    }

    #[test]
    fn jaccard_is_shared_over_all() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4]), 0.5);
        assert_eq!(jaccard(&[1], &[1]), 1.0);
    }

    #[test]
    fn bands_follow_the_threshold() {
        assert_eq!(SETTINGS.bands(), (22, 5));
        assert!(Settings { threshold: 0.5, ..SETTINGS }.bands().1 < 5);
    }

    #[test]
    fn a_near_copy_joins_the_first_and_a_different_text_stays_alone() {
        let words: Vec<String> = (0..100).map(|n| format!("word{n}")).collect();
        let mut edited = words.clone();
        edited[50] = "other".into();
        let texts = [words.join(" "), "something else altogether, in six words".into(), edited.join(" ")];
        let sets: Vec<_> = texts.iter().map(|text| shingles(text, 5)).collect();
        let host = TestHost::new();
        let found = clusters(&host.context(), &sets, &SETTINGS).unwrap();
        assert_eq!(found.first, [0, 1, 0]);
        assert_eq!(found.verified, [(0, 2)]);
    }
}
