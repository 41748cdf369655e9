//! The file of `--web.config.file`: no panics, and complaints of one line that show no hash.

use super::WebConfig;

/// Feeds it anything.
pub(super) fn look(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match WebConfig::parse(text) {
        Ok(config) => assert_eq!(WebConfig::parse(text).as_ref(), Ok(&config)),
        Err(error) => assert!(!error.contains('\n') && !error.is_empty(), "{error:?}"),
    }
}
