//! Label values that stand for something else than a name.

use std::sync::Arc;

/// For an owner that is not known.
pub(super) const UNKNOWN: &str = "unknown";

/// For what has no line of its own.
pub(super) const OTHER: &str = "other";

/// At the end of a name that is not shown as it is.
const ESCAPED: &str = " (escaped)";

/// A service as a label. A process may choose a name that means something else here, or one that a
/// terminal would obey; it is then set apart, so that no two series ever bear the same labels.
pub(crate) fn label(service: Option<Arc<str>>) -> Arc<str> {
    match service {
        None => UNKNOWN.into(),
        Some(name) if [UNKNOWN, OTHER].contains(&&*name) => format!("{name} (process)").into(),
        Some(name) => shown(name),
    }
}

/// A name without what a terminal would obey; one that is not shown as it is is set apart from all
/// that are.
pub(crate) fn shown(name: Arc<str>) -> Arc<str> {
    if name.ends_with(ESCAPED) || name.contains(char::is_control) {
        return format!("{}{ESCAPED}", name.escape_debug()).into();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_passes_for_another_or_speaks_to_a_terminal() {
        let names = [
            "nginx",
            "other",
            "unknown",
            "other (process)x",
            "a\u{1b}[2J",
            "a\\u{1b}[2J",
            "a\\u{1b}[2J (escaped)",
            "a\n",
            "a\u{9b}2J",
            "d\u{fc}rer",
        ];
        let labels: HashSet<_> = names.iter().map(|name| label(Some((*name).into()))).collect();
        assert_eq!(labels.len(), names.len(), "{labels:?}");
        assert!(labels.iter().all(|label| !label.contains(char::is_control)), "{labels:?}");
        assert!(labels.contains("nginx") && labels.contains("d\u{fc}rer"));
        assert!(labels.contains("a\\u{1b}[2J (escaped)"), "{labels:?}");
    }
}
