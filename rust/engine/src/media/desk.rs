//! Where items are encoded: one thread beside the engine's, and a memory of what it made.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use alloyforge_interfaces::Encoder;
use alloyforge_types::{Error, MediaItem, MediaRows, Result};

use crate::owner::message;

/// Bytes of rows that are kept.
const MAX_KEPT: usize = 256 << 20;

/// What is done with the rows of a prompt's items.
type Then = Box<dyn FnOnce(Result<Vec<MediaRows>>) + Send>;

/// Items that wait, and what for.
struct Task {
    items: Vec<Arc<MediaItem>>,
    then: Then,
}

/// Encodes items one after another, each once for as long as its rows are kept. Dropping it lets what
/// waits be finished.
pub(crate) struct Desk {
    tasks: Sender<Task>,
    kept: Arc<Mutex<Kept>>,
}

impl Desk {
    /// # Errors
    /// `Internal` where no thread can be started.
    pub(crate) fn start(encoder: Arc<dyn Encoder>) -> Result<Self> {
        let (tasks, received) = channel::<Task>();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let own = Arc::clone(&kept);
        let serve = move || {
            for task in received {
                let rows = task.items.iter().map(|item| encode(&*encoder, &own, item)).collect();
                // a caller's waker may panic, and this thread serves the others too
                let _ = catch_unwind(AssertUnwindSafe(|| (task.then)(rows)));
            }
        };
        thread::Builder::new()
            .name("alloyforge-media".into())
            .spawn(serve)
            .map_err(|e| Error::internal(format!("no thread for media: {e}")))?;
        Ok(Self { tasks, kept })
    }

    /// Calls `then` with the rows of `items`: at once where all are known, else from the desk's thread.
    pub(crate) fn encode(&self, items: &[Arc<MediaItem>], then: Then) {
        let known: Option<Vec<MediaRows>> = {
            let mut kept = lock(&self.kept);
            items.iter().map(|item| kept.get(item.hash)).collect()
        };
        match known {
            Some(rows) => then(Ok(rows)),
            None => {
                let task = Task { items: items.to_vec(), then };
                if let Err(lost) = self.tasks.send(task) {
                    (lost.0.then)(Err(Error::Closed));
                }
            }
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    // every change leaves it whole
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(encoder: &dyn Encoder, kept: &Mutex<Kept>, item: &MediaItem) -> Result<MediaRows> {
    if let Some(rows) = lock(kept).get(item.hash) {
        return Ok(rows);
    }
    let made = catch_unwind(AssertUnwindSafe(|| encoder.encode(item)));
    let rows = made.unwrap_or_else(|panic| Err(Error::internal(message(&*panic))))?;
    lock(kept).put(item.hash, rows.clone());
    Ok(rows)
}

/// Rows by their item's hash; those not asked for the longest go first.
#[derive(Default)]
struct Kept {
    rows: HashMap<u128, (MediaRows, u64)>,
    bytes: usize,
    now: u64,
}

impl Kept {
    fn get(&mut self, hash: u128) -> Option<MediaRows> {
        self.now += 1;
        let (rows, used) = self.rows.get_mut(&hash)?;
        *used = self.now;
        Some(rows.clone())
    }

    fn put(&mut self, hash: u128, rows: MediaRows) {
        if rows.bytes() > MAX_KEPT {
            return;
        }
        self.now += 1;
        self.bytes += rows.bytes();
        if let Some((old, _)) = self.rows.insert(hash, (rows, self.now)) {
            self.bytes -= old.bytes();
        }
        while self.bytes > MAX_KEPT {
            let oldest = self.rows.iter().min_by_key(|(_, (_, used))| *used).map(|(hash, _)| *hash);
            let Some((old, _)) = oldest.and_then(|hash| self.rows.remove(&hash)) else { break };
            self.bytes -= old.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_rows_make_room() {
        let rows =
            |bytes: usize| MediaRows { width: 1, rows: vec![0.0; bytes / 4].into(), deeper: Vec::new() };
        let mut kept = Kept::default();
        kept.put(1, rows(MAX_KEPT / 2));
        kept.put(2, rows(MAX_KEPT / 4));
        assert!(kept.get(1).is_some());
        kept.put(3, rows(MAX_KEPT / 2));
        assert!(kept.get(1).is_some() && kept.get(2).is_none() && kept.get(3).is_some());
        kept.put(4, rows(MAX_KEPT + 4));
        assert!(kept.get(4).is_none());
        assert_eq!(kept.bytes, MAX_KEPT);
    }
}
