//! Everything people read. Functions here turn events, plans and history into lines; nothing else decides how they look.
//!
//! Must not know: how anything is computed. Text of stages, files and models is cleaned of control characters here.

pub mod asked;
pub mod causes;
pub mod change;
pub mod devices;
pub mod diff;
pub mod doctor;
pub mod end;
pub mod error;
pub mod events;
pub mod explain;
pub mod fetch;
#[cfg(test)]
pub mod fixture;
pub mod format;
pub mod graph;
pub mod header;
pub mod init;
pub mod lineage;
pub mod live;
pub mod notes;
pub mod open_lineage;
pub mod operators;
pub mod plain;
pub mod plan;
pub mod rows;
pub mod run;
pub mod runs;
pub mod screen;
pub mod siblings;
pub mod stage;
pub mod store;
pub mod style;
pub mod table;
pub mod typed;
pub mod when;
