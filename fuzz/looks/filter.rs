//! The query string of `/api/v1/events`, which whoever reaches the port may send: no panics, and no
//! filters that do not survive the query string that the client would make of them.

use super::model::filter::Filter;

/// Feeds it anything.
pub(super) fn look(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    match Filter::from_query(query) {
        Ok(filter) => {
            let again = Filter::from_query(&filter.to_query());
            assert_eq!(again.as_ref(), Ok(&filter));
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}
