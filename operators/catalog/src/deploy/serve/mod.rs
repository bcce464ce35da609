#![doc = include_str!("doc.md")]

mod error;
mod protocol;
mod routes;
mod run;
mod smoke;
mod spec;
mod stop;
#[cfg(test)]
mod tests;
mod worker;

pub use spec::{Params, Port, Serve, SmokeTest};
