//! Programs of the user's own: a script, a trainer, whatever the machine has.
//!
//! Owns: how a foreign program is started, fed, heard, watched and ended; where it finds files and leaves results.
//! Must not know: what the program computes.
//! Start at [`command`]; `data.map` runs its command the same way.

pub mod command;
mod facts;
mod group;
pub(crate) mod heard;
pub(crate) mod left;
pub(crate) mod placeholder;
pub(crate) mod program;
mod safetensors;
pub(crate) mod script;
