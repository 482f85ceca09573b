//! Whether anyone still uses the server, which ends by itself when nobody does: its clients never stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests and operations under way, and when the last one ended.
pub struct Activity {
    started: Instant,
    pending: AtomicU64,
    last_end_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity { started: Instant::now(), pending: AtomicU64::new(0), last_end_ms: AtomicU64::new(0) }
    }
}

impl Activity {
    /// Counts as busy until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.pending.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
    }

    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::SeqCst)
    }

    /// How long nothing has been under way.
    pub fn idle_for(&self) -> Duration {
        if self.pending() > 0 {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_end_ms.load(Ordering::SeqCst)))
    }
}

/// Something under way.
pub struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let elapsed_ms = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_end_ms.store(elapsed_ms, Ordering::SeqCst);
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_counts_from_the_last_end() {
        let activity = Arc::new(Activity::default());
        std::thread::sleep(Duration::from_millis(20));
        assert!(activity.idle_for() >= Duration::from_millis(20));
        let (first, second) = (activity.begin(), activity.begin());
        drop(first);
        assert_eq!((activity.pending(), activity.idle_for()), (1, Duration::ZERO));
        drop(second);
        assert_eq!(activity.pending(), 0);
        assert!(activity.idle_for() < Duration::from_millis(20));
    }
}
