//! Arithmetic on contiguous `f32` slices, compiled for the widest vectors of the machine.
//!
//! Owns: the dispatch to the processor's vector unit, the exponential, reductions. Reductions add in 16 fixed lanes,
//! so a result depends neither on the vector width nor on the number of threads.

/// Lanes of every reduction: one AVX-512 register of `f32`, two of AVX2.
pub(crate) const LANES: usize = 16;

/// Sets of vector instructions that kernels are compiled for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Avx512,
    Avx2,
    Other,
}

/// What this machine has; the standard library asks the processor once.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn unit() -> Unit {
    let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (fused, wide) {
        (true, true) => Unit::Avx512,
        (true, false) => Unit::Avx2,
        _ => Unit::Other,
    }
}

/// Defines a function that is compiled for each vector unit and runs the one for this machine.
///
/// The body must call only what inlines always: anything else would be compiled without those instructions, where a
/// fused multiply-add is a call into the mathematics library, a hundred times slower.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    plain($($arg),*)
                }
                match $crate::transformer::vector::unit() {
                    // SAFETY: the processor has the instructions that the function is compiled for.
                    $crate::transformer::vector::Unit::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::transformer::vector::Unit::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::transformer::vector::Unit::Other => {}
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// e^x to about one unit in the last place; 0 below -87.3 and clamped above 88.
///
/// Source: range reduction by ln 2 in two parts and the minimax polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, clamped));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(rest, 1.398_199_9e-3);
    p = p.mul_add(rest, 8.333_452e-3);
    p = p.mul_add(rest, 4.166_579_6e-2);
    p = p.mul_add(rest, 1.666_666_6e-1);
    p = p.mul_add(rest, 0.5);
    let value = p.mul_add(rest * rest, rest + 1.0);
    let scale = f32::from_bits((((shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) + 127) << 23) as u32);
    if x < -87.3 { 0.0 } else { value * scale }
}

/// All lanes combined, halves first.
#[inline(always)]
pub(crate) fn fold(lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ f(x_i), in fixed lanes.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane]);
        }
    }
    fold(lanes, |a, b| a + b) + rest.iter().map(|value| f(*value)).sum::<f32>()
}

/// Σ a_i·b_i, in fixed lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0_f32; LANES];
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = x[lane].mul_add(y[lane], lanes[lane]);
        }
    }
    fold(lanes, |x, y| x + y) + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Largest value; negative infinity of an empty slice.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    rest.iter().fold(fold(lanes, larger), |best, value| larger(best, *value))
}

/// Replaces each x by e^(x - shift) and returns the sum.
#[inline(always)]
pub(crate) fn exp_and_sum(values: &mut [f32], shift: f32) -> f32 {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            lanes[lane] += chunk[lane];
        }
    }
    let mut total = fold(lanes, |a, b| a + b);
    for value in rest {
        *value = exp(*value - shift);
        total += *value;
    }
    total
}

vectorized! {
    /// ln Σ e^x over a row of logits.
    pub(crate) fn log_sum_exp(row: &[f32]) -> f32 {
        let top = max(row);
        if top == f32::NEG_INFINITY {
            return top;
        }
        top + sum_of(row, |x| exp(x - top)).ln()
    }
}

vectorized! {
    fn largest(row: &[f32]) -> f32 {
        max(row)
    }
}

/// Position of the largest value; the first of equals, so that greedy choices are reproducible.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let top = largest(row);
    row.iter().position(|value| *value == top).unwrap_or(0)
}

vectorized! {
    /// Σ x².
    pub(crate) fn sum_of_squares(values: &[f32]) -> f32 {
        sum_of(values, |x| x * x)
    }
}

vectorized! {
    /// y ← y + x.
    pub(crate) fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_agrees_with_the_library_to_two_ulps() {
        for step in -8700..8700 {
            let x = step as f32 * 0.01;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 2.5e-7 * theirs, "{x}: {ours} {theirs}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn log_sum_exp_survives_large_logits() {
        assert!((log_sum_exp(&[1000.0; 20]) - (1000.0 + 20_f32.ln())).abs() < 1e-3);
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
