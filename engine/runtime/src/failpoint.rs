//! Failpoints: end the process at, or fail, the N-th durable call of an area, so that a test can break a run at each.
//!
//! `LLMFLOW_FAILPOINT=store:7:crash-after` ends it right after the seventh call; `store:7+:enospc` fails the seventh and
//! all after it. Always compiled: where the variable is not set, a call costs one atomic load.

use std::{
    io,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{errno::Errno, sys::signal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// As a power cut before the call, as far as one process can tell.
    CrashBefore,
    CrashAfter,
    /// The call is not made.
    Fail(Errno),
}

#[derive(Debug)]
struct Failpoint {
    area: String,
    /// Counts from 1.
    number: u64,
    /// Every later call too.
    onwards: bool,
    action: Action,
    seen: AtomicU64,
}

impl Failpoint {
    /// `AREA:N[+]:ACTION`; nothing if it says anything else.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (area, number, action) = (parts.next()?, parts.next()?, parts.next()?);
        let action = match action {
            "crash-before" => Action::CrashBefore,
            "crash-after" => Action::CrashAfter,
            "enospc" => Action::Fail(Errno::ENOSPC),
            "eio" => Action::Fail(Errno::EIO),
            _ => return None,
        };
        let (number, onwards) = number.strip_suffix('+').map_or((number, false), |number| (number, true));
        let seen = AtomicU64::new(0);
        Some(Self { area: area.to_owned(), number: number.parse().ok()?, onwards, action, seen })
    }

    fn is_due(&self) -> bool {
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        number == self.number || (self.onwards && number > self.number)
    }

    fn strike<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.action {
            _ if !self.is_due() => call(),
            Action::CrashBefore => crash(),
            Action::CrashAfter => {
                let _ = call();
                crash()
            }
            Action::Fail(errno) => Err(errno.into()),
        }
    }
}

/// Makes a durable call of an area, unless this is the one that a test wants to break.
pub(crate) fn durable<T>(area: &str, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    static ARMED: LazyLock<Option<Failpoint>> =
        LazyLock::new(|| Failpoint::parse(&std::env::var("LLMFLOW_FAILPOINT").ok()?));
    match ARMED.as_ref() {
        Some(failpoint) if failpoint.area == area => failpoint.strike(call),
        _ => call(),
    }
}

fn crash() -> ! {
    let _ = signal::raise(signal::Signal::SIGKILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(text: &str) -> Vec<Option<i32>> {
        let failpoint = Failpoint::parse(text).unwrap();
        (0..4).map(|_| failpoint.strike(|| Ok(())).err().and_then(|error| error.raw_os_error())).collect()
    }

    #[test]
    fn the_call_that_is_named_fails_and_with_a_plus_those_after_it() {
        let full = Some(Errno::ENOSPC as i32);
        assert_eq!(outcomes("store:2:enospc"), [None, full, None, None]);
        assert_eq!(outcomes("store:3+:enospc"), [None, None, full, full]);
        for bad in ["", "store", "store:x:eio", "store:1:explode"] {
            assert!(Failpoint::parse(bad).is_none(), "{bad}");
        }
    }
}
