//! Maps whose keys are long and of which there are tens of thousands, at every look.

use std::collections::HashMap;

/// A hash map that is several times as fast as the standard one where keys are long. Seeded by
/// chance, since whoever connects to this host chooses addresses that become keys.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
