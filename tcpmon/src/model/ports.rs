//! Ranges and sets of ports, as the sysctls of a network namespace write them: the range that
//! local ports are taken from, and those that are kept out of it.

use std::fmt;

use thiserror::Error;

/// Ports from `first` to `last`, both included; `first` is never above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` where that is back to front.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Reads `ip_local_port_range`: two numbers with white space between.
    #[must_use]
    pub fn from_sysctl(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace();
        let (first, last) = (numbers.next()?, numbers.next()?);
        if numbers.next().is_some() {
            return None;
        }
        Self::new(decimal(first)?, decimal(last)?)
    }

    /// The lowest port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, 1 to 65,536.
    #[must_use]
    pub fn len(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Never: a range has one port at least. Here because clippy wants it beside [`Self::len`].
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The ports that both have; `None` where there are none.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A list of ports that nobody can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected ports and ranges of ports with commas between, such as 8080,9148-9150")]
pub struct ParsePortSetError;

/// Any ports, kept as ranges: in order, none empty, no two that touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    ranges: Vec<PortRange>,
}

impl PortSet {
    /// Reads `ip_local_reserved_ports` (`8080,9148-9150`, nothing for none), in the form that the
    /// kernel writes and takes (`proc_do_large_bitmap`, kernel/sysctl.c). Ranges may overlap and
    /// be in any order.
    ///
    /// # Errors
    /// Anything else in the text, a port above 65535, or a range back to front.
    pub fn from_sysctl(text: &str) -> Result<Self, ParsePortSetError> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(range).collect()
    }

    /// The ranges, the lowest first.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.ranges
    }

    /// Whether there is no port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ports there are, 0 to 65,536.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= port);
        after.checked_sub(1).is_some_and(|index| self.ranges[index].contains(port))
    }

    /// How many of them lie within a range, 0 to 65,536.
    #[must_use]
    pub fn count_within(&self, within: PortRange) -> u32 {
        let common = self.ranges.iter().filter_map(|range| range.intersection(within));
        common.map(PortRange::len).sum()
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut sorted: Vec<PortRange> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut ranges: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match ranges.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => ranges.push(range),
            }
        }
        Self { ranges }
    }
}

impl fmt::Display for PortSet {
    /// As the kernel writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            range.fmt(f)?;
        }
        Ok(())
    }
}

fn range(text: &str) -> Result<PortRange, ParsePortSetError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = decimal(first).zip(decimal(last));
    ports.and_then(|(first, last)| PortRange::new(first, last)).ok_or(ParsePortSetError)
}

/// A number without sign or spaces, which `parse` alone would let through.
fn decimal(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_range_of_local_ports() {
        let range = |first, last| PortRange::new(first, last);
        for (text, expected) in [
            ("32768\t60999\n", range(32_768, 60_999)),
            ("1 65535", range(1, 65_535)),
            ("1024\t1024\n", range(1_024, 1_024)),
            ("60999\t32768\n", None),
            ("32768\n", None),
            ("1 2 3", None),
            ("1 65536", None),
            ("-1 2", None),
            ("+1 2", None),
            ("", None),
        ] {
            assert_eq!(PortRange::from_sysctl(text), expected, "{text:?}");
        }
        assert_eq!(range(32_768, 60_999).map(PortRange::len), Some(28_232));
        assert_eq!(range(0, 65_535).map(PortRange::len), Some(65_536));
    }

    #[test]
    fn reserved_ports() {
        for (text, expected, len) in [
            ("\n", "", 0),
            ("", "", 0),
            ("8080\n", "8080", 1),
            ("8080,9148-9150\n", "8080,9148-9150", 4),
            ("9148-9150,8080", "8080,9148-9150", 4),
            ("1-5,3-9,10,12", "1-10,12", 11),
            ("0-65535", "0-65535", 65_536),
            ("0,65535", "0,65535", 2),
        ] {
            let set = PortSet::from_sysctl(text).expect(text);
            assert_eq!((set.to_string().as_str(), set.len()), (expected, len), "{text:?}");
        }
        for text in ["a", "1,", ",1", "1-", "-1", "2-1", "65536", "1 2", "1--2", "+1"] {
            assert_eq!(PortSet::from_sysctl(text), Err(ParsePortSetError), "{text:?}");
        }
    }

    fn any_range() -> impl Strategy<Value = PortRange> {
        // Near the ends and near each other, so that ranges touch and overlap.
        let port = prop_oneof![0u16..40, 65_500u16.., any::<u16>()];
        (port.clone(), port)
            .prop_filter_map("back to front", |(first, last)| PortRange::new(first, last))
    }

    proptest! {
        #[test]
        fn a_set_has_what_its_ranges_have(ranges in vec(any_range(), 0..12), within in any_range()) {
            let mut model = vec![false; 65_536];
            for range in &ranges {
                model[range.first.into()..=range.last.into()].fill(true);
            }
            let count = |model: &[bool]| model.iter().filter(|&&there| there).count();
            let set: PortSet = ranges.into_iter().collect();
            prop_assert_eq!(set.len() as usize, count(&model));
            prop_assert_eq!(set.is_empty(), count(&model) == 0);
            let common = count(&model[within.first.into()..=within.last.into()]);
            prop_assert_eq!(set.count_within(within) as usize, common);
            for port in (0..60).chain(65_480..=65_535) {
                prop_assert_eq!(set.contains(port), model[usize::from(port)], "{}", port);
            }
            for pair in set.ranges().windows(2) {
                prop_assert!(u32::from(pair[0].last) + 1 < u32::from(pair[1].first));
            }
            let again = PortSet::from_sysctl(&set.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&set));
        }

        #[test]
        fn no_text_panics(text in ".*", likely in "[0-9,\\- \t\n]{0,40}") {
            for text in [text, likely] {
                let _ = PortRange::from_sysctl(&text);
                let _ = PortSet::from_sysctl(&text);
            }
        }
    }
}
