//! Feeds the query string of `/api/v1/events` anything: whoever reaches the port may send it.
//!
//! `cargo +nightly fuzz run filter` from the repository's root. It looks for panics, and for
//! filters that do not survive the query string that the client would make of them.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone, not the library around it, which needs the probes to be compiled first.
#[path = "../../tcpmon/src/model/mod.rs"]
#[expect(dead_code, reason = "it serves the daemon; not all of it is asked here")]
mod model;

use model::filter::Filter;

fuzz_target!(|query: &str| {
    match Filter::from_query(query) {
        Ok(filter) => {
            let again = Filter::from_query(&filter.to_query());
            assert_eq!(again.as_ref(), Ok(&filter));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
