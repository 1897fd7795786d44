//! When to look at which volume, and what is ready to be done at Vault: each volume has one entry.

use super::plan::Task;
use std::collections::{BTreeSet, HashMap, HashSet};
use vaulttmpfs_api::VolumeId;

/// Entries by time, and tasks that are due by urgency.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeSet<(u64, VolumeId)>,
    places: HashMap<VolumeId, Place>,
    /// Due at Vault: renewals first, then by urgency, the most urgent first.
    ready: BTreeSet<(Task, u64, VolumeId)>,
    /// In a worker's hands: planned again when it comes back.
    in_hand: HashSet<VolumeId>,
}

#[derive(Clone, Copy)]
enum Place {
    Entry(u64, Option<Task>),
    Ready(Task, u64),
}

impl Agenda {
    /// Puts a volume's next look in place of what it had. Returns whether the first entry is new.
    pub(super) fn put(&mut self, id: VolumeId, at: u64, task: Option<Task>) -> bool {
        if self.in_hand.contains(&id) {
            return false;
        }
        self.remove(id);
        self.entries.insert((at, id));
        self.places.insert(id, Place::Entry(at, task));
        self.entries.first() == Some(&(at, id))
    }

    /// Takes a volume off the agenda.
    pub(super) fn remove(&mut self, id: VolumeId) {
        match self.places.remove(&id) {
            Some(Place::Entry(at, _)) => {
                self.entries.remove(&(at, id));
            }
            Some(Place::Ready(task, urgency)) => {
                self.ready.remove(&(task, urgency, id));
            }
            None => {}
        }
    }

    /// The time of the first entry.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes the next entry whose time has come.
    pub(super) fn take_due(&mut self, now: u64) -> Option<(VolumeId, Option<Task>)> {
        let &(at, id) = self.entries.first()?;
        if at > now {
            return None;
        }
        self.entries.remove(&(at, id));
        match self.places.remove(&id) {
            Some(Place::Entry(_, task)) => Some((id, task)),
            _ => Some((id, None)),
        }
    }

    /// Makes a task ready for a worker. The lower the number, the more urgent.
    pub(super) fn ready(&mut self, id: VolumeId, task: Task, urgency: u64) {
        self.remove(id);
        self.ready.insert((task, urgency, id));
        self.places.insert(id, Place::Ready(task, urgency));
    }

    /// Hands the most urgent task that `may` be done now to a worker.
    pub(super) fn take_ready(&mut self, may: impl Fn(Task) -> bool) -> Option<(VolumeId, Task)> {
        let &(task, urgency, id) = self.ready.iter().find(|(task, ..)| may(*task))?;
        self.ready.remove(&(task, urgency, id));
        self.places.remove(&id);
        self.in_hand.insert(id);
        Some((id, task))
    }

    /// A worker is done with a volume.
    pub(super) fn give_back(&mut self, id: VolumeId) {
        self.in_hand.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> VolumeId {
        VolumeId::from_bytes([byte; 16])
    }

    #[test]
    fn each_volume_has_one_entry() {
        let mut agenda = Agenda::default();
        assert!(agenda.put(id(1), 50, None));
        assert!(!agenda.put(id(2), 60, Some(Task::Renew)));
        assert!(agenda.put(id(2), 40, Some(Task::Renew)));
        assert_eq!(agenda.first(), Some(40));
        assert_eq!(agenda.take_due(39), None);
        assert_eq!(agenda.take_due(55), Some((id(2), Some(Task::Renew))));
        assert_eq!(agenda.take_due(55), Some((id(1), None)));
        assert_eq!(agenda.take_due(55), None);
    }

    #[test]
    fn the_most_urgent_renewal_goes_first() {
        let mut agenda = Agenda::default();
        agenda.ready(id(1), Task::Pay, 1);
        agenda.ready(id(2), Task::Renew, 30);
        agenda.ready(id(3), Task::Renew, 20);
        assert_eq!(agenda.take_ready(|_| true), Some((id(3), Task::Renew)));
        assert!(!agenda.put(id(3), 5, None), "a worker has it");
        assert_eq!(agenda.take_ready(|_| true), Some((id(2), Task::Renew)));
        assert_eq!(agenda.take_ready(|task| task != Task::Pay), None);
        agenda.give_back(id(3));
        assert!(agenda.put(id(3), 5, None));
        assert_eq!(agenda.take_ready(|_| true), Some((id(1), Task::Pay)));
    }
}
