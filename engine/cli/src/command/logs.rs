//! `logs`

use std::io::{BufRead, BufReader};

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{address::Address, event::RunId, home::Home, run::Error};

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
        let mut is_silent = true;
        for stage in &wanted {
            let attempt = args.attempt.unwrap_or(stage.attempts).max(1);
            let prefix = if wanted.len() > 1 { format!("{}  ", stage.stage) } else { String::new() };
            is_silent &= !print(&history.home, &run, &stage.stage, attempt, &prefix, setting)?;
        }
        if is_silent {
            setting.screen.say(&format!("{} printed nothing in {run}", format::clean(&args.address)));
        }
        Ok(DONE)
    })
}

/// Prints one log; whether there was anything.
fn print(
    home: &Home,
    run: &RunId,
    stage: &StageId,
    attempt: u32,
    prefix: &str,
    setting: &Setting,
) -> Result<bool, Failure> {
    let path = home.log(run, stage.as_str(), attempt);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Failure::io("reading", &path, &error)),
    };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut is_any = false;
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| Failure::io("reading", &path, &error))? == 0 {
            return Ok(is_any);
        }
        is_any = true;
        let text = String::from_utf8_lossy(&line);
        setting.screen.print(&format!("{prefix}{}", format::clean_lines(text.trim_end_matches(['\n', '\r']))));
    }
}
