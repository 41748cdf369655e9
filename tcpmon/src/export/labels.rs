//! Label values that stand for something else than a name.

use std::sync::Arc;

/// For an owner that is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// For what has no line of its own.
pub(super) const OTHER: &str = "other";

/// A service as a label. A process may choose a name that means something else here; it is then
/// set apart, so that no two series ever bear the same labels.
pub(super) fn label(service: Option<Arc<str>>) -> Arc<str> {
    match service {
        None => UNKNOWN.into(),
        Some(name) if [UNKNOWN, OTHER].contains(&&*name) => format!("{name} (process)").into(),
        Some(name) => name,
    }
}
