//! When a failed call is tried again.

use std::time::Duration;

/// What a second execution of a call would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Nothing that the first did not.
    Idempotent,
    /// Something more: an inference paid twice, a second step back. Tried again only if the first surely was not
    /// executed.
    Once,
}

/// Attempts and pauses between them: each pause is twice the one before.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    pub first_delay: Duration,
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Rides out about half a minute.
    fn default() -> Self {
        Self { attempts: 8, first_delay: Duration::from_millis(300), max_delay: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    /// The pause after the `attempts_made`th attempt failed transiently; `None` to give up.
    pub fn delay_after(&self, attempts_made: u32, safety: Safety, maybe_executed: bool) -> Option<Duration> {
        if attempts_made >= self.attempts || (maybe_executed && safety == Safety::Once) {
            return None;
        }
        Some(self.doubled(attempts_made.saturating_sub(1)))
    }

    /// The pause before looking again at something that goes on by itself, at most two seconds.
    pub fn poll_delay(&self, polls_done: u32) -> Duration {
        self.doubled(polls_done).min(Duration::from_secs(2))
    }

    fn doubled(&self, times: u32) -> Duration {
        self.first_delay.saturating_mul(2u32.saturating_pow(times)).min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_largest_and_end() {
        let policy =
            RetryPolicy { attempts: 5, first_delay: Duration::from_secs(1), max_delay: Duration::from_secs(3) };
        let pauses: Vec<_> =
            (1..=5).map(|n| policy.delay_after(n, Safety::Idempotent, true).map(|d| d.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(3), Some(3), None]);
        assert_eq!(policy.poll_delay(u32::MAX), Duration::from_secs(2));
    }

    #[test]
    fn what_may_have_been_executed_is_repeated_only_if_harmless() {
        let policy = RetryPolicy::default();
        assert!(policy.delay_after(1, Safety::Once, false).is_some());
        assert!(policy.delay_after(1, Safety::Once, true).is_none());
        assert!(policy.delay_after(1, Safety::Idempotent, true).is_some());
    }
}
