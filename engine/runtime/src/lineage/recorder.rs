//! The recorder: writes a run's notes in groups, and passes each event on to its readers once it is durable.
//!
//! Notes that come while a transaction is written make the next one: so a stage waits for one commit at most, and ten
//! thousand quick stages share a few.

use std::time::Duration;

use llmflow_contract::Failure;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::{Lineage, Note};
use crate::event::Event;

/// Notes of one transaction.
const GROUP: usize = 4096;
/// How long a point of a curve may wait for others.
const PATIENCE: Duration = Duration::from_millis(100);

/// Takes notes; [`Recorder::finish`] ends it.
pub struct Recorder {
    notes: UnboundedSender<Note>,
    writer: JoinHandle<Result<(), Failure>>,
}

impl Recorder {
    /// Begins. Without a `lineage` nothing is written: events are passed on alone.
    pub fn start(lineage: Option<Lineage>, readers: UnboundedSender<Event>) -> Self {
        let (notes, received) = unbounded_channel();
        Self { notes, writer: tokio::spawn(write(lineage, received, readers)) }
    }

    pub fn note(&self, note: Note) {
        // A writer that has ended says why in `failure` or `finish`.
        let _ = self.notes.send(note);
    }

    /// Has it stopped writing? [`Self::finish`] then says why.
    pub fn has_failed(&self) -> bool {
        self.writer.is_finished()
    }

    /// Writes what is left; everything noted is durable on return.
    ///
    /// # Errors
    /// What the database failed with, now or before.
    pub async fn finish(self) -> Result<(), Failure> {
        drop(self.notes);
        self.writer.await.unwrap_or_else(|error| Err(Failure::bug(format!("the recorder ended: {error}"))))
    }
}

async fn write(
    lineage: Option<Lineage>,
    mut received: UnboundedReceiver<Note>,
    readers: UnboundedSender<Event>,
) -> Result<(), Failure> {
    let mut group = Vec::new();
    while received.recv_many(&mut group, GROUP).await > 0 {
        if let Some(lineage) = &lineage {
            if group.iter().all(Note::is_point) && group.iter().any(Note::is_kept) {
                gather(&mut received, &mut group).await;
            }
            lineage.write(&group).await?;
        }
        for note in group.drain(..) {
            if let Note::Event(event) = note {
                let _ = readers.send(event);
            }
        }
    }
    Ok(())
}

/// Waits a moment for more of the points of a curve, a transaction each would be too many of; anything else ends it.
async fn gather(received: &mut UnboundedReceiver<Note>, group: &mut Vec<Note>) {
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    while group.len() < GROUP && group.iter().all(Note::is_point) {
        tokio::select! {
            more = received.recv_many(group, GROUP) => if more == 0 { return },
            () = &mut patience => return,
        }
    }
}
