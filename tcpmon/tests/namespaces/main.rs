//! Network namespaces of the real machine, as root: found, named, entered, and what the kernel
//! counts and has set in each. All are the tests' own; others come and go on the machine
//! meanwhile, and are passed over.

mod cost;
mod finding;
mod place;
mod reading;
mod visiting;
