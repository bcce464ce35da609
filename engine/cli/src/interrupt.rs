//! Signals: the first asks every stage to save and stop, the second ends them at once, the third ends the program.

use llmflow_contract::Failure;
use llmflow_runtime::run::Cancel;
use tokio::signal::unix::{SignalKind, signal};

use crate::render::screen::Screen;

/// DESIGN.md §6.
const INTERRUPTED: i32 = 130;

/// Ends with the whole program: waits for signals, and passes them on as requests to stop.
pub struct Interrupts(tokio::task::JoinHandle<()>);

impl Interrupts {
    /// Listens for Ctrl-C, SIGTERM and SIGUSR1; `first` is said at the first of them.
    ///
    /// # Errors
    /// Of the environment, if the process may not listen. Call inside a tokio runtime.
    pub fn watch(cancel: Cancel, screen: &Screen, first: &'static str) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::environment("signal", "signals cannot be heard here").cause(error))
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut user = listen(SignalKind::user_defined1())?;
        let screen = screen.clone();
        Ok(Self(tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = user.recv() => {}
                }
                cancel.request();
                match cancel.requests() {
                    1 if !first.is_empty() => screen.warn(first),
                    2 if !first.is_empty() => screen.warn("stopping now"),
                    3.. => std::process::exit(INTERRUPTED), // the engine does not listen; workers end with it
                    _ => {}
                }
            }
        })))
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.abort();
    }
}
