//! The Authorization header, which whoever reaches the port may send: no panics, and names without
//! a colon, since that ends them.

use super::credentials::credentials;

/// Feeds it anything, and anything after the scheme.
pub(super) fn look(data: &[u8]) {
    for value in [data.to_vec(), [b"Basic ", data].concat()] {
        if let Some((name, password)) = credentials(&value) {
            assert!(!name.contains(':'));
            assert!(name.len() + password.len() < value.len());
        }
    }
}
