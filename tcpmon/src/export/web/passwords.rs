//! Passwords, by their bcrypt hashes.
//!
//! bcrypt takes a twentieth of a second or more on purpose. A scraper shows the same password every
//! few seconds, so what was right once is remembered, as a keyed digest that is of no use outside
//! this process. What was wrong costs the same again, but one at a time, and with a pause, so that
//! guessing takes no more than a fraction of one CPU.

use super::credentials::credentials;
use crate::export::seats::Seats;
use ring::{hmac, rand};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// A higher cost would take half a minute for one look.
const MAX_COST: u32 = 16;
/// How much longer than the look itself nobody else is looked at after a wrong password.
const PAUSE: u32 = 4;
/// How long somebody waits for a turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many wait for a turn at most.
const QUEUE: usize = 16;
/// Of these from one host.
const OF_ONE_HOST: usize = 4;

/// What came of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right.
    Right,
    /// It is not, or there was none.
    Wrong,
    /// Too many wrong ones come; this one was not looked at.
    Busy,
}

/// Users and their hashes.
#[derive(Clone, Debug)]
pub(super) struct Passwords(Arc<Inner>);

struct Inner {
    users: BTreeMap<String, String>,
    /// What a user that does not exist is held against, so that it takes as long as one that does.
    nobody: String,
    key: hmac::Key,
    /// Of each user the digest of the password that was right.
    right: Mutex<HashMap<String, hmac::Tag>>,
    turn: Semaphore,
    queue: Seats,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Default for Passwords {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
        Self(Arc::new(Inner::new(BTreeMap::new(), String::new(), key)))
    }
}

impl Inner {
    fn new(users: BTreeMap<String, String>, nobody: String, key: hmac::Key) -> Self {
        Self {
            users,
            nobody,
            key,
            right: Mutex::default(),
            turn: Semaphore::new(1),
            queue: Seats::new(QUEUE, OF_ONE_HOST),
        }
    }
}

impl Passwords {
    /// Checks the hashes, but not against any password.
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self, String> {
        let mut highest = None;
        for (user, hash) in &users {
            // RFC 7617, 2: what stands before the first colon is the name.
            if user.is_empty() || user.contains(|letter: char| letter == ':' || letter.is_control())
            {
                return Err(format!("{user:?} in basic_auth_users cannot be a user's name"));
            }
            let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
                format!(
                    "the password of {user:?} in basic_auth_users is no bcrypt hash; \
                     `htpasswd -nB {user}` makes one"
                )
            })?;
            if parts.get_cost() > MAX_COST {
                return Err(format!(
                    "the password of {user:?} in basic_auth_users has a bcrypt cost above {MAX_COST}"
                ));
            }
            highest = highest.max(Some((parts.get_cost(), hash)));
        }
        let Some((_, hash)) = highest else { return Ok(Self::default()) };
        let nobody = hash.clone();
        let key: [u8; 32] = rand::generate(&rand::SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?
            .expose();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self(Arc::new(Inner::new(users, nobody, key))))
    }

    /// These in place of `before`, whose right passwords stay known: a digest is of the hash too, so
    /// that none outlives a change of it. Else a change of the file would have every scraper stand
    /// in line with those who guess.
    pub(super) fn in_place_of(self, before: &Self) -> Self {
        if self.is_empty() || before.is_empty() {
            return self;
        }
        let right = before.0.right.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inner = Inner::new(self.0.users.clone(), self.0.nobody.clone(), before.0.key.clone());
        Self(Arc::new(Inner { right: Mutex::new(right), ..inner }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.users.is_empty()
    }

    /// Looks at the value of an Authorization header (RFC 7617).
    pub(super) async fn check(
        &self,
        authorization: Option<&[u8]>,
        from: Option<IpAddr>,
    ) -> Verdict {
        let Some((user, password)) = authorization.and_then(credentials) else {
            return Verdict::Wrong;
        };
        if self.was_right(&user, &password) {
            return Verdict::Right;
        }
        let Some(seat) = self.0.queue.try_take(from) else { return Verdict::Busy };
        let inner = Arc::clone(&self.0);
        let work = async move {
            // Kept until the work is over, whoever has hung up by then.
            let _seat = seat;
            let turn = tokio::time::timeout(PATIENCE, inner.turn.acquire()).await;
            let Ok(Ok(_turn)) = turn else { return Verdict::Busy };
            // Somebody else with the same password may have been looked at meanwhile.
            let this = Self(Arc::clone(&inner));
            if this.was_right(&user, &password) {
                return Verdict::Right;
            }
            let began = Instant::now();
            let looked = tokio::task::spawn_blocking(move || this.look(&user, &password)).await;
            if looked.is_ok_and(|right| right) {
                return Verdict::Right;
            }
            tokio::time::sleep(began.elapsed() * PAUSE).await;
            Verdict::Wrong
        };
        // On a task of its own: who hangs up must not cut the pause short.
        tokio::spawn(work).await.unwrap_or(Verdict::Busy)
    }

    fn was_right(&self, user: &str, password: &[u8]) -> bool {
        let Some(hash) = self.0.users.get(user) else { return false };
        let right = self.0.right.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tag) = right.get(user) else { return false };
        hmac::verify(&self.0.key, &message(hash, password), tag.as_ref()).is_ok()
    }

    /// Takes as long as bcrypt does.
    fn look(&self, user: &str, password: &[u8]) -> bool {
        let hash = self.0.users.get(user);
        let right = bcrypt::verify(password, hash.unwrap_or(&self.0.nobody)).unwrap_or(false);
        let Some(hash) = hash.filter(|_| right) else { return false };
        let tag = hmac::sign(&self.0.key, &message(hash, password));
        self.0.right.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), tag);
        true
    }
}

fn message(hash: &str, password: &[u8]) -> Vec<u8> {
    [hash.as_bytes(), b"\0", password].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    fn basic(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    fn users(list: &[(&str, &str)]) -> Result<Passwords, String> {
        Passwords::new(
            list.iter().map(|(name, hash)| (str::to_owned(name), str::to_owned(hash))).collect(),
        )
    }

    #[test]
    fn hashes_are_checked_beforehand() {
        let hash = bcrypt::hash("secret", 4).expect("a hash");
        assert!(users(&[("prometheus", &hash)]).is_ok());
        assert!(users(&[("prometheus", &hash.replacen("$2b$", "$2y$", 1))]).is_ok(), "htpasswd's");
        for (name, hash, word) in [
            ("prometheus", "secret", "no bcrypt hash"),
            ("prometheus", "", "no bcrypt hash"),
            ("a:b", &hash, "user's name"),
            ("", &hash, "user's name"),
            ("prometheus", &hash.replacen("$04$", "$17$", 1), "cost above 16"),
        ] {
            let error = users(&[(name, hash)]).expect_err(name);
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
            assert!(!error.contains("$2b$"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_was_right_is_not_hashed_again() {
        // About a quarter of a second each, unoptimised more.
        let hash = bcrypt::hash("secret", 10).expect("a hash");
        let passwords = users(&[("prometheus", &hash)]).expect("users");
        let began = Instant::now();
        assert_eq!(passwords.check(Some(&basic("prometheus:secret")), None).await, Verdict::Right);
        let once = began.elapsed();
        let began = Instant::now();
        for _ in 0..1000 {
            assert_eq!(
                passwords.check(Some(&basic("prometheus:secret")), None).await,
                Verdict::Right
            );
        }
        assert!(
            began.elapsed() < once * 10,
            "{:?} for a thousand, {once:?} for one",
            began.elapsed()
        );
        // A right user's memory does not help with another password, nor another user.
        for wrong in ["prometheus:Secret", "prometheus:", "nobody:secret"] {
            assert_eq!(passwords.check(Some(&basic(wrong)), None).await, Verdict::Wrong, "{wrong}");
        }
        assert_eq!(passwords.check(None, None).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn guessing_waits_and_the_scraper_does_not() {
        let hash = bcrypt::hash("secret", 8).expect("a hash");
        let passwords = users(&[("prometheus", &hash)]).expect("users");
        assert_eq!(passwords.check(Some(&basic("prometheus:secret")), None).await, Verdict::Right);
        let guesses: Vec<_> = (0..QUEUE * 4)
            .map(|guess| {
                let passwords = passwords.clone();
                let value = basic(&format!("prometheus:{guess}"));
                tokio::spawn(async move { passwords.check(Some(&value), None).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        assert_eq!(passwords.check(Some(&basic("prometheus:secret")), None).await, Verdict::Right);
        assert!(began.elapsed() < Duration::from_secs(1));
        let mut verdicts = HashMap::new();
        for guess in guesses {
            *verdicts.entry(format!("{:?}", guess.await.expect("a verdict"))).or_insert(0) += 1;
        }
        assert!(verdicts["Busy"] >= QUEUE * 3 && !verdicts.contains_key("Right"), "{verdicts:?}");
    }

    #[tokio::test]
    async fn who_guesses_from_one_host_keeps_no_other_out() {
        let hash = bcrypt::hash("secret", 8).expect("a hash");
        let passwords = users(&[("prometheus", &hash)]).expect("users");
        let host = |last| Some(IpAddr::from([192, 0, 2, last]));
        let guesses: Vec<_> = (0..QUEUE)
            .map(|guess| {
                let passwords = passwords.clone();
                let value = basic(&format!("prometheus:{guess}"));
                tokio::spawn(async move { passwords.check(Some(&value), host(1)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let scraper = passwords.check(Some(&basic("prometheus:secret")), host(2)).await;
        assert_eq!(scraper, Verdict::Right, "though it was not known before");
        for guess in guesses {
            assert_ne!(guess.await.expect("a verdict"), Verdict::Right);
        }
    }

    #[tokio::test]
    async fn who_hangs_up_keeps_its_place_until_its_guess_was_looked_at() {
        let hash = bcrypt::hash("secret", 8).expect("a hash");
        let passwords = users(&[("prometheus", &hash)]).expect("users");
        let host = Some(IpAddr::from([192, 0, 2, 1]));
        for guess in 0..OF_ONE_HOST {
            let passwords = passwords.clone();
            let value = basic(&format!("prometheus:{guess}"));
            let guessing = tokio::spawn(async move { passwords.check(Some(&value), host).await });
            tokio::task::yield_now().await;
            guessing.abort();
            assert!(guessing.await.expect_err("aborted").is_cancelled());
        }
        let one_more = passwords.check(Some(&basic("prometheus:once more")), host).await;
        assert_eq!(one_more, Verdict::Busy);
    }

    #[tokio::test]
    async fn what_was_right_is_still_known_after_a_reload_unless_it_was_changed() {
        let [one, other] = ["secret", "terces"].map(|it| bcrypt::hash(it, 4).expect("a hash"));
        let before = users(&[("prometheus", &one), ("ops", &one)]).expect("users");
        for user in ["prometheus", "ops"] {
            let value = basic(&format!("{user}:secret"));
            assert_eq!(before.check(Some(&value), None).await, Verdict::Right);
        }
        let after = users(&[("prometheus", &one), ("ops", &other)]).expect("users");
        let after = after.in_place_of(&before);
        assert!(after.was_right("prometheus", b"secret"));
        assert!(!after.was_right("ops", b"secret") && !after.was_right("ops", b"terces"));
        assert_eq!(after.check(Some(&basic("ops:secret")), None).await, Verdict::Wrong);
        assert_eq!(after.check(Some(&basic("ops:terces")), None).await, Verdict::Right);
        // Of nobody nothing is known, and nobody's key is no secret.
        assert!(!Passwords::default().in_place_of(&after).was_right("prometheus", b"secret"));
        let first = users(&[("prometheus", &one)]).expect("users");
        assert!(!first.in_place_of(&Passwords::default()).was_right("prometheus", b"secret"));
    }
}
