//! How many connections there may be, in all and from one host.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of one listener at a time; more wait in the kernel's queue.
const ALL: usize = 256;
/// Of these from one host, so that it takes several to keep everybody else out.
const OF_ONE_HOST: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Seats {
    room: Arc<Semaphore>,
    hosts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among those that are served; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    of: Option<IpAddr>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(ALL)), hosts: Arc::default() }
    }
}

impl Seats {
    /// Waits for a seat.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes the room.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Gives the seat to a connection from there; `None` if it has more than its share already.
    pub(super) fn belongs(
        &self,
        seat: Option<OwnedSemaphorePermit>,
        from: Option<IpAddr>,
    ) -> Option<Seat> {
        if let Some(host) = from {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hosts.entry(host).or_insert(0);
            if *count >= OF_ONE_HOST {
                return None;
            }
            *count += 1;
        }
        Some(Seat { seats: self.clone(), of: from, _permit: seat })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(host) = self.of else { return };
        let mut hosts = self.seats.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = hosts.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_host_does_not_take_all() {
        let seats = Seats::default();
        let host = |last| Some(IpAddr::from([192, 0, 2, last]));
        let mut taken = Vec::new();
        for _ in 0..OF_ONE_HOST {
            let seat = seats.take().await;
            taken.push(seats.belongs(seat, host(1)).expect("a seat"));
        }
        let seat = seats.take().await;
        assert!(seats.belongs(seat, host(1)).is_none());
        let seat = seats.take().await;
        let other = seats.belongs(seat, host(2)).expect("a seat for another");
        taken.pop();
        let seat = seats.take().await;
        taken.push(seats.belongs(seat, host(1)).expect("one has left"));
        drop((taken, other));
        assert_eq!(seats.room.available_permits(), ALL);
        assert!(seats.hosts.lock().expect("unpoisoned").is_empty());
    }
}
