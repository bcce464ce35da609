//! Reads a run's events as they come: plain lines or JSON.

use llmflow_runtime::{event::Event, run::Cancel};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{plain::Plain, screen::Screen};

/// Shows every event until the run lets go of its end.
pub async fn show(mut events: UnboundedReceiver<Event>, screen: Screen, _cancel: Cancel) {
    let mut plain = Plain::new(screen.verbose > 0, screen.talk);
    while let Some(event) = events.recv().await {
        if screen.json {
            screen.print_json(&event);
        } else {
            plain.lines(&event).iter().for_each(|line| screen.say(line));
        }
    }
}
