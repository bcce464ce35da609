//! The screen of `doctor`: a row a check, and below it what to do.

use std::path::Path;

use llmflow_runtime::doctor::{Finding, Health, Verdict};

use super::{
    format,
    style::Paint,
    table::{Table, wrap},
};

/// Where a fix starts: below what was found.
const FIX: &str = "                      ";

/// All rows, and one sentence on the whole.
pub fn doctor(health: &Health, home: Option<&Path>, width: usize, paint: Paint) -> String {
    let home_title = match home {
        Some(root) => format!("home {}", format::clean(&root.display().to_string())),
        None => "home: none yet".to_owned(),
    };
    let mut lines = vec![paint.bold("machine")];
    lines.extend(rows(&health.machine, width, paint));
    lines.extend([String::new(), paint.bold(&home_title)]);
    lines.extend(rows(&health.home, width, paint));
    let broken = health.machine.iter().chain(&health.home).filter(|finding| finding.verdict == Verdict::Broken).count();
    lines.push(String::new());
    lines.push(match broken {
        0 => paint.green("all is well"),
        1 => paint.red("1 thing is broken"),
        _ => paint.red(&format!("{broken} things are broken")),
    });
    lines.join("\n") + "\n"
}

fn rows(findings: &[Finding], width: usize, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        // A table of one row each, so that a fix stands below its own.
        let mut table = Table::new(["broken", "file system", "found"]).wrap(2);
        let name = finding.verdict.name();
        let verdict = match finding.verdict {
            Verdict::Fine => paint.green(name),
            Verdict::Note => paint.yellow(name),
            Verdict::Broken => paint.red(name),
        };
        table.row([verdict, finding.subject.to_owned(), format::clean(&finding.found)]);
        lines.extend(table.lines(width).into_iter().skip(1));
        if let Some(fix) = &finding.fix {
            let room = width.saturating_sub(FIX.len() + 2);
            let pieces = wrap(&format::clean(fix), room);
            lines.extend(pieces.iter().enumerate().map(|(number, piece)| {
                let arrow = if number == 0 { "→ " } else { "  " };
                format!("{FIX}{arrow}{}", paint.cyan(piece))
            }));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(subject: &'static str, verdict: Verdict, found: &str, fix: Option<&str>) -> Finding {
        Finding { subject, verdict, found: found.into(), fix: fix.map(str::to_owned) }
    }

    #[test]
    fn a_fix_stands_below_what_was_found() {
        let health = Health {
            machine: vec![
                finding("gpu", Verdict::Fine, "NVIDIA H100 · driver 550.54.15", None),
                finding("cuda", Verdict::Note, "this build has no CUDA kernels", Some("see README: GPU")),
            ],
            home: vec![finding(
                "file system",
                Verdict::Broken,
                "nfs is shared between machines: the history's write-ahead log is unsafe there",
                Some("keep the home on a local disk: `--home FOLDER` or LLMFLOW_HOME"),
            )],
        };
        let text = doctor(&health, Some(Path::new("/srv/team/.llmflow")), 80, Paint(false));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "machine",
                " ok      gpu          NVIDIA H100 · driver 550.54.15",
                " note    cuda         this build has no CUDA kernels",
                "                      → see README: GPU",
                "",
                "home /srv/team/.llmflow",
                " broken  file system  nfs is shared between machines: the history's write-ahead",
                "                      log is unsafe there",
                "                      → keep the home on a local disk: `--home FOLDER` or",
                "                        LLMFLOW_HOME",
                "",
                "1 thing is broken",
            ]
        );
    }

    #[test]
    fn where_nothing_ran_yet_the_machine_alone_is_looked_at() {
        let health = Health { machine: vec![finding("ports", Verdict::Fine, "free", None)], home: Vec::new() };
        let text = doctor(&health, None, 80, Paint(false));
        assert!(text.contains("home: none yet") && text.ends_with("all is well\n"), "{text}");
    }
}
