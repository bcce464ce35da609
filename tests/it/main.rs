//! The program as its users meet it: every test here starts the binary and looks at what it says, what it leaves behind
//! and the exit code it ends with. Rules inside one crate are tested beside the code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod checks;
mod choices;
mod examples;
mod history;
#[path = "../support/hub.rs"]
#[allow(dead_code, reason = "shared with the tests of the operators")]
mod hub;
mod init;
mod kill;
mod layers;
mod planned;
mod project;
mod published;
mod remade;
mod remote;
mod schema;
mod secrets;
mod store;
mod tiny;
mod whereabouts;
mod with_your_trainer;
