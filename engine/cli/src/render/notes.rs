//! What the program's own parts warn of, as people read it: above the live view, never through it.
//!
//! Owns: the look of a warning. Must not know: who warns, or of what.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use indicatif::ProgressBar;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

use super::format;

/// What is drawn on standard error now.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// While it lives, what is written goes above this drawing.
pub struct Drawn;

impl Drawn {
    pub fn new(bar: &ProgressBar) -> Self {
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Standard error, above what is drawn there.
pub struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bar = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().lock().write_all(bytes).map(|()| bytes.len());
        bar.map_or_else(write, |bar| bar.suspend(write))
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// `note  damaged in the store, and set aside: blobs/62/…`; what is less than a warning is for whoever debugs.
pub struct Notes(Format<Full, ()>);

impl Default for Notes {
    fn default() -> Self {
        Self(Format::default().without_time().with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Notes
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if *event.metadata().level() > Level::WARN {
            return self.0.format_event(context, writer, event);
        }
        let mut said = Said::default();
        event.record(&mut said);
        writeln!(writer, "{}", said.line())
    }
}

/// A warning, and what it is of.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Said {
    fn add(&mut self, name: &'static str, value: String) {
        match name {
            "message" => self.message = value,
            _ => self.fields.push((name, value)),
        }
    }

    fn line(&self) -> String {
        let of = match &self.fields[..] {
            [] => String::new(),
            [(_, value)] => format!(": {value}"),
            all => all.iter().map(|(name, value)| format!(" · {name} {value}")).collect(),
        };
        format::clean(&format!("note  {}{of}", self.message))
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.to_owned());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_warning_is_a_note_and_the_rest_is_a_log() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Notes::default()).with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), || {
            tracing::warn!(object = "blobs/62/ab\u{1b}[2J", "damaged in the store, and set aside");
            tracing::error!(code = 7, host = "a.b", "no answer");
            tracing::info!(object = "x", "opened");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "note  damaged in the store, and set aside: blobs/62/ab [2J");
        assert_eq!(lines[1], "note  no answer · code 7 · host a.b");
        assert!(lines[2].contains("INFO") && lines[2].contains("opened object=\"x\""), "{text}");
    }
}
