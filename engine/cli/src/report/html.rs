//! The story as one HTML file: no network, no script, light and dark.
//!
//! Must not know: what a block means. Text goes through [`Markup`], which escapes it.

use llmflow_contract::{Chart, Funnel, Table};

use super::{
    chart::{bars, funnel, intervals, line::LineChart},
    markup::Markup,
    story::{Block, Card, Figure, Reading, Section, Story},
};

/// Rows of a table that are shown.
const MOST_ROWS: usize = 200;
/// Nothing is fetched and nothing runs, whatever a text may hold.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The whole page.
/// Stands in the head.
pub const MARK: &str = "content=\"llmflow\"";

pub fn page(story: &Story) -> String {
    let mut html = Markup::new();
    html.raw("<!doctype html>\n");
    html.element("html", &[("lang", &"en")], |html| {
        html.element("head", &[], |head| {
            head.leaf("meta", &[("charset", &"utf-8")]);
            head.leaf("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
            head.leaf("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
            head.leaf("meta", &[("name", &"generator"), ("content", &"llmflow")]);
            head.line("title", &[], &format!("{} · {}", story.title, story.run));
            head.element("style", &[], |style| style.raw(include_str!("page.css")));
        });
        html.element("body", &[], |body| {
            header(body, story);
            body.element("main", &[], |main| story.sections.iter().for_each(|part| section(main, part)));
            body.line("footer", &[], &format!("{} · {} · made by LLMflow", story.title, story.run));
        });
    });
    html.raw("\n");
    html.finish()
}

fn header(body: &mut Markup, story: &Story) {
    body.element("header", &[], |header| {
        header.element("h1", &[], |h1| {
            h1.text(&story.title);
            h1.line("small", &[], &story.run);
        });
        header.element("p", &[], |p| {
            p.element("span", &[], |span| {
                span.line("span", &[("class", &format!("badge {}", story.status))], story.status);
            });
            story.facts.iter().for_each(|fact| p.line("span", &[], fact));
        });
    });
    body.element("nav", &[], |nav| {
        for section in &story.sections {
            nav.line("a", &[("href", &format!("#{}", section.id))], section.title);
        }
    });
}

fn section(main: &mut Markup, section: &Section) {
    main.element("section", &[("id", &section.id)], |inside| {
        inside.line("h2", &[], section.title);
        blocks(inside, &section.blocks);
    });
}

fn blocks(into: &mut Markup, blocks: &[Block]) {
    blocks.iter().for_each(|one| block(into, one));
}

fn block(into: &mut Markup, block: &Block) {
    match block {
        Block::Lead(text) => into.line("p", &[("class", &"lead")], text),
        Block::Text(text) => into.line("p", &[], text),
        Block::Heading(text) => into.line("h3", &[], text),
        Block::Alert { title, lines } => into.element("div", &[("class", &"alert")], |alert| {
            alert.line("strong", &[], title);
            lines.iter().for_each(|line| alert.line("p", &[], line));
        }),
        Block::Figures(figures) => big_figures(into, figures),
        Block::Facts(facts) => pairs(into, "facts", facts),
        Block::Table(data) => table(into, data),
        Block::Readings(readings) => readings.iter().for_each(|one| reading(into, one)),
        Block::Lines(charts) => into.element("div", &[("class", &"lines")], |grid| {
            charts.iter().for_each(|chart| lines(grid, chart));
        }),
        Block::Charts(charts) => into.element("div", &[("class", &"lines")], |grid| {
            charts.iter().for_each(|one| chart(grid, one));
        }),
        Block::Funnel(stages) => rows_kept(into, stages),
        Block::Graph(graph) => into.element("div", &[("class", &"graph")], |inside| graph.draw(inside)),
        Block::Code { text, is_numbered } => code(into, text, *is_numbered),
        Block::Fold { title, blocks: inner } => into.element("details", &[("class", &"fold")], |fold| {
            fold.line("summary", &[], title);
            blocks(fold, inner);
        }),
        Block::Stage(stage) => card(into, stage),
    }
}

fn pairs(into: &mut Markup, class: &'static str, pairs: &[(String, String)]) {
    into.element("dl", &[("class", &class)], |list| {
        for (name, value) in pairs {
            list.line("dt", &[], name);
            list.line("dd", &[], value);
        }
    });
}

fn big_figures(into: &mut Markup, figures: &[Figure]) {
    into.element("dl", &[("class", &"figures")], |list| {
        for figure in figures {
            list.element("div", &[], |tile| {
                tile.line("dt", &[], &figure.label);
                tile.line("dd", &[], &figure.value);
                if !figure.note.is_empty() {
                    tile.line("dd", &[], &figure.note);
                }
            });
        }
    });
}

fn table(into: &mut Markup, data: &Table) {
    let is_numeric: Vec<bool> = (0..data.columns.len()).map(|column| is_numeric(data, column)).collect();
    let class = |column: usize| if is_numeric.get(column) == Some(&true) { "number" } else { "words" };
    into.element("div", &[("class", &"scroll")], |into| {
        into.element("table", &[], |table| {
            if !data.title.is_empty() {
                table.line("caption", &[], &data.title);
            }
            table.element("thead", &[], |head| {
                head.element("tr", &[], |row| {
                    for (column, name) in data.columns.iter().enumerate() {
                        row.line("th", &[("class", &class(column)), ("scope", &"col")], name);
                    }
                });
            });
            table.element("tbody", &[], |body| {
                for cells in data.rows.iter().take(MOST_ROWS) {
                    body.element("tr", &[], |row| {
                        for (column, cell) in cells.iter().enumerate() {
                            row.line("td", &[("class", &class(column))], cell);
                        }
                    });
                }
            });
        });
    });
    if data.rows.len() > MOST_ROWS {
        into.line("p", &[("class", &"more")], &format!("… and {} more rows", data.rows.len() - MOST_ROWS));
    }
}

/// Does a column hold figures and nothing else?
fn is_numeric(data: &Table, column: usize) -> bool {
    let is_figure = |cell: &str| {
        let rest = cell.trim_start_matches(['+', '-', '−']);
        rest.starts_with(|first: char| first.is_ascii_digit())
            && rest.chars().all(|other| other.is_ascii_digit() || ",.e-−+ %".contains(other))
    };
    let mut cells = data.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
    cells.peek().is_some() && cells.all(|cell| is_figure(cell))
}

fn reading(into: &mut Markup, reading: &Reading) {
    into.element("article", &[("class", &"reading")], |article| {
        article.element("header", &[], |header| {
            header.line("h4", &[], &reading.title);
            let figures: Vec<String> = reading.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
            header.line("span", &[], &figures.join(" · "));
        });
        texts(article, "shared", &reading.shared);
        texts(article, "sides", &reading.sides);
        parts(article, &reading.parts);
    });
}

fn texts(into: &mut Markup, class: &'static str, texts: &[(String, String)]) {
    if texts.is_empty() {
        return;
    }
    into.element("dl", &[("class", &class)], |list| {
        for (name, text) in texts {
            list.element("div", &[], |one| {
                one.line("dt", &[], name);
                match text.as_str() {
                    "" => one.line("dd", &[("class", &"nothing")], "nothing"),
                    text => one.line("dd", &[("dir", &"auto")], text),
                }
            });
        }
    });
}

/// One text in its parts: what is learned stands out from what is only read.
fn parts(into: &mut Markup, parts: &[(String, String)]) {
    if parts.is_empty() {
        return;
    }
    into.element("p", &[("class", &"parts"), ("dir", &"auto")], |whole| {
        for (name, text) in parts {
            if name == Reading::READ {
                whole.text(text);
            } else {
                whole.line("mark", &[("class", name), ("title", name)], text);
            }
        }
    });
}

/// A chart under its title; parts of `legend` have a class of a colour and a name.
fn figure(into: &mut Markup, title: &str, unit: &str, legend: &[(String, String)], inside: impl FnOnce(&mut Markup)) {
    into.element("figure", &[], |figure| {
        figure.element("figcaption", &[], |caption| {
            caption.line("b", &[], title);
            for (class, name) in legend {
                caption.element("span", &[], |span| {
                    span.line("i", &[("class", class)], "");
                    span.text(name);
                });
            }
            if !unit.is_empty() {
                caption.line("span", &[], unit);
            }
        });
        inside(figure);
    });
}

fn lines(into: &mut Markup, chart: &LineChart) {
    let names = chart.curves.iter().enumerate().map(|(index, curve)| (format!("s{}", index % 4), curve.name.clone()));
    let legend: Vec<(String, String)> = if chart.curves.len() > 1 { names.collect() } else { Vec::new() };
    let window = chart.curves.iter().find_map(|curve| curve.window());
    let note = window.map(|points| format!("bold: mean of {points} points")).unwrap_or_default();
    figure(into, &chart.title, &note, &legend, |into| chart.draw(into));
}

fn chart(into: &mut Markup, chart: &Chart) {
    match chart {
        Chart::Bars { title, unit, bars } => {
            figure(into, title, unit, &[], |into| bars::draw(into, title, unit, bars));
        }
        Chart::Intervals { title, unit, intervals } => {
            figure(into, title, unit, &[], |into| intervals::draw(into, title, unit, intervals));
        }
    }
}

fn rows_kept(into: &mut Markup, stages: &[(String, Funnel)]) {
    let is_there = |part: usize| stages.iter().any(|(_, funnel)| funnel::counts(funnel)[part] > 0);
    let legend = funnel::PARTS.iter().enumerate().filter(|(part, _)| is_there(*part));
    let legend: Vec<(String, String)> =
        legend.map(|(_, (name, class))| ((*class).to_owned(), (*name).to_owned())).collect();
    figure(into, "Rows, stage by stage", "", &legend, |into| funnel::draw(into, stages));
}

fn code(into: &mut Markup, text: &str, is_numbered: bool) {
    if !is_numbered {
        return into.line("pre", &[], text);
    }
    into.element("pre", &[("class", &"numbered")], |pre| {
        for line in text.lines() {
            let (code, comment) = line.split_at(comment_start(line));
            pre.element("span", &[], |span| {
                span.text(code);
                if !comment.is_empty() {
                    span.line("span", &[("class", &"comment")], comment);
                }
            });
        }
    });
}

/// Where the comment of a line of YAML starts: at a `#` after white space, outside quotes.
fn comment_start(line: &str) -> usize {
    let (mut quote, mut before) = (None, ' ');
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(character),
            (None, '#') if before.is_whitespace() => return at,
            _ => {}
        }
        before = character;
    }
    line.len()
}

fn card(into: &mut Markup, card: &Card) {
    let class = format!("stage {}", card.status.name());
    into.element("details", &[("class", &class)], |details| {
        details.element("summary", &[], |summary| {
            summary.line("span", &[("class", &"sign"), ("title", &card.status.name())], card.status.sign());
            summary.line("b", &[], &card.name);
            let said = if card.summary.is_empty() { card.status.name() } else { &card.summary };
            summary.line("span", &[("class", &"said")], said);
            let is_said = card.time.is_empty() && !card.summary.is_empty();
            summary.line("span", &[("class", &"time")], if is_said { card.status.name() } else { &card.time });
        });
        details.element("div", &[], |inside| {
            // A link that leads inside a closed fold opens it.
            inside.line("span", &[("class", &"target"), ("id", &format!("stage-{}", card.name))], "");
            inside.line("p", &[], &format!("{} · {}", card.operator, card.status.name()));
            blocks(inside, &card.blocks);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_starts_where_yaml_says() {
        let split = |line: &'static str| line.split_at(comment_start(line));
        assert_eq!(split("  rank: 16   # adapter"), ("  rank: 16   ", "# adapter"));
        assert_eq!(split("  path: \"a # b\""), ("  path: \"a # b\"", ""));
        assert_eq!(split("a#b: it's # c"), ("a#b: it's ", "# c"));
    }

    #[test]
    fn a_column_of_figures_is_known() {
        let cells = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = vec![cells(["+1.5", "x", ""]), cells(["−2,000", "3", ""])];
        let data = Table { rows, columns: cells(["a", "b", "c"]), ..Table::default() };
        assert_eq!([0, 1, 2].map(|column| is_numeric(&data, column)), [true, false, false]);
    }
}
