//! `fetch`

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use llmflow_runtime::{
    remote::Fetching,
    run::{self, Cancel, Error},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{DONE, Setting, block_on, pipeline_file};
use crate::{
    args::{FetchArgs, RemoteArgs},
    interrupt::Interrupts,
    render::{
        asked::Asked,
        fetch::{self, Speed},
        screen::Screen,
        typed::Place,
    },
};

/// Said at the first Ctrl-C.
const STOPPING: &str = "stopping; what was fetched is kept, and the next fetch goes on from it";

/// Downloads every remote source of a pipeline.
pub fn fetch(args: FetchArgs, setting: &Setting) -> Result<u8, Error> {
    let remote = RemoteArgs { lock: args.lock, offline: false };
    let options = pipeline_file::options(&args.pipeline, remote, setting.home.as_deref())?;
    let (file, place) = (options.pipeline.clone(), Place::here());
    let asked = Asked::of(&options.overrides, &options.selection);
    let home = options.home.as_deref().and_then(|home| home.canonicalize().ok());
    let screen = setting.screen;
    let fetched = block_on(async {
        let cancel = Cancel::new();
        let _interrupts = Interrupts::watch(cancel.clone(), screen, STOPPING)?;
        let (sender, receiver) = unbounded_channel();
        let shown = tokio::spawn(show(receiver, screen.clone()));
        let report = move |fetching| drop(sender.send(fetching)); // a screen that is gone is no error
        let fetched = run::fetch(options, setting.registry, report, cancel).await;
        let _ = shown.await; // ends when nobody reports any more
        fetched
    })?;
    if screen.json {
        screen.print_json(&serde_json::json!({ "event": "done", "stages": fetched }));
    } else {
        // Without `--home` the run finds the home that was found here.
        let run = home.map_or_else(|| place.run_alone(&file, &asked), |home| place.run(&file, &asked, &home));
        screen.say(&fetch::end(&file.display().to_string(), fetched.len(), &run));
    }
    Ok(DONE)
}

async fn show(mut fetching: UnboundedReceiver<Fetching>, screen: Screen) {
    let target = if screen.is_live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let mut speed = Speed::default();
    while let Some(one) = fetching.recv().await {
        if screen.json {
            screen.print_json(&fetch::event(&one));
        } else if one.is_done {
            bar.suspend(|| screen.say(&fetch::done(&one.stage, &speed)));
            speed = Speed::default();
        } else {
            speed.hear(&one.progress, began.elapsed().as_secs_f64());
            bar.set_message(fetch::line(&one.stage, &speed));
        }
    }
    bar.finish_and_clear();
}
