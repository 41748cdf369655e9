//! What several readers may share for a moment: a hundred open pages ask for the same report every
//! two seconds, and to make it costs the more the more destinations there are.

use axum::http::{HeaderMap, header};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The last one of something that is dear to make.
#[derive(Debug, Default)]
pub struct Recent<T> {
    kept: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Recent<T> {
    /// What was made no longer than `max_age` ago, or else is made now. Whoever comes meanwhile
    /// waits for it; who wants nothing old does not.
    ///
    /// # Errors
    ///
    /// What making it says.
    pub fn get<E>(&self, max_age: Duration, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if max_age.is_zero() {
            return make();
        }
        // What a panic left behind is still what was made.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, value)) = &*kept
            && made.elapsed() <= max_age
        {
            return Ok(value.clone());
        }
        // It is as old as what it was made of.
        let begun = Instant::now();
        let value = make()?;
        *kept = Some((begun, value.clone()));
        Ok(value)
    }
}

/// How old an answer may be, by the request (`Cache-Control: max-age=SECONDS`, RFC 9111, 5.2.1.1);
/// without a word, not at all.
pub(super) fn max_age(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let words = values.filter_map(|value| value.to_str().ok());
    let mut age = Duration::ZERO;
    for directive in words.flat_map(|value| value.split(',')).map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if ["no-cache", "no-store"].iter().any(|refusal| name.eq_ignore_ascii_case(refusal)) {
            return Duration::ZERO;
        }
        if name.eq_ignore_ascii_case("max-age") {
            age = Duration::from_secs(value.parse::<u32>().unwrap_or(0).into());
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::{convert::Infallible, sync::atomic::AtomicU32, sync::atomic::Ordering, thread};

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn who_takes_an_old_one_shares_it_and_who_does_not_has_a_new_one() {
        let recent = Recent::default();
        let made = AtomicU32::new(0);
        let make = || Ok::<_, Infallible>(made.fetch_add(1, Ordering::Relaxed) + 1);
        assert_eq!(recent.get(Duration::ZERO, make), Ok(1));
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| assert_eq!(recent.get(LONG, make), Ok(2)));
            }
        });
        assert_eq!(recent.get(Duration::ZERO, make), Ok(3));
        assert_eq!(recent.get(LONG, make), Ok(2));
    }

    #[test]
    fn what_cannot_be_made_is_not_kept() {
        let recent = Recent::default();
        assert_eq!(recent.get(LONG, || Err("no")), Err("no"));
        assert_eq!(recent.get(LONG, || Ok::<_, &str>(5)), Ok(5));
    }

    #[test]
    fn the_age_is_read_as_http_has_it() {
        for (value, seconds) in [
            ("max-age=1", 1),
            ("Max-Age=2, must-understand", 2),
            ("no-transform, max-age=3", 3),
            ("max-age=3, no-cache", 0),
            ("no-store", 0),
            ("max-age=", 0),
            ("max-age=-1", 0),
            ("max-age=99999999999999", 0),
            ("", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(max_age(&headers), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(max_age(&HeaderMap::new()), Duration::ZERO);
    }
}
