//! How many connections there are at once. When all places are taken, one goes that has no work in
//! progress: a mount never does, a silent crowd does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::Notify;

/// The most connections at once.
pub(super) const MOST: usize = 1024;

/// Of these, what callers other than root may have: they can only look.
const OTHERS: usize = 32;

/// The connections' places, root's apart from all others'.
pub(super) struct Places {
    root: Room,
    others: Room,
}

/// Places for one kind of callers.
pub(super) struct Room {
    size: usize,
    taken: Mutex<VecDeque<Weak<Seat>>>,
}

/// One connection's place, free again when dropped.
pub(super) struct Seat {
    /// Things in progress that must not be cut off.
    busy: AtomicUsize,
    /// When it last asked something, if it ever did.
    asked: Mutex<Option<Instant>>,
    /// Another needs the place.
    pub(super) give_way: Notify,
}

/// Something in progress: while it lives, the connection keeps its place.
pub(super) struct Busy(Arc<Seat>);

impl Places {
    pub(super) fn new(most: usize) -> Self {
        let others = OTHERS.min(most / 4);
        Self {
            root: Room::new(most - others),
            others: Room::new(others.max(1)),
        }
    }

    /// A place, at the cost of a silent connection where none is left; nothing where all have work in
    /// progress.
    pub(super) fn take(&self, root: bool) -> Option<Arc<Seat>> {
        if root { &self.root } else { &self.others }.take()
    }
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            taken: Mutex::default(),
        }
    }

    pub(super) fn take(&self) -> Option<Arc<Seat>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= self.size {
            taken.retain(|seat| seat.strong_count() > 0);
        }
        if taken.len() >= self.size {
            let silent = first_to_go(&taken)?;
            if let Some(seat) = taken.remove(silent).and_then(|seat| seat.upgrade()) {
                seat.give_way.notify_one();
            }
        }
        let seat = Arc::new(Seat {
            busy: AtomicUsize::new(0),
            asked: Mutex::default(),
            give_way: Notify::new(),
        });
        taken.push_back(Arc::downgrade(&seat));
        Some(seat)
    }
}

/// Which gives way, of those that have nothing in progress: the oldest that never asked. But at most half of
/// the places are safe by having asked: beyond that it is the one that asked longest ago, so that some are
/// left for whoever is new.
fn first_to_go(taken: &VecDeque<Weak<Seat>>) -> Option<usize> {
    let seats: Vec<_> = taken.iter().map(Weak::upgrade).collect();
    let asked = |seat: &Arc<Seat>| seat.asked();
    let many = seats.iter().flatten().filter_map(asked).count() > taken.len() / 2;
    let idle = seats.iter().enumerate().filter(|(_, seat)| {
        let busy = seat.as_ref().is_some_and(|seat| seat.is_busy());
        !busy
    });
    let first = idle.min_by_key(|(_, seat)| {
        seat.as_ref().map(|seat| {
            let asked = seat.asked();
            (asked.is_none() == many, asked)
        })
    });
    first.map(|(place, _)| place)
}

impl Seat {
    /// Whoever has it asks something.
    pub(super) fn asks(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn asked(&self) -> Option<Instant> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn must_go(seat: &Seat) -> bool {
        let mut notified = Box::pin(seat.give_way.notified());
        let waker = std::task::Waker::noop();
        notified
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker))
            .is_ready()
    }

    #[test]
    fn the_longest_silent_gives_way() {
        let places = Places::new(4);
        let seats: Vec<_> = (0..3).map(|_| places.take(true).unwrap()).collect();
        let working = seats[0].busy();
        let late = places.take(true).unwrap();
        assert!(!must_go(&seats[0]), "it has work in progress");
        assert!(must_go(&seats[1]));
        drop(late);
        let work: Vec<_> = [&seats[2], &places.take(true).unwrap()]
            .map(|seat| (Arc::clone(seat), seat.busy()))
            .into();
        assert!(places.take(true).is_none(), "all have work in progress");
        drop((work, working));
        assert!(!must_go(&seats[2]));
    }

    #[test]
    fn who_never_asked_gives_way_to_a_crowd_before_who_did() {
        let room = Room::new(4);
        let seats: Vec<_> = (0..4).map(|_| room.take().unwrap()).collect();
        seats[0].asks();
        seats[1].asks();
        let crowd: Vec<_> = (0..10).map(|_| room.take().unwrap()).collect();
        assert!(!must_go(&seats[0]));
        assert!(!must_go(&seats[1]));
        assert!(must_go(&seats[2]));
        assert!(must_go(&crowd[0]));
        assert!(!must_go(&crowd[9]));
    }

    #[test]
    fn a_crowd_that_asked_once_leaves_room_for_who_is_new() {
        let room = Room::new(4);
        let crowd: Vec<_> = (0..3).map(|_| room.take().unwrap()).collect();
        for seat in &crowd {
            seat.asks();
        }
        let new = room.take().unwrap();
        crowd[0].asks();
        let newer = room.take().unwrap();
        assert!(!must_go(&new));
        assert!(!must_go(&crowd[0]), "it asked last");
        assert!(must_go(&crowd[1]));
        // Half have asked: they keep their places.
        let _newest = room.take().unwrap();
        assert!(must_go(&new));
        assert!(!must_go(&newer));
        assert!(!must_go(&crowd[2]));
    }

    #[test]
    fn others_take_nothing_from_root() {
        let places = Places::new(8);
        let mine = places.take(true).unwrap();
        let others: Vec<_> = (0..100).map(|_| places.take(false).unwrap()).collect();
        assert!(!must_go(&mine));
        assert!(must_go(&others[0]));
        assert!(!must_go(&others[99]));
    }
}
