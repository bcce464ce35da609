//! Sizes and durations as people write them.

use std::time::Duration;

/// 2⁶⁰: a million times a large machine's memory.
const MAX_BYTES: f64 = (1_u64 << 60) as f64;

/// Reads `20G`, `20GB`, `20GiB`, `512M`, `1.5T`. All are powers of 1,024, as memory is sold.
///
/// # Errors
/// What a size looks like.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write `20G`, `512M` or `1.5GiB`");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let stem = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match stem {
        "" if unit == "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let bytes = number * (1_u64 << shift) as f64;
    match bytes {
        bytes if bytes >= MAX_BYTES => Err(format!("`{}` is more than any machine has; write `20G` or `1.5T`", text)),
        bytes if bytes >= 1.0 => Ok(bytes as u64),
        _ => Err(wrong()),
    }
}

/// Reads `2h`, `90s`, `1h30m`.
///
/// # Errors
/// What a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write `90s`, `30m` or `1h30m`");
    let duration = humantime::parse_duration(text.trim()).map_err(|_| wrong())?;
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings_of_a_size_are_one() {
        for text in ["20G", "20GB", "20GiB", "20 gb"] {
            assert_eq!(size_bytes(text), Ok(20 << 30), "{text}");
        }
        assert_eq!(size_bytes("1.5k"), Ok(1536));
        for text in ["", "G", "20", "20X", "-1G", "1e9G", "0G", "1..5G", "99999999P", "20GG", "20Gibib"] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["2", "", "h", "0s", "-1s", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
