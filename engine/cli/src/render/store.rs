//! The screens of `gc`, `verify` and `tag`.

use jiff::ZonedDateTime;
use llmflow_contract::Digest;
use llmflow_runtime::store::{Collected, Object, Tag, Verified, Wrong};

use super::{format, style::Paint, table::Table, when};

/// What gc deleted, or would delete, and what that costs.
pub fn collected(collected: &Collected, is_dry: bool, paint: Paint) -> String {
    let Collected { runs_kept, runs_let_go, records, artifacts, blobs, leftovers, answers, .. } = *collected;
    let paid = match collected.answers_kept {
        0 => String::new(),
        kept => format!(" · {}", format::counted(kept, "remembered answer")),
    };
    let (kept, bytes) = (format::counted(runs_kept as u64, "run"), format::bytes(collected.kept_bytes));
    let mut text = format!("kept     {kept}{paid} · {bytes}\n");
    if records + artifacts + blobs + leftovers + answers == 0 {
        let let_go = format::counted(runs_let_go as u64, "older run");
        return text
            + &match runs_let_go {
                0 => "nothing to delete\n".to_owned(),
                _ => format!(
                    "nothing to delete: what {let_go} left is needed, or too young to go (see llmflow gc --help)\n"
                ),
            };
    }
    let parts = [(records, "result"), (artifacts, "artifact"), (blobs, "file"), (leftovers, "leftover")];
    let mut parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format::counted(*count, name)).collect();
    if let Some(last) = parts.last_mut().filter(|_| runs_let_go > 0) {
        last.push_str(&format!(" of {}", format::counted(runs_let_go as u64, "older run")));
    }
    if answers > 0 {
        parts.push(format::counted(answers, "remembered answer"));
    }
    text.push_str(&format!("{} {}", if is_dry { "would go" } else { "deleted " }, parts.join(" · ")));
    text.push_str(&format!("\nfrees    {}", paint.bold(&format::bytes(collected.freed_bytes))));
    if collected.lost_seconds > 0.0 {
        text.push_str(&format!(" · computing it anew would take {}", format::duration(collected.lost_seconds)));
    }
    text.push('\n');
    if is_dry {
        text.push_str("delete it: the same without --dry-run · keep a run: llmflow tag RUN NAME\n");
    }
    text
}

/// Was everything that is wrong set aside? What is missing, or cannot be read, was not.
pub fn is_mended(verified: &Verified) -> bool {
    verified.damage.len() as u64 == verified.repaired
}

/// What was read, of the files a share, what is wrong, and what to do.
pub fn verified(verified: &Verified, share: f64, width: usize, paint: Paint) -> String {
    let mut parts = vec![
        format::counted(verified.records, "result"),
        format::counted(verified.artifacts, "artifact"),
        format!("{} ({})", format::counted(verified.blobs, "file"), format::bytes(verified.bytes)),
    ];
    let others = [(verified.runs, "run"), (verified.answers, "answer")];
    parts.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, noun)| format::counted(*count, noun)));
    let read = format!("read {}\n", parts.join(", "));
    if verified.damage.is_empty() {
        return match (share < 1.0, verified.blobs) {
            (true, 0) => {
                read + "no file was drawn: a larger --sample reads some; records and manifests are as they were written\n"
            }
            (true, _) => read + &paint.green("what was read is as it was written") + "\n",
            (false, _) => read + &paint.green("all of it is as it was written") + "\n",
        };
    }
    let mut table = Table::new(["what", "name", "is", "of"]);
    for damage in &verified.damage {
        let what = match damage.object {
            Object::Record => "result",
            Object::Artifact => "artifact",
            Object::Blob => "file",
            Object::Run => "run",
            Object::Tag => "tag",
            Object::Frozen => "frozen",
            Object::Answer => "answer",
        };
        let name = match damage.name.parse::<Digest>() {
            Ok(digest) => digest.short(),
            Err(_) => format::clean(&damage.name),
        };
        let is = match damage.wrong {
            Wrong::Missing => "missing",
            Wrong::Damaged => "damaged",
            Wrong::Unreadable => "unreadable",
        };
        let mut of = format::clean(&damage.of.join(" "));
        if let Some(because) = &damage.because {
            of.push_str(&format!(" ({})", format::clean(because)));
        }
        table.row([what.to_owned(), name, paint.red(is), of]);
    }
    let mut text = read + &table.lines(width).join("\n") + "\n";
    let count = |wrong| verified.damage.iter().filter(|damage| damage.wrong == wrong).count();
    if count(Wrong::Unreadable) > 0 {
        text.push_str(
            "what is unreadable may be whole: look at the disk, its permissions and the limit of open files\n",
        );
    }
    if verified.damage.iter().any(|damage| damage.object == Object::Tag) {
        text.push_str("a tag that is set aside has to be given again: llmflow tag RUN NAME\n");
    }
    text.push_str(match (count(Wrong::Damaged), verified.repaired) {
        (0, _) => "",
        (_, 0) => "llmflow verify --repair sets aside what is damaged\n",
        _ => "what was damaged is set aside\n",
    });
    if count(Wrong::Damaged) + count(Wrong::Missing) > 0 {
        text.push_str(
            "a run of these pipelines makes anew what is missing or set aside, if what it is made from is there\n",
        );
    }
    text
}

/// The names of runs.
pub fn tags(tags: &[Tag], now: &ZonedDateTime, width: usize) -> String {
    if tags.is_empty() {
        return "no run has a name: llmflow tag RUN NAME\n".to_owned();
    }
    let mut table = Table::new(["name", "run", "since"]);
    for tag in tags {
        table.row([format::clean(&tag.name), format::clean(&tag.run.0), when::ago(tag.at_ms, now)]);
    }
    table.lines(width).join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::store::Damage;

    use super::*;

    #[test]
    fn gc_prices_what_it_would_delete() {
        let some = Collected {
            runs_kept: 20,
            runs_let_go: 3,
            records: 14,
            artifacts: 30,
            blobs: 1,
            freed_bytes: 3 << 30,
            answers: 7,
            answers_kept: 1204,
            lost_seconds: 832.0,
            kept_bytes: 9 << 30,
            ..Collected::default()
        };
        insta::assert_snapshot!(collected(&some, true, Paint(false)), @r"
        kept     20 runs · 1,204 remembered answers · 9.0 GiB
        would go 14 results · 30 artifacts · 1 file of 3 older runs · 7 remembered answers
        frees    3.0 GiB · computing it anew would take 13m52s
        delete it: the same without --dry-run · keep a run: llmflow tag RUN NAME
        ");
        let nothing = Collected { runs_kept: 1, ..Collected::default() };
        assert_eq!(collected(&nothing, false, Paint(false)), "kept     1 run · 0 B\nnothing to delete\n");
    }

    #[test]
    fn verify_lists_all_damage_with_whose_it_is() {
        let digest = Digest::of(b"x");
        let damage = |object, wrong, of: &str| {
            let (name, path) = (digest.hex(), String::new());
            Damage { object, name, path, wrong, because: None, of: vec![of.into()] }
        };
        let mut report = Verified {
            records: 18,
            artifacts: 40,
            blobs: 61,
            bytes: 212 << 20,
            runs: 5,
            answers: 0,
            damage: vec![
                damage(Object::Blob, Wrong::Damaged, "quiet-otter/sft"),
                damage(Object::Artifact, Wrong::Missing, "quiet-otter/rows"),
            ],
            repaired: 0,
        };
        let text = verified(&report, 1.0, 100, Paint(false)).replace(&digest.short(), "a1c9e377");
        insta::assert_snapshot!(text, @r"
        read 18 results, 40 artifacts, 61 files (212 MiB), 5 runs
         what      name      is       of
         file      a1c9e377  damaged  quiet-otter/sft
         artifact  a1c9e377  missing  quiet-otter/rows
        llmflow verify --repair sets aside what is damaged
        a run of these pipelines makes anew what is missing or set aside, if what it is made from is there
        ");
        report.repaired = 1;
        let text = |report: &Verified, share| verified(report, share, 100, Paint(false));
        assert!(text(&report, 1.0).contains("\nwhat was damaged is set aside\n"));
        assert!(!is_mended(&report), "something is missing still");
        let missing = report.damage.pop().unwrap();
        assert!(is_mended(&report));
        (report.damage, report.repaired) = (vec![missing], 0);
        assert!(!is_mended(&report) && !text(&report, 1.0).contains("set aside\n"), "nothing was");
        report.damage.clear();
        assert!(text(&report, 1.0).ends_with("all of it is as it was written\n"));
        assert!(text(&report, 0.05).ends_with("what was read is as it was written\n"));
        report.blobs = 0;
        assert!(text(&report, 0.05).contains("no file was drawn"));
    }
}
