//! Whether guesses pay: what they bring against what their rows cost, as both were seen.
//!
//! Nothing here has an influence on any token, so that it may follow the clock.

use super::MOST_GUESSES;

/// Steps after which a cost that was seen no longer counts.
const FORGOTTEN_AFTER: u64 = 400;

/// What a row is taken to add to a step as long as no step with more rows was seen, as a share of the
/// step. Little, so that more rows are tried.
const UNSEEN_ROW: f64 = 0.08;

/// Steps of which the quickest counts, before a mean does.
const FIRST: u32 = 3;

/// How much faster a step with guesses must promise to be.
const WORTH_IT: f64 = 1.05;

/// Rows up to which costs are noted.
const MOST_ROWS: usize = 160;

/// Steps with guesses in a row, after which one goes without, so that what it takes is known from now and
/// not from a moment in which the machine was busy with something else.
const CHECKED_AFTER: u32 = 32;

/// What was seen of steps of some rows.
#[derive(Debug, Clone, Copy)]
struct Seen {
    seconds: f64,
    /// How many steps it is from, as far as that matters.
    count: u32,
    /// The last of them.
    at: u64,
}

/// Seconds that steps without prompts took, by their rows.
#[derive(Debug)]
pub(crate) struct StepCosts {
    seen: Vec<Option<Seen>>,
    num_steps: u64,
    /// Steps with guesses since the last one without.
    since_plain: u32,
}

impl Default for StepCosts {
    fn default() -> Self {
        Self { seen: vec![None; MOST_ROWS + 1], num_steps: 0, since_plain: 0 }
    }
}

impl StepCosts {
    /// Notes a step of `rows` rows, of which `num_guesses` were guesses, that took `seconds`.
    pub(crate) fn note(&mut self, rows: usize, num_guesses: usize, seconds: f64) {
        self.num_steps += 1;
        self.since_plain = if num_guesses > 0 { self.since_plain + 1 } else { 0 };
        let at = self.num_steps;
        // a step that something else held up must not count for more than it says: the first ones, among
        // them those in which caches are cold, as the quickest of them
        let seen = match self.seen.get(rows).copied().flatten().filter(|s| self.is_recent(s)) {
            Some(Seen { seconds: old, count, .. }) if count < FIRST => {
                Seen { seconds: seconds.min(old), count: count + 1, at }
            }
            // and no step is much quicker than it can be
            Some(Seen { seconds: old, count, .. }) if seconds < 0.7 * old => Seen { seconds, count, at },
            Some(Seen { seconds: old, count, .. }) => {
                Seen { seconds: 0.75 * old + 0.25 * seconds.min(1.5 * old), count, at }
            }
            None => {
                let expected = self.estimate(rows).unwrap_or(f64::INFINITY);
                Seen { seconds: seconds.min(2.0 * expected), count: 1, at }
            }
        };
        if let Some(place) = self.seen.get_mut(rows) {
            *place = Some(seen);
        }
    }

    /// What a step of `rows` rows takes without guesses; `None` where it is to be seen, or seen again.
    fn plain(&self, rows: usize) -> Option<f64> {
        let seen = self.seen.get(rows).copied().flatten().filter(|s| self.is_recent(s))?;
        (seen.count >= FIRST && self.since_plain < CHECKED_AFTER).then_some(seen.seconds)
    }

    fn is_recent(&self, seen: &Seen) -> bool {
        self.num_steps - seen.at < FORGOTTEN_AFTER
    }

    fn known(&self, rows: usize) -> Option<f64> {
        let seen = self.seen.get(rows).copied().flatten()?;
        self.is_recent(&seen).then_some(seen.seconds)
    }

    /// What a step of `rows` rows takes: as seen, or between its neighbours that were seen, or by the
    /// slope of the two below. `None` where no step of fewer rows was seen.
    pub(crate) fn estimate(&self, rows: usize) -> Option<f64> {
        if let Some(seconds) = self.known(rows) {
            return Some(seconds);
        }
        let below = |from: usize| (1..from.min(MOST_ROWS + 1)).rev().find_map(|r| Some((r, self.known(r)?)));
        let (low_rows, low) = below(rows)?;
        let above = (rows + 1..=MOST_ROWS).find_map(|r| Some((r, self.known(r)?)));
        let slope = match (above, below(low_rows)) {
            (Some((r, seconds)), _) => (seconds - low) / (r - low_rows) as f64,
            (None, Some((r, seconds))) => (low - seconds) / (low_rows - r) as f64,
            (None, None) => UNSEEN_ROW * low,
        };
        Some(low + slope.max(0.0) * (rows - low_rows) as f64)
    }
}

/// How often guesses of one kind were right, of late.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HitRate {
    hits: f64,
    tries: f64,
}

impl HitRate {
    /// As if `share` of a few guesses had been right.
    pub(crate) fn expecting(share: f64) -> Self {
        Self { hits: 2.0 * share, tries: 2.0 }
    }

    /// Notes a guess that was checked.
    pub(crate) fn note(&mut self, is_right: bool) {
        self.hits = 0.9 * self.hits + f64::from(u8::from(is_right));
        self.tries = 0.9 * self.tries + 1.0;
    }

    /// The chance that the next one is right.
    pub(crate) fn chance(self) -> f64 {
        (self.hits / self.tries).clamp(0.0, 0.99)
    }
}

/// How many guesses each of `candidates` (the chance that one of its guesses is right, and how many it
/// has) is to have in a step where `num_rows` rows are computed in any case, at most `most` together:
/// those with which the step brings the most tokens a second.
pub(crate) fn choose(
    costs: &StepCosts,
    num_rows: usize,
    candidates: &[(f64, usize)],
    most: usize,
) -> Vec<usize> {
    let mut chosen = vec![0; candidates.len()];
    let Some(alone) = costs.plain(num_rows) else { return chosen };
    // what each further guess adds: it counts where it and all before it are right
    let mut gains: Vec<(f64, usize)> = Vec::new();
    for (i, &(chance, len)) in candidates.iter().enumerate() {
        let powers = (1..=len.min(MOST_GUESSES)).map(|n| (chance.powi(n as i32), i));
        gains.extend(powers);
    }
    gains.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut tokens = num_rows as f64;
    let mut best = (WORTH_IT * tokens / alone, 0);
    for (n, (gain, _)) in gains.iter().take(most).enumerate() {
        tokens += gain;
        let Some(cost) = costs.estimate(num_rows + n + 1) else { break };
        // more rows never cost less, whatever the clock said
        let rate = tokens / cost.max(alone);
        if rate > best.0 {
            best = (rate, n + 1);
        }
    }
    // a candidate's gains fall with each guess, so that those taken are its first ones
    for &(_, i) in &gains[..best.1] {
        chosen[i] += 1;
    }
    chosen
}

/// How many guesses each of some sequences is to have in a step of `num_rows` rows, at most `most`,
/// where a guess for all of them takes `turn_seconds` of a model's time.
pub(crate) fn choose_even(
    costs: &StepCosts,
    num_rows: usize,
    chances: &[f64],
    most: usize,
    turn_seconds: f64,
) -> usize {
    let Some(alone) = costs.plain(num_rows) else { return 0 };
    let mut tokens = num_rows as f64;
    let mut best = (WORTH_IT * tokens / alone, 0);
    for n in 1..=most {
        tokens += chances.iter().map(|c| c.powi(n as i32)).sum::<f64>();
        let Some(cost) = costs.estimate(num_rows + n * chances.len()) else { break };
        let rate = tokens / (cost.max(alone) + n as f64 * turn_seconds);
        if rate > best.0 {
            best = (rate, n);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(of: &[(usize, f64)]) -> StepCosts {
        let mut costs = StepCosts::default();
        for _ in 0..FIRST {
            of.iter().for_each(|&(rows, seconds)| costs.note(rows, 0, seconds));
        }
        costs
    }

    #[test]
    fn costs_are_read_between_and_beyond_what_was_seen() {
        let costs = costs(&[(1, 4.0), (5, 8.0)]);
        assert_eq!([1, 2, 3, 5, 7].map(|r| costs.estimate(r)), [4.0, 5.0, 6.0, 8.0, 10.0].map(Some));
        assert_eq!(StepCosts::default().estimate(3), None);
    }

    #[test]
    fn sure_guesses_are_taken_and_doubtful_ones_left() {
        let cheap = costs(&[(1, 4.0), (9, 6.0)]);
        assert_eq!(choose(&cheap, 1, &[(0.95, 8)], 32), [8]);
        assert_eq!(choose(&cheap, 1, &[(0.05, 8)], 32), [0]);
        assert_eq!(choose(&cheap, 1, &[(0.95, 8)], 3), [3]);
        let few = choose(&cheap, 1, &[(0.5, 8)], 32)[0];
        assert!((1..6).contains(&few), "{few}");
    }

    #[test]
    fn rows_that_cost_as_much_as_steps_do_not_pay() {
        let dear = costs(&[(1, 4.0), (2, 8.0), (3, 12.0)]);
        assert_eq!(choose(&dear, 1, &[(0.9, 8)], 32), [0]);
        assert_eq!(choose(&StepCosts::default(), 1, &[(0.9, 8)], 32), [0]);
    }

    #[test]
    fn what_is_always_wrong_does_not_pay_by_an_odd_clock() {
        let odd = costs(&[(1, 4.0), (5, 3.0), (13, 2.0)]);
        assert_eq!(choose(&odd, 1, &[(0.01, 12)], 32), [0]);
        assert_eq!(choose_even(&odd, 1, &[0.01], 12, 0.0), 0);
    }

    #[test]
    fn a_slow_beginning_is_found_out() {
        // the first step was held up tenfold; then guesses that are seldom right seem to pay
        let mut costs = StepCosts::default();
        (0..FIRST).for_each(|_| costs.note(1, 0, 40.0));
        let mut guessed = 0;
        for _ in 0..200 {
            let num = choose(&costs, 1, &[(0.15, 12)], 32)[0];
            guessed += usize::from(num > 0);
            costs.note(1 + num, num, 4.0 + 2.0 * num as f64);
        }
        assert!(guessed <= CHECKED_AFTER as usize, "{guessed}");
        assert_eq!(choose(&costs, 1, &[(0.15, 12)], 32), [0]);
    }

    #[test]
    fn guesses_that_pay_leave_out_a_step_now_and_then() {
        let mut costs = costs(&[(1, 4.0), (13, 6.0)]);
        let plain = (0..1000).filter(|_| {
            let num = choose(&costs, 1, &[(0.95, 12)], 32)[0];
            costs.note(1 + num, num, 4.0 + num as f64 / 6.0);
            num == 0
        });
        let plain = plain.count();
        assert!((20..=40).contains(&plain), "{plain}");
    }

    #[test]
    fn the_surer_of_two_gets_the_rows() {
        let cheap = costs(&[(2, 4.0), (20, 6.0)]);
        let chosen = choose(&cheap, 2, &[(0.3, 8), (0.9, 8)], 8);
        assert!(chosen[1] >= 6 && chosen[0] < 3, "{chosen:?}");
    }

    #[test]
    fn a_quick_model_pays_and_a_slow_one_does_not() {
        let cheap = costs(&[(1, 4.0), (9, 6.0)]);
        assert!(choose_even(&cheap, 1, &[0.8], 8, 0.4) >= 2);
        assert_eq!(choose_even(&cheap, 1, &[0.8], 8, 4.0), 0);
    }

    #[test]
    fn rates_follow_what_happens() {
        let mut rate = HitRate::expecting(0.5);
        (0..30).for_each(|_| rate.note(true));
        assert!(rate.chance() > 0.95);
        (0..30).for_each(|_| rate.note(false));
        assert!(rate.chance() < 0.05);
    }
}
