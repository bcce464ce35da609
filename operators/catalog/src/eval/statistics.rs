//! The statistics of an evaluation: means, standard errors, intervals of shares, paired bootstrap intervals.
//!
//! Owns: the arithmetic, in f64, in the order of its input. Must not know: models, rows, reports.

use llmflow_contract::CounterRng;
use rand::Rng;

/// The two ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    pub lower: f64,
    pub upper: f64,
}

/// The arithmetic mean; 0 of no values.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The standard error of the mean: sample standard deviation (n − 1) over √n; 0 below two values.
pub fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64 / values.len() as f64).sqrt()
}

/// The 95 % interval of a share that was found in `count` trials; all of 0 … 1 without trials.
///
/// It stays within 0 … 1, and has a width where all or none succeeded: the share ± 1.96 standard errors does neither.
///
/// Source: Wilson 1927, eq. 6 (score interval).
pub fn share_interval(share: f64, count: usize) -> Ends {
    const Z: f64 = 1.959_963_984_540_054; // 95 % of a normal distribution lie within so many deviations
    if count == 0 {
        return Ends { lower: 0.0, upper: 1.0 };
    }
    let count = count as f64;
    let shrunk = 1.0 + Z * Z / count;
    let centre = (share + Z * Z / (2.0 * count)) / shrunk;
    let half = Z * (share * (1.0 - share) / count + Z * Z / (4.0 * count * count)).sqrt() / shrunk;
    // Rounding alone could pass the ends.
    Ends { lower: (centre - half).clamp(0.0, share), upper: (centre + half).clamp(share, 1.0) }
}

/// The 95 % percentile intervals of the means of several paired differences.
///
/// `differences[m][i]` is candidate minus baseline of metric `m` on question `i`. Every replicate draws the same
/// questions, with replacement, for all metrics. Equal arguments and an equal stream give equal intervals.
///
/// Source: Efron and Tibshirani 1993, ch. 13 (percentile interval).
pub fn paired_bootstrap(differences: &[Vec<f64>], samples: usize, rng: &mut CounterRng) -> Vec<Ends> {
    let questions = differences.first().map_or(0, Vec::len);
    debug_assert!(differences.iter().all(|metric| metric.len() == questions), "paired metrics have equal length");
    if questions == 0 || samples == 0 {
        return vec![Ends { lower: 0.0, upper: 0.0 }; differences.len()];
    }
    let mut replicates = vec![Vec::with_capacity(samples); differences.len()];
    let mut sums = vec![0.0_f64; differences.len()];
    for _ in 0..samples {
        sums.fill(0.0);
        for _ in 0..questions {
            let question = below(questions, rng);
            for (sum, metric) in sums.iter_mut().zip(differences) {
                *sum += metric[question];
            }
        }
        for (means, sum) in replicates.iter_mut().zip(&sums) {
            means.push(sum / questions as f64);
        }
    }
    replicates
        .into_iter()
        .map(|mut means| {
            means.sort_by(f64::total_cmp);
            Ends { lower: quantile(&means, 0.025), upper: quantile(&means, 0.975) }
        })
        .collect()
}

/// A number in `0..limit` by multiply and shift (Lemire 2019); its bias is below `limit / 2^64`.
pub fn below(limit: usize, rng: &mut CounterRng) -> usize {
    ((u128::from(rng.next_u64()) * limit as u128) >> 64) as usize
}

/// The quantile of sorted values, interpolated linearly between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use llmflow_contract::counter_rng;

    use super::*;

    #[test]
    fn the_standard_error_of_a_share_is_the_closed_form() {
        // 3 of 4 right: sample variance 0.25, over n = 4, root 0.25.
        let right = [1.0, 1.0, 1.0, 0.0];
        assert_eq!(mean(&right), 0.75);
        assert!((standard_error(&right) - 0.25).abs() < 1e-12);
        assert_eq!((mean(&[]), standard_error(&[1.0])), (0.0, 0.0));
    }

    #[test]
    fn the_interval_of_a_share_is_wilsons_and_stays_a_share() {
        let close = |ends: Ends, lower: f64, upper: f64| {
            assert!((ends.lower - lower).abs() < 1e-4 && (ends.upper - upper).abs() < 1e-4, "{ends:?}");
        };
        // Newcombe 1998, table I, method 3.
        close(share_interval(81.0 / 263.0, 263), 0.2553, 0.3662);
        close(share_interval(15.0 / 148.0, 148), 0.0624, 0.1605);
        close(share_interval(0.0, 20), 0.0, 0.1611);
        close(share_interval(1.0 / 29.0, 29), 0.0061, 0.1718);
        for count in 1..50 {
            for right in 0..=count {
                let share = right as f64 / count as f64;
                let Ends { lower, upper } = share_interval(share, count);
                assert!(0.0 <= lower && lower <= share && share <= upper && upper <= 1.0 && lower < upper);
            }
        }
        assert_eq!(share_interval(0.0, 0), Ends { lower: 0.0, upper: 1.0 });
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(quantile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn a_constant_difference_has_an_interval_of_no_width() {
        let ends = paired_bootstrap(&[vec![0.5; 20], vec![-1.0; 20]], 100, &mut counter_rng(1, "t"));
        assert_eq!(ends, [Ends { lower: 0.5, upper: 0.5 }, Ends { lower: -1.0, upper: -1.0 }]);
    }

    #[test]
    fn the_interval_agrees_with_the_normal_one_on_many_questions() {
        // 400 differences, half 1 and half 0: mean 0.5, standard error 0.025, so about 0.451 … 0.549.
        let differences: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
        let ends = paired_bootstrap(&[differences], 4000, &mut counter_rng(42, "t"))[0];
        assert!((ends.lower - 0.451).abs() < 0.005 && (ends.upper - 0.549).abs() < 0.005, "{ends:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_seed_another() {
        let differences = vec![(0..60).map(|index| f64::from(index * index % 7) - 3.0).collect::<Vec<_>>()];
        let ends = |seed| paired_bootstrap(&differences, 1000, &mut counter_rng(seed, "bootstrap"));
        assert_eq!(ends(42), ends(42));
        assert_ne!(ends(42), ends(43));
    }
}
