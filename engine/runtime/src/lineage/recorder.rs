//! The recorder: writes a run's notes in groups, and passes their events on to its readers.
//!
//! Notes that come while a transaction is written make the next one: so a stage waits for one commit at most, and ten
//! thousand quick stages share a few. What ends is told once it is durable; what begins or goes on is told at once.

use std::time::Duration;

use llmflow_contract::Failure;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::Instant,
};

use super::{Lineage, Note};
use crate::event::Event;

/// Notes of one transaction.
const GROUP: usize = 4096;
/// How long what is told already may wait to be written.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long what is told once it is written waits for others: no stage waits for it, and stages that end together share a
/// sync.
const SHARING: Duration = Duration::from_millis(4);

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
        let told = match &lineage {
            Some(lineage) => {
                let told = gather(&mut received, &mut group, &readers).await;
                lineage.write(&group).await?;
                told
            }
            None => 0,
        };
        for note in group.drain(..).skip(told) {
            if let Note::Event(event) = note {
                let _ = readers.send(event); // nobody has to listen
            }
        }
    }
    Ok(())
}

/// Tells what may be told before it is written, and waits a moment for what shares the transaction. Gives how many were
/// told.
async fn gather(
    received: &mut UnboundedReceiver<Note>,
    group: &mut Vec<Note>,
    readers: &UnboundedSender<Event>,
) -> usize {
    let (mut told, mut seen) = (0, 0);
    let mut until = Instant::now() + PATIENCE;
    let (mut is_kept, mut is_asked_for) = (false, false);
    loop {
        is_kept |= group[seen..].iter().any(Note::is_kept);
        seen = group.len();
        while let Some(note) = group.get(told).filter(|note| note.may_wait()) {
            if let Note::Event(event) = note {
                let _ = readers.send(event.clone());
            }
            told += 1;
        }
        if told < group.len() && !std::mem::replace(&mut is_asked_for, true) {
            until = until.min(Instant::now() + SHARING);
        }
        let is_first = matches!(group.first(), Some(Note::Begins(_)));
        if is_first || group.len() >= GROUP || !is_kept {
            return told;
        }
        tokio::select! {
            more = received.recv_many(group, GROUP) => if more == 0 { return told },
            () = tokio::time::sleep_until(until) => return told,
        }
    }
}
