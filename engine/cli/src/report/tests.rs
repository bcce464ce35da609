//! The page as a whole: what it must hold, and what no text may do to it.

use std::path::Path;

use pulldown_cmark::{Event, Options, Parser, Tag};

use super::{
    data::ReportData,
    fixture::{HOSTILE, assistant, failed},
    html, markdown, write,
};
use crate::render::asked::Asked;

/// The text of one section of the Markdown.
fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let start = page.find(&format!("## {title}\n")).unwrap_or_else(|| panic!("no section `{title}` in {page}"));
    let end = page[start + 3..].find("\n## ").map_or(page.len(), |end| start + 3 + end);
    page[start..end].trim_end()
}

#[test]
fn the_verdict_comes_first_and_in_words() {
    insta::assert_snapshot!(section(&markdown(&assistant()), "Verdict"));
    let page = html(&assistant());
    let lead = page.find("class=\"lead\">The tuned model answers 41 of 60").unwrap();
    assert!(lead < page.find("id=\"answers\"").unwrap() && lead < page.find("id=\"data\"").unwrap());
}

#[test]
fn a_failure_says_what_and_what_to_do_before_anything_else() {
    let page = markdown(&failed());
    insta::assert_snapshot!(section(&page, "What went wrong"));
    assert!(!page.contains("## Verdict"));
    let page = html(&failed());
    assert!(page.find("id=\"trouble\"").unwrap() < page.find("id=\"data\"").unwrap());
}

#[test]
fn the_data_says_what_was_left_out_and_why() {
    insta::assert_snapshot!(section(&markdown(&assistant()), "Data"));
}

#[test]
fn a_model_names_the_data_it_learned_from() {
    insta::assert_snapshot!(section(&markdown(&assistant()), "Which data made which model"));
}

#[test]
fn it_says_how_to_make_it_again() {
    insta::assert_snapshot!(section(&markdown(&assistant()), "Make it again"));
}

#[test]
fn making_it_again_repeats_all_that_was_asked() {
    let mut data = assistant();
    let environment = [("TAG".to_owned(), Some("a".to_owned()))].into();
    let params_file = Some("more params.yaml".into());
    let only = vec!["sft".to_owned()];
    data.source.asked = Asked { environment, params_file, only, limit: Some(4), ..data.source.asked };
    let command =
        "TAG=a llmflow run assistant.yaml --set rank=16 --params-file 'more params.yaml' --only sft --limit 4";
    let says = |data: &ReportData, command: &str| {
        section(&markdown(data), "Make it again").contains(&format!("```text\n{command}\n```"))
    };
    assert!(says(&data, command));
    data.source.path = "/srv/a/assistant.yaml".into();
    data.source.asked.params_file = Some("/srv/a/b/more.yaml".into());
    data.source.asked.environment = [("API_KEY".to_owned(), None)].into();
    let command =
        "API_KEY=\"$API_KEY\" llmflow run assistant.yaml --set rank=16 --params-file b/more.yaml --only sft --limit 4";
    assert!(says(&data, command));
    data.source.asked.params_file = Some("/srv/more.yaml".into());
    assert!(says(&data, &command.replace("b/more.yaml", "/srv/more.yaml")), "not below the pipeline");
}

#[test]
fn what_only_waits_for_a_stage_does_not_use_it() {
    let page = markdown(&assistant());
    let card =
        |name: &str| page.split(&format!("### ✓ {name}\n")).nth(1).unwrap().split("###").next().unwrap().to_owned();
    assert!(!card("verdict").contains("used by"), "`gguf` is after it: {}", card("verdict"));
    assert!(card("assistant").contains("used by: eval\\_tuned, gguf"), "{}", card("assistant"));
}

#[test]
fn a_stage_shows_where_it_stands_in_the_whole() {
    let page = markdown(&assistant());
    let stages = section(&page, "Stages");
    let sft = &stages[stages.find("### ✓ sft").unwrap()..stages.find("### ✓ merged").unwrap()];
    insta::assert_snapshot!(sft.trim_end());
}

#[test]
fn a_run_with_nothing_to_tell_is_still_a_page() {
    let empty = ReportData { stages: Vec::new(), published: Vec::new(), ..assistant() };
    assert!(html(&empty).contains("Make it again"));
    for gone in ["## Data", "## Stages", "## GGUF", "## Verdict", "## Which data"] {
        assert!(!markdown(&empty).contains(gone));
    }
}

#[test]
fn the_page_needs_no_network_and_runs_nothing() {
    let page = html(&assistant());
    for outside in ["http://", "https://", "<script", "<link", "<img", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src &#39;none&#39;"));
}

/// Every element that opens closes in its order; an attribute holds no raw quote or bracket.
fn assert_well_formed(page: &str) {
    let (mut rest, mut open) = (page, Vec::new());
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').unwrap();
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('!') || tag.ends_with('/') => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "before {}", &rest[..rest.len().min(80)]),
            _ => open.push(name),
        }
        assert!(tag.matches('"').count() % 2 == 0, "{tag}");
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style>").unwrap()..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// Puts hostile text wherever text comes from outside.
fn poisoned() -> ReportData {
    let mut data = failed();
    data.pipeline = HOSTILE.into();
    data.changed = HOSTILE.into();
    data.source.text = HOSTILE.into();
    data.source.asked.set = vec![HOSTILE.into()];
    for stage in &mut data.stages {
        stage.summary = HOSTILE.into();
        stage.settings = vec![(HOSTILE.into(), HOSTILE.into())];
        let Some(report) = &mut stage.report else { continue };
        report.metrics.insert(HOSTILE.into(), 1.0);
        for sample in &mut report.samples {
            sample.title = HOSTILE.into();
            sample.texts.iter_mut().for_each(|(name, text)| (*name, *text) = (HOSTILE.into(), HOSTILE.into()));
        }
        for table in &mut report.tables {
            table.rows.iter_mut().flatten().for_each(|cell| *cell = HOSTILE.into());
        }
        report.funnel.iter_mut().for_each(|funnel| {
            funnel.dropped.insert(HOSTILE.into(), 1);
        });
    }
    data
}

#[test]
fn no_text_becomes_markup_in_html() {
    for data in [poisoned(), assistant()] {
        let page = html(&data);
        assert_well_formed(&page);
        assert!(!page.contains("<script") && !page.contains("<img"));
    }
    assert!(html(&poisoned()).contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
}

#[test]
fn no_text_becomes_markup_in_markdown() {
    for data in [poisoned(), assistant()] {
        let page = markdown(&data);
        let known =
            ["What went wrong", "Verdict", "Answers, side by side", "What changed most", "Data", "Training", "GGUF"];
        let known =
            [known.as_slice(), &["Licences", "Stages", "Which data made which model", "Make it again"]].concat();
        let mut heading = None;
        for event in Parser::new_ext(&page, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
            match event {
                Event::Html(html) if html.trim() == markdown::MARK => {} // its own last line
                Event::Html(html) | Event::InlineHtml(html) => panic!("`{html}` became markup"),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    panic!("a link to {dest_url}")
                }
                Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
                Event::Text(text) => heading.iter_mut().for_each(|(_, title)| title.push_str(&text)),
                Event::End(pulldown_cmark::TagEnd::Heading(pulldown_cmark::HeadingLevel::H2)) => {
                    let (_, title) = heading.take().unwrap();
                    assert!(known.contains(&title.as_str()), "`{title}` became a heading");
                }
                Event::End(pulldown_cmark::TagEnd::Heading(_)) => heading = None,
                _ => {}
            }
        }
    }
}

#[test]
fn a_report_is_written_whole_under_its_name_and_by_its_ending() {
    let folder = tempfile::tempdir().unwrap();
    let (page, text) = (folder.path().join("out/report.html"), folder.path().join("out/report.md"));
    write(&assistant(), &page).unwrap();
    write(&assistant(), &page).unwrap();
    write(&assistant(), &text).unwrap();
    assert!(std::fs::read_to_string(&page).unwrap().starts_with("<!doctype html>"));
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("# assistant"));
    assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 2);
    assert_eq!(write(&assistant(), &page.join("x.html")).unwrap_err().code, "file/io");
}

/// `LLMFLOW_LOOK=FOLDER` writes the pages there for a person to look at.
#[test]
fn the_pages_can_be_looked_at() {
    let Some(folder) = std::env::var_os("LLMFLOW_LOOK") else { return };
    for (name, data) in [("done", assistant()), ("failed", failed()), ("poisoned", poisoned())] {
        write(&data, &Path::new(&folder).join(format!("{name}.html"))).unwrap();
        write(&data, &Path::new(&folder).join(format!("{name}.md"))).unwrap();
    }
}
