//! Stages that came to another end.

use super::Pair;
use crate::render::diff::End;

/// The stages that ended otherwise, in the order of the file. A result that was there is as good as one that was made.
pub(super) fn ends(pairs: &[Pair<'_>]) -> Vec<End> {
    pairs
        .iter()
        .filter_map(|pair| {
            let (before, now) = (end(&pair.before.status), end(&pair.now.status));
            (before != now).then(|| End {
                stage: pair.now.stage.clone(),
                before: before.to_owned(),
                now: now.to_owned(),
            })
        })
        .collect()
}

fn end(status: &str) -> &str {
    match status {
        "ran" | "cached" => "done",
        other => other,
    }
}
