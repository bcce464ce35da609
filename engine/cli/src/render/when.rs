//! Moments as people say them.

use jiff::{Timestamp, ToSpan, ZonedDateTime, tz::TimeZone};

/// `4 min ago`, `yesterday 18:02`, `3 Nov 18:02`; in the time zone of `now`.
pub fn ago(at_ms: u64, now: &ZonedDateTime) -> String {
    let Some(at) = zoned(at_ms, now.time_zone()) else { return "–".to_owned() };
    let seconds = now.timestamp().as_second() - at.timestamp().as_second();
    let clock = at.strftime("%H:%M").to_string();
    let yesterday = now.checked_sub(1.day()).map(|day| day.date());
    match seconds {
        ..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        _ if at.date() == now.date() => format!("today {clock}"),
        _ if yesterday.is_ok_and(|day| day == at.date()) => format!("yesterday {clock}"),
        _ if at.year() == now.year() => at.strftime("%-d %b %H:%M").to_string(),
        _ => at.strftime("%-d %b %Y").to_string(),
    }
}

/// This moment, in the machine's time zone.
pub fn now() -> ZonedDateTime {
    ZonedDateTime::now()
}

fn zoned(at_ms: u64, zone: &TimeZone) -> Option<ZonedDateTime> {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(at.to_zoned_datetime(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_by_its_distance_then_by_its_date() {
        let now = zoned(1_795_500_000_000, &TimeZone::UTC).unwrap();
        let told = |seconds: u64| ago(1_795_500_000_000 - seconds * 1000, &now);
        assert_eq!(told(10), "just now");
        assert_eq!(told(240), "4 min ago");
        assert_eq!(told(4 * 3600), "today 02:00");
        assert_eq!(told(10 * 3600), "yesterday 20:00");
        assert_eq!(told(5 * 86_400), "19 Nov 06:00");
        assert_eq!(told(400 * 86_400), "20 Oct 2025");
        assert_eq!(ago(u64::MAX, &now), "–");
    }
}
