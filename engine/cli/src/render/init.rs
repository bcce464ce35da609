//! What `init` has written, and what to type next.

use std::path::Path;

use super::typed::quoted;
use crate::template::Template;

/// What was written where.
pub struct Written<'a> {
    pub template: &'a Template,
    pub folder: &'a Path,
    pub schema: &'a str,
    pub others: &'a [Template],
}

/// The end of `init`.
pub fn written(written: &Written) -> String {
    let (template, file) = (written.template, written.template.file());
    let count = template.data.len();
    let rows = [
        (file.as_str(), template.summary().to_owned()),
        ("data/", format!("{count} files that it reads")),
        (written.schema, "lets your editor complete and check the file".to_owned()),
    ];
    let mut text = format!("wrote into {}\n{}\n", written.folder.display(), columns(&rows));
    let others: Vec<&Template> = written.others.iter().filter(|other| other.name != template.name).collect();
    for other in others {
        text.push_str(&format!("\nor: llmflow init --template {}\n  {}\n", other.name, other.summary()));
    }
    let here = written.folder.join(&file);
    let here = quoted(&here.strip_prefix(".").unwrap_or(&here).display().to_string());
    let next = [
        (format!("llmflow plan {here}"), "says what would run, and why".to_owned()),
        (format!("llmflow run {here}"), "runs it".to_owned()),
    ];
    text.push_str(&format!("\nnext\n{}\n", columns(&next)));
    text
}

/// Every template with what it is for.
pub fn list(templates: &[Template]) -> String {
    let rows: Vec<(&str, String)> =
        templates.iter().map(|template| (template.name, template.summary().to_owned())).collect();
    format!("the templates are\n{}", columns(&rows))
}

/// Two columns, indented.
fn columns(rows: &[(impl AsRef<str>, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, what)| format!("  {:width$}  {what}", name.as_ref())).collect();
    lines.join("\n")
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
            written(&Written { template: &TEMPLATES[0], folder, schema: "llmflow.schema.json", others: &TEMPLATES })
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
