//! What `init` has written, and what to type next.

use std::path::Path;

use super::{
    table::{Table, wrap},
    typed::quoted,
};
use crate::template::Template;

/// What was written where.
pub struct Written<'a> {
    pub template: &'a Template,
    pub folder: &'a Path,
    pub schema: &'a str,
    pub others: &'a [Template],
}

/// The end of `init`.
pub fn written(written: &Written, width: usize) -> String {
    let (template, file) = (written.template, written.template.file());
    let count = template.data.len();
    let rows = [
        (file.as_str(), template.summary().to_owned()),
        ("data/", format!("{count} files that it reads")),
        (written.schema, "lets your editor complete and check the file".to_owned()),
    ];
    let mut text = format!("wrote into {}\n{}\n", written.folder.display(), columns(&rows, width));
    let others: Vec<&Template> = written.others.iter().filter(|other| other.name != template.name).collect();
    for other in others {
        let summary = wrap(other.summary(), width.saturating_sub(2)).join("\n  ");
        text.push_str(&format!("\nor: llmflow init --template {}\n  {summary}\n", other.name));
    }
    let here = written.folder.join(&file);
    let here = quoted(&here.strip_prefix(".").unwrap_or(&here).display().to_string());
    let next = [
        (format!("llmflow plan {here}"), "says what would run, and why".to_owned()),
        (format!("llmflow run {here}"), "runs it".to_owned()),
    ];
    text.push_str(&format!("\nnext\n{}\n", columns(&next, width)));
    text
}

/// Every template with what it is for.
pub fn list(templates: &[Template], width: usize) -> String {
    let rows: Vec<(&str, String)> =
        templates.iter().map(|template| (template.name, template.summary().to_owned())).collect();
    format!("the templates are\n{}", columns(&rows, width))
}

/// Two columns, indented; the second goes on below itself.
fn columns(rows: &[(impl AsRef<str>, String)], width: usize) -> String {
    let mut table = Table::new(["", ""]).wrap(1);
    rows.iter().for_each(|(name, what)| table.row([format!(" {}", name.as_ref()), what.clone()]));
    table.lines(width).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATES: [Template; 2] = [
        Template { name: "small", pipeline: "# All of it, quickly.\n", data: &[("data/a", b""), ("data/b", b"")] },
        Template { name: "large", pipeline: "# All of it, well.\n", data: &[] },
    ];

    #[test]
    fn it_says_what_lies_where_and_what_to_type() {
        let shown = |folder: &str| {
            let folder = Path::new(folder);
            written(&Written { template: &TEMPLATES[0], folder, schema: "llmflow.schema.json", others: &TEMPLATES }, 80)
        };
        insta::assert_snapshot!(shown("."), @r"
        wrote into .
          small.yaml           All of it, quickly.
          data/                2 files that it reads
          llmflow.schema.json  lets your editor complete and check the file

        or: llmflow init --template large
          All of it, well.

        next
          llmflow plan small.yaml  says what would run, and why
          llmflow run small.yaml   runs it
        ");
        assert!(shown("new").contains("llmflow run new/small.yaml"));
    }
}
