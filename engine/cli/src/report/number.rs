//! Figures of a report: a few digits, halves away from zero, a true minus sign.

use crate::render::format;

/// A value in about three digits: `2.31`, `−142`, `0.00524`, `1.9e-5`.
///
/// Halves go away from zero, as operators round in their sentences: 0.625 is 0.63 in both.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if (0.01..100.0).contains(&size) => signed(format::number((value * 100.0).round() / 100.0)),
        size if (1e-4..0.01).contains(&size) => in_three_digits(value),
        _ => signed(format::number(value)),
    }
}

/// A value in three digits, however small: `0.0912`, `8.40`, `142`.
pub fn in_three_digits(value: f64) -> String {
    match value.abs().log10().floor() {
        _ if !value.is_finite() || value == 0.0 => signed(format::number(value)),
        power if power < -4.0 => signed(format!("{value:.1e}")),
        power => signed(format!("{value:.*}", (2.0 - power).clamp(0.0, 6.0) as usize)),
    }
}

/// Only the sign of the number itself: the exponent keeps its hyphen, so that it can be pasted.
fn signed(text: String) -> String {
    text.strip_prefix('-').map(|rest| format!("−{rest}")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero_and_small_values_keep_their_digits() {
        let shown = [0.625, -0.625, 0.005_24, 0.0, 142.4, -1.94e-5, 99.996].map(number);
        assert_eq!(shown, ["0.63", "−0.63", "0.00524", "0", "142", "−1.9e-5", "100"]);
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn three_digits_stay_three() {
        let shown = [0.0912, 8.4, 142.0, -1.2e-5, 0.0, 12_345.0].map(in_three_digits);
        assert_eq!(shown, ["0.0912", "8.40", "142", "−1.2e-5", "0", "12345"]);
    }
}
