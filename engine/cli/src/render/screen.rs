//! The two streams. Standard output is data, standard error is talk; nothing else writes to either.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, OnceLock},
};

use clap::ColorChoice;
use llmflow_contract::Failure;
use serde::Serialize;

use super::{error, style::Paint};
use crate::args::Global;

/// Widest text that is still easy to read.
const MOST_COLUMNS: usize = 120;
/// Where the width is not known.
const COLUMNS: usize = 100;

/// How to answer, and where.
#[derive(Clone, Debug)]
pub struct Screen {
    pub json: bool,
    pub quiet: bool,
    pub verbose: u8,
    /// Whether the live view can be drawn.
    pub is_live: bool,
    /// Of standard output, the data.
    pub paint: Paint,
    /// Of standard error, the talk.
    pub talk: Paint,
    /// In characters.
    pub width: usize,
    /// The first trouble with standard output, if there was any: what was asked for is not there.
    lost: Arc<OnceLock<Failure>>,
}

impl Screen {
    /// Looks at the streams once.
    pub fn new(global: &Global) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let paint = |is_terminal: bool| {
            Paint(match global.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => is_terminal && !no_colour && !is_dumb,
            })
        };
        let talks_to_terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            is_live: talks_to_terminal && !global.plain && !global.json && !global.quiet && !no_colour && !is_dumb,
            paint: paint(io::stdout().is_terminal()),
            talk: paint(talks_to_terminal),
            width: columns(),
            lost: Arc::default(),
        }
    }

    /// Data.
    pub fn print(&self, text: &str) {
        self.print_piece(text);
        if !text.ends_with('\n') {
            self.print_piece("\n");
        }
    }

    /// A piece of a text that is being made. A reader that went away is no error.
    pub fn print_piece(&self, text: &str) {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = self.lost.set(Failure::io("writing", "standard output", &error));
        }
    }

    /// Says what could not be printed; the exit code of a command that ended with this one.
    pub fn close(&self, code: u8) -> u8 {
        match self.lost.get().filter(|_| code == 0) {
            Some(failure) => {
                self.warn(&error::failure(failure, self.talk.0));
                3
            }
            None => code,
        }
    }

    /// One JSON value on a line of its own.
    pub fn print_json(&self, value: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(value) {
            self.print(&text);
        }
    }

    /// Talk, unless asked to be quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Talk that is said even when asked to be quiet.
    pub fn warn(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes());
        if !text.ends_with('\n') {
            let _ = err.write_all(b"\n");
        }
    }

    /// A failure as people read it, or as JSON.
    pub fn fail(&self, failure: &Failure) {
        if self.json {
            self.print_json(&serde_json::json!({ "error": failure }));
        } else {
            self.warn(&error::failure(failure, self.talk.0));
        }
    }
}

fn columns() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let measured = || console::Term::stderr().size_checked().map(|(_, columns)| usize::from(columns));
    given.or_else(measured).unwrap_or(COLUMNS).clamp(40, MOST_COLUMNS)
}
