//! `logs`

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use llmflow_contract::Failure;
use llmflow_runtime::{address::Address, run::Error};
use serde_json::json;

use super::{DONE, Setting, block_on, history::History};
use crate::{args::LogsArgs, render::format};

/// Longest line that is printed whole, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// Prints what a stage printed.
pub fn logs(args: LogsArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = Address::parse(&args.address)?;
        let run = history.lineage.find_run(&address.run).await?;
        let stages = history.lineage.stages_of_run(&run).await?;
        let wanted: Vec<_> =
            stages.iter().filter(|stage| address.stage.as_ref().is_none_or(|wanted| stage.stage == *wanted)).collect();
        if wanted.is_empty() {
            let names: Vec<&str> = stages.iter().map(|stage| stage.stage.as_str()).collect();
            let message = format!("run `{run}` has no such stage; it has {}", names.join(", "));
            return Err(Failure::input("lineage/address", message)
                .help(format!("llmflow logs {run}/{}", names[0]))
                .into());
        }
        let (mut is_silent, screen) = (true, setting.screen);
        for stage in &wanted {
            let attempt = args.attempt.unwrap_or(stage.attempts).max(1);
            let prefix = if wanted.len() > 1 { format!("{}  ", stage.stage) } else { String::new() };
            let path = history.home.log(&run, stage.stage.as_str(), attempt);
            is_silent &= !each_line(&path, |line| match screen.json {
                true => screen.print_json(&json!({ "stage": stage.stage, "attempt": attempt, "line": line })),
                false => screen.print(&format!("{prefix}{}", format::clean_lines(line))),
            })?;
        }
        if is_silent && !screen.json {
            screen.say(&format!("{} printed nothing in {run}", format::clean(&args.address)));
        }
        Ok(DONE)
    })
}

/// Shows each line of a log; whether there was any.
fn each_line(path: &Path, mut show: impl FnMut(&str)) -> Result<bool, Failure> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Failure::io("reading", path, &error)),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut is_any = false;
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::io("reading", path, &error))? == 0 {
            return Ok(is_any);
        }
        is_any = true;
        show(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
    }
}
