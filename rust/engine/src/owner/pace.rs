//! How many rows of prompts a step may hold, from how long steps have taken.

use std::time::Duration;

/// The least rows of a step, however slow the machine is.
const MIN_ROWS: usize = 16;

/// How long a step may take when nobody waits for a next token: a cancelled request frees its blocks
/// one step later at most, and is to do so within a quarter of a second.
const ALONE: Duration = Duration::from_millis(100);

/// How long a step may take when others wait for a next token, in steps of theirs alone.
const SLOWDOWN: f64 = 2.0;

/// An estimate of what rows cost.
///
/// The count of rows has no influence on any result, so that it may follow the clock.
#[derive(Debug)]
pub(super) struct Pace {
    max_rows: usize,
    /// Seconds of a step in which everybody decodes.
    decode_step: Option<f64>,
    /// Seconds that a row of a prompt adds.
    row: Option<f64>,
}

impl Pace {
    pub(super) fn new(max_rows: usize) -> Self {
        Self { max_rows, decode_step: None, row: None }
    }

    /// Rows of prompts for the next step, beside `num_decoding` sequences that wait for a token.
    pub(super) fn prefill_rows(&self, num_decoding: usize) -> usize {
        let Some(row) = self.row else { return self.max_rows.min(2 * MIN_ROWS) };
        let limit = ALONE.as_secs_f64();
        let seconds = match self.decode_step {
            Some(step) if num_decoding > 0 => ((SLOWDOWN - 1.0) * step).min(limit - step),
            _ => limit,
        };
        // whole multiples keep the shapes of products few
        let rows = (seconds.max(0.0) / row.max(1e-9)) as usize / MIN_ROWS * MIN_ROWS;
        rows.clamp(MIN_ROWS, self.max_rows.max(MIN_ROWS))
    }

    /// Notes a step of `num_decodes` single rows and `num_rows` rows of prompts.
    pub(super) fn note(&mut self, num_decodes: usize, num_rows: usize, took: Duration) {
        let took = took.as_secs_f64();
        let ease = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| 0.5 * (old + new)));
        if num_rows == 0 {
            self.decode_step = ease(self.decode_step, took);
            return;
        }
        let shared = if num_decodes > 0 { self.decode_step.unwrap_or(0.0) } else { 0.0 };
        let row = (took - shared).max(0.1 * took) / num_rows as f64;
        // one step held up by something else must not count for more than it says
        self.row = ease(self.row, self.row.map_or(row, |old| row.min(4.0 * old)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_short_steps_and_a_fast_one_long_ones() {
        let mut pace = Pace::new(512);
        assert_eq!(pace.prefill_rows(0), 32);
        for _ in 0..50 {
            let rows = pace.prefill_rows(0);
            pace.note(0, rows, Duration::from_micros(200 * rows as u64));
        }
        assert_eq!(pace.prefill_rows(0), 496);
        for _ in 0..50 {
            let rows = pace.prefill_rows(0);
            pace.note(0, rows, Duration::from_millis(20 * rows as u64));
        }
        assert_eq!(pace.prefill_rows(0), MIN_ROWS);
    }

    #[test]
    fn those_who_wait_for_a_token_wait_two_steps_at_most() {
        let mut pace = Pace::new(512);
        pace.note(4, 0, Duration::from_millis(10));
        pace.note(0, 100, Duration::from_millis(20));
        assert_eq!(pace.prefill_rows(4), 48);
        assert_eq!(pace.prefill_rows(0), 496);
    }

    #[test]
    fn a_step_that_is_long_by_itself_still_takes_some_rows() {
        let mut pace = Pace::new(512);
        pace.note(4, 0, Duration::from_secs(1));
        pace.note(4, 16, Duration::from_secs(2));
        assert_eq!(pace.prefill_rows(4), MIN_ROWS);
    }
}
