//! The tasks of this workspace: `cargo xtask --help`.
//!
//! A library beside the program so that tests of other crates can use parts of
//! it. Nothing here may depend on the crate `tcpmon`: that can only be built
//! once [`setup`] has run.

mod again;
pub mod bench;
pub mod browser;
pub mod build;
pub mod dist;
pub mod fuzz;
pub mod lab;
pub mod manifests;
pub mod process;
pub mod run;
pub mod screens;
pub mod setup;
pub mod soak;
pub mod test;
pub mod vm;
