//! The lab: network namespaces and real traffic in them, by recipe.
//!
//! For people who want to see tcpmon work (`cargo xtask lab`), and for its tests and benchmarks:
//! a recipe is carried out by processes of its own, step by step, and returns as plain data what
//! must have been seen of every socket. [`verify`] holds that against the kernel's own
//! tracepoint, so that the yardstick is measured too.
//!
//! ```no_run
//! use xtask::lab::{Lab, Options, Recipe};
//!
//! let mut lab = Lab::open(Options::default())?;
//! println!("watch {}", lab.namespaces()[0].name);
//! let expected = lab.perform(Recipe::ClientFirst, None)?;
//! for socket in &expected.sockets {
//!     println!("{} {:?}", socket.owner.comm, socket.transitions);
//! }
//! # Ok::<(), xtask::lab::LabError>(())
//! ```

mod bulk;
mod cli;
mod destroy;
mod edge;
mod error;
mod expectation;
mod interface;
mod ledger;
mod netns;
mod place;
mod plan;
mod play;
mod protocol;
mod puppet;
mod recipe;
mod socket;
mod sockets;
mod table;
mod tracefs;
mod uring;
pub mod verify;
mod wire;
mod worker;

pub use cli::{LabArgs, run};
pub use edge::{Edge, edges};
pub use error::{LabError, Result};
pub use expectation::{Expectation, Load, Namespace, Service};
pub use ledger::{Checkpoint, Ledger, Listing};
pub use netns::enter;
pub use place::{Lab, Options, remove_orphans};
pub use recipe::{Addresses, ConnectBy, Recipe};
pub use socket::{Ending, Process, Role, Socket, Substate};
