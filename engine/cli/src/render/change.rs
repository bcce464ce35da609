//! One part of a key that changed, as people read it.

use llmflow_runtime::plan::Change;

use super::format;

/// Longest value that is shown whole, in characters.
const LONG: usize = 32;

/// `with.lora_r 16 → 32 (params.rank, assistant.yaml:10, set by --set)`.
pub fn change(change: &Change) -> String {
    format!("{} {}{}", format::clean(&change.part), values(change), told_origin(change.origin.as_deref()))
}

/// ` (params.rank, assistant.yaml:10, set by --set)`, if it is known.
pub fn told_origin(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" ({})", format::clean(origin))).unwrap_or_default()
}

/// Is its value a digest, of which only that it changed says anything?
pub fn is_content(part: &str) -> bool {
    ["in.", "source."].iter().any(|start| part.starts_with(start))
}

/// `16 → 32`; of a part that came or went, that it did. A content of which only the digest changed is `changed`.
pub fn values(change: &Change) -> String {
    let is_content = is_content(&change.part);
    match (&change.before, &change.now) {
        (Some(_), Some(_)) if is_content => "changed".to_owned(),
        (Some(before), Some(now)) => apart(before, now).join(" → "),
        (None, Some(_)) if is_content => "is new".to_owned(),
        (None, Some(now)) => format!("default → {}", value(now)),
        (Some(_), None) if is_content => "is gone".to_owned(),
        (Some(before), None) => format!("{} → default", value(before)),
        (None, None) => String::new(),
    }
}

/// A value without what JSON adds to it, cut where it is long.
pub fn value(text: &str) -> String {
    format::fit(&plain(text), LONG)
}

fn plain(text: &str) -> String {
    serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())
}

/// Two values that differ, without what JSON adds to them, cut where they are long so that what differs is seen.
pub fn apart(before: &str, now: &str) -> [String; 2] {
    let (before, now) = (plain(before), plain(now));
    let same = before.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let is_seen = same + LONG / 4 < LONG || before.chars().count().max(now.chars().count()) <= LONG;
    let from = if is_seen { 0 } else { same.saturating_sub(LONG / 4) };
    [&before, &now].map(|text| {
        let rest: String = text.chars().skip(from).collect();
        format::fit(&if from > 0 { format!("…{rest}") } else { rest }, LONG)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(part: &str, before: Option<&str>, now: Option<&str>, origin: Option<&str>) -> String {
        let own = |text: Option<&str>| text.map(str::to_owned);
        change(&Change { part: part.into(), before: own(before), now: own(now), origin: own(origin) })
    }

    #[test]
    fn of_long_values_what_differs_is_shown() {
        let command = |rate: &str| {
            format!("[\"sh\",\"-c\",\"cp $0 $1\",\"{{in.a}}\",\"{{out.o}}\",\"--learning-rate\",\"{rate}\"]")
        };
        let shown = changed("with.command", Some(&command("0.1")), Some(&command("0.25")), None);
        assert_eq!(shown, "with.command …ate\",\"0.1\"] → …ate\",\"0.25\"]");
    }

    #[test]
    fn a_reason_names_the_param_its_values_and_where_the_new_one_comes_from() {
        let origin = "params.rank, assistant.yaml:10, set by --set";
        assert_eq!(
            changed("with.lora_r", Some("16"), Some("32"), Some(origin)),
            "with.lora_r 16 → 32 (params.rank, assistant.yaml:10, set by --set)"
        );
        assert_eq!(changed("with.method", None, Some("\"dora\""), None), "with.method default → dora");
        assert_eq!(changed("in.data", Some("aa"), Some("bb"), None), "in.data changed");
        assert_eq!(
            changed("operator", Some("data.load v1"), Some("data.load v2"), None),
            "operator data.load v1 → data.load v2"
        );
    }
}
