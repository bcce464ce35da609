//! `logs`

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
    time::Duration,
};

use llmflow_contract::{Failure, StageId};
use llmflow_runtime::{event::RunId, run::Error};
use serde_json::json;

use super::{DONE, Setting, block_on, history::History};
use crate::{
    args::LogsArgs,
    render::{format, screen::Screen},
};

/// Longest line that is printed whole, in bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// Between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints what a stage, or every stage of a run, printed.
pub fn logs(args: LogsArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = history.address(&args.address).await?;
        let (run, only) = match &address.stage {
            Some(_) => history.lineage.find_stage(&address).await.map(|(run, stage)| (run, Some(stage.stage)))?,
            None => (history.lineage.find_run(&address.run).await?, None),
        };
        let mut logs = Logs { history: &history, run, only, tails: BTreeMap::new(), is_silent: true };
        if let Some(attempt) = args.attempt {
            logs.expect(attempt, args.follow).await?;
        }
        logs.print(args.attempt, setting.screen).await?;
        if args.follow {
            logs.follow(args.attempt, setting.screen).await?;
        }
        if logs.is_silent && !setting.screen.json {
            setting.screen.say(&format!("{} printed nothing in {}", format::clean(&args.address), logs.run));
        }
        Ok(DONE)
    })
}

/// The logs of a run's attempts, and how far each was printed.
struct Logs<'a> {
    history: &'a History,
    run: RunId,
    only: Option<StageId>,
    tails: BTreeMap<(StageId, u32), BufReader<File>>,
    is_silent: bool,
}

impl Logs<'_> {
    /// Refuses an attempt that there was not; one that is waited for may come yet.
    async fn expect(&self, attempt: u32, is_awaited: bool) -> Result<(), Failure> {
        let had = self.wanted().await?.into_iter().map(|(_, last)| last).max().unwrap_or(0);
        if (1..=had).contains(&attempt) || (attempt > had && is_awaited && !self.is_over().await?) {
            return Ok(());
        }
        let address = self.only.as_ref().map_or(self.run.to_string(), |stage| format!("{}/{stage}", self.run));
        let had_words = format::counted(u64::from(had), "attempt");
        let message = match self.only {
            Some(_) => format!("there is no attempt {attempt} of `{address}`: it had {had_words}"),
            None => format!("no stage of `{address}` had an attempt {attempt}: the most was {had_words}"),
        };
        let words = format!("llmflow logs {address} --attempt {}", had.max(1));
        Err(Failure::input("logs/attempt", message).help(self.history.typed(&words)))
    }

    /// Prints what is there that was not printed before.
    async fn print(&mut self, attempt: Option<u32>, screen: &Screen) -> Result<(), Failure> {
        for (stage, last) in self.wanted().await? {
            let key = (stage, attempt.unwrap_or(last));
            if !self.tails.contains_key(&key) {
                let path = self.history.home.log(&self.run, key.0.as_str(), key.1);
                let Some(file) = open(&path)? else { continue };
                self.tails.insert(key.clone(), BufReader::new(file));
            }
            let Some(tail) = self.tails.get_mut(&key) else { continue };
            let prefix = if self.only.is_none() { format!("{}  ", key.0) } else { String::new() };
            let is_any = each_line(tail, |line| match screen.json {
                true => screen.print_json(&json!({ "stage": key.0, "attempt": key.1, "line": line })),
                false => screen.print(&format!("{prefix}{}", format::clean_lines(line))),
            });
            self.is_silent &= !is_any.map_err(|error| Failure::io("reading", "log", &error))?;
        }
        Ok(())
    }

    /// Goes on until the stage, or the run, is over, or its process is gone.
    async fn follow(&mut self, attempt: Option<u32>, screen: &Screen) -> Result<(), Failure> {
        loop {
            // Looked at first: what was printed before the end is printed below.
            let is_over = self.is_over().await?;
            self.print(attempt, screen).await?;
            if is_over {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn is_over(&self) -> Result<bool, Failure> {
        if !self.history.home.is_alive(&self.run) {
            return Ok(true);
        }
        let Some(stage) = &self.only else { return Ok(false) };
        let row = self.history.lineage.stage_of_run(&self.run, stage).await?;
        Ok(row.is_none_or(|row| !matches!(row.status.as_str(), "waiting" | "running")))
    }

    async fn wanted(&self) -> Result<Vec<(StageId, u32)>, Failure> {
        match &self.only {
            Some(stage) => {
                let row = self.history.lineage.stage_of_run(&self.run, stage).await?;
                Ok(row.map(|row| (row.stage, row.attempts.max(1))).into_iter().collect())
            }
            None => self.history.lineage.attempts_of_run(&self.run).await,
        }
    }
}

fn open(path: &Path) -> Result<Option<File>, Failure> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io("reading", path, &error)),
    }
}

/// Shows each line from where the reader stands; whether there was any.
fn each_line(reader: &mut impl BufRead, mut show: impl FnMut(&str)) -> std::io::Result<bool> {
    let mut line = Vec::new();
    let mut is_any = false;
    loop {
        line.clear();
        if Read::take(&mut *reader, LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(is_any);
        }
        is_any = true;
        show(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grows_is_printed_from_where_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(open(&path).unwrap().is_none());
        let mut log = File::create(&path).unwrap();
        writeln!(log, "one").unwrap();
        let mut tail = BufReader::new(open(&path).unwrap().unwrap());
        let mut seen = Vec::new();
        assert!(each_line(&mut tail, |line| seen.push(line.to_owned())).unwrap());
        assert!(!each_line(&mut tail, |line| seen.push(line.to_owned())).unwrap());
        writeln!(log, "two").unwrap();
        assert!(each_line(&mut tail, |line| seen.push(line.to_owned())).unwrap());
        assert_eq!(seen, ["one", "two"]);
    }
}
