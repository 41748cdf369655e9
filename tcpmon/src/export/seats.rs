//! How many may be served at a time, in all and of one host, so that it takes several hosts to keep
//! everybody else out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places among those that are served.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    room: Arc<Semaphore>,
    of_one_host: usize,
    hosts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place among those that are served; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    of: Option<IpAddr>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seats {
    /// So many in all, and of one host.
    pub(super) fn new(all: usize, of_one_host: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(all)), of_one_host, hosts: Arc::default() }
    }

    /// A seat for somebody from there, if there is one now.
    pub(super) fn try_take(&self, from: Option<IpAddr>) -> Option<Seat> {
        let seat = Arc::clone(&self.room).try_acquire_owned().ok()?;
        self.belongs(Some(seat), from)
    }

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
            if *count >= self.of_one_host {
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
        let seats = Seats::new(8, 3);
        let host = |last| Some(IpAddr::from([192, 0, 2, last]));
        let mut taken = Vec::new();
        for _ in 0..3 {
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
        assert!(seats.try_take(host(1)).is_none(), "three again");
        let more: Vec<_> = (3..7).map(|last| seats.try_take(host(last))).collect();
        assert!(more.iter().all(Option::is_some) && seats.try_take(host(8)).is_none(), "all taken");
        drop((taken, other, more));
        assert_eq!(seats.room.available_permits(), 8);
        assert!(seats.hosts.lock().expect("unpoisoned").is_empty());
    }
}
