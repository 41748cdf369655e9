//! The border with the kernel: what is read from it and loaded into it.

pub mod btf;
pub mod cells;
pub mod census;
pub mod cgroups;
pub mod clock;
pub mod counters;
mod iterator;
mod mapped;
mod mountinfo;
pub mod namespaces;
pub mod net_counters;
pub mod netns;
pub mod offsets;
mod pods;
pub mod privileges;
pub mod probes;
mod proc_cgroup;
pub mod program;
mod recent;
pub mod requirements;
pub mod rings;
pub mod sock_diag;
mod sockets;
pub mod sysctls;
mod tw_handler;
pub mod visit;
mod whole_file;
