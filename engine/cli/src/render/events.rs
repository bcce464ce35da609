//! Reads a run's events as they come, for whoever looks: the live view, plain lines or JSON.

use std::{io, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use llmflow_runtime::{
    event::{Event, now_ms},
    run::Cancel,
};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{live::Live, notes::Drawn, plain::Plain, screen::Screen, typed::Place};

/// Between two pictures of the live view.
const FRAME: Duration = Duration::from_millis(100);

/// What a terminal writes at Ctrl-C, `^C`, in columns: behind a line that fills the screen it would begin another.
const CONTROL: usize = 2;

/// Shows every event until the run lets go of its end.
pub async fn show(events: UnboundedReceiver<Event>, screen: Screen, cancel: Cancel) {
    if screen.is_live { draw(events, &screen, &cancel).await } else { list(events, &screen).await }
}

async fn list(mut events: UnboundedReceiver<Event>, screen: &Screen) {
    let mut plain = Plain::new(screen.verbose > 0, screen.talk, Place::here());
    while let Some(event) = events.recv().await {
        if screen.json {
            screen.print_json(&event);
        } else {
            plain.lines(&event).iter().for_each(|line| screen.say(line));
        }
    }
}

/// The terminal as it was, once this is dropped.
struct Echo(Termios);

impl Echo {
    /// Keeps the terminal from writing `^C` into the picture, which would then be drawn anew one line too low.
    fn without_control() -> Option<Self> {
        let before = tcgetattr(io::stderr()).ok()?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ECHOCTL);
        tcsetattr(io::stderr(), SetArg::TCSANOW, &now).ok()?;
        Some(Self(before))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stderr(), SetArg::TCSANOW, &self.0);
    }
}

async fn draw(mut events: UnboundedReceiver<Event>, screen: &Screen, cancel: &Cancel) {
    let mut live = Live::new(screen.width.saturating_sub(CONTROL), screen.verbose > 0, screen.talk, Place::here());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let _drawn = Drawn::new(&bar);
    let _echo = Echo::without_control();
    let mut clock = tokio::time::interval(FRAME);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    let lines = live.hear(&event);
                    if !lines.is_empty() {
                        // First, so that a stage that has ended is not drawn twice.
                        bar.set_message(live.now(now_ms(), cancel.requests()).join("\n"));
                    }
                    lines.into_iter().for_each(|line| bar.println(line));
                }
                None => break,
            },
            _ = clock.tick() => bar.set_message(live.now(now_ms(), cancel.requests()).join("\n")),
        }
    }
    bar.finish_and_clear();
}
