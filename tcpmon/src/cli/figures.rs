//! Figures as people read them.

/// A count in groups of three digits: `28,232`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A ratio in whole percents, rounded down: what is not quite full is not shown as full.
#[must_use]
pub fn percent(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.01 {
        return "under 1 %".to_owned();
    }
    format!("{:.0} %", (ratio * 100.0 + 1e-9).floor())
}

/// A time in the unit that a person would choose: `812 us`, `45 s`, `3 h 12 min`.
#[must_use]
pub fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a number")]
    let whole = seconds.max(0.0) as u64;
    let two = |large: u64, unit: &str, small: u64, fraction: &str| {
        if small == 0 {
            format!("{large} {unit}")
        } else {
            format!("{large} {unit} {small} {fraction}")
        }
    };
    match whole {
        0 if seconds < 1e-3 => format!("{:.0} us", seconds.max(0.0) * 1e6),
        0 => format!("{:.1} ms", seconds * 1e3),
        1..=9 => format!("{seconds:.1} s"),
        10..=119 => format!("{whole} s"),
        120..=3_599 => two(whole / 60, "min", whole % 60, "s"),
        3_600..=86_399 => two(whole / 3_600, "h", whole / 60 % 60, "min"),
        _ => two(whole / 86_400, "d", whole / 3_600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (28_232, "28,232"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn not_quite_full_is_not_full() {
        for (ratio, text) in [
            (0.0, "0 %"),
            (0.004, "under 1 %"),
            (0.01, "1 %"),
            (0.29, "29 %"),
            (0.999, "99 %"),
            (1.0, "100 %"),
            (1.02, "102 %"),
        ] {
            assert_eq!(percent(ratio), text);
        }
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (seconds, text) in [
            (0.0, "0 us"),
            (0.000_812, "812 us"),
            (0.0123, "12.3 ms"),
            (1.5, "1.5 s"),
            (60.4, "60 s"),
            (120.0, "2 min"),
            (500.0, "8 min 20 s"),
            (11_520.0, "3 h 12 min"),
            (200_000.0, "2 d 7 h"),
            (-1.0, "0 us"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
