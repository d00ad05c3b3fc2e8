//! The chain of stages.

use std::cell::Cell;

use alloyforge_interfaces::Tokenizer;
use alloyforge_types::{DrawnToken, Error, Result, SamplingParams};

use super::breakers::Breakers;
use super::candidates::Candidates;
use super::history::TokenHistory;
use super::stream::{Purpose, uniform};
use super::truncate::Scale;
use super::{dry, scan, truncate, validate};

/// One request's way from logits to tokens.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    vocab_size: usize,
    breakers: Breakers,
    /// Mirostat's running bound, in bits.
    mu: f32,
    /// Lent for the length of a draw.
    scratch: Box<Scratch>,
}

/// Buffers of a draw, several times as long as the vocabulary: those of a thread's samplers are the same,
/// so that they stay in its cache and a sampler that waits costs next to nothing.
#[derive(Debug, Default)]
struct Scratch {
    logits: Vec<f32>,
    /// The weights of stretches of the vocabulary.
    sums: Vec<f64>,
    candidates: Candidates,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Tokens of a stretch.
const STRETCH: usize = 1024;

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The token.
    pub token: u32,
}

/// What a draw is made from: tokens with weights that a draw is proportional to, the rest have none.
///
/// The weights add up to 1, but where XTC has dropped tokens: the others then keep the probabilities
/// that they had, as llama.cpp reports them.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Tokens with their weights, ascending by token.
    pub weights: Vec<(u32, f64)>,
}

impl Sampler {
    /// A sampler for a request whose drawn seed is `seed` (used where the parameters name none).
    /// Without a tokenizer, DRY's breakers that are texts have no effect.
    ///
    /// # Errors
    /// `InvalidRequest` naming the parameter that is out of range.
    pub fn new(
        params: &SamplingParams,
        vocab_size: usize,
        tokenizer: Option<&dyn Tokenizer>,
        seed: u64,
    ) -> Result<Self> {
        validate::check(params, vocab_size)?;
        let breakers = if params.dry.multiplier > 0.0 {
            Breakers::new(&params.dry.sequence_breakers, tokenizer)?
        } else {
            Breakers::default()
        };
        Ok(Self {
            seed: params.seed.unwrap_or(seed),
            vocab_size,
            breakers,
            mu: params.mirostat.map_or(0.0, |m| 2.0 * m.tau),
            params: params.clone(),
            scratch: Box::default(),
        })
    }

    /// Draws the token of step `step` from the model's logits. `mask`, where given, has one bit a
    /// token, 32 a word, set for the tokens that a constraint allows.
    ///
    /// # Errors
    /// `Internal` where a logit is NaN or no token has a logit above negative infinity.
    pub fn draw(
        &mut self,
        logits: &[f32],
        history: &TokenHistory,
        step: u64,
        mask: Option<&[u32]>,
    ) -> Result<Drawn> {
        self.with_scratch(|sampler| sampler.draw_with_scratch(logits, history, step, mask))
    }

    fn with_scratch<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(scratch) = SCRATCH.take() {
            self.scratch = scratch;
        }
        let done = work(self);
        SCRATCH.set(Some(std::mem::take(&mut self.scratch)));
        done
    }

    fn draw_with_scratch(
        &mut self,
        logits: &[f32],
        history: &TokenHistory,
        step: u64,
        mask: Option<&[u32]>,
    ) -> Result<Drawn> {
        let temperature = self.params.temperature;
        let number = uniform(self.seed, step, Purpose::Draw);
        if mask.is_none() && !self.changes_logits() {
            // the logits as they are decide, without a copy
            self.check_len(logits)?;
            if temperature == 0.0 {
                return greedy(logits);
            }
            if !self.truncates() {
                return self.draw_from_all(logits, number);
            }
            if self.truncates_usually() && self.fill_usually(logits)? {
                return self.choose(None, number);
            }
        }
        self.process(logits, history, mask)?;
        if temperature == 0.0 {
            return greedy(&self.scratch.logits);
        }
        if !self.truncates() {
            let logits = std::mem::take(&mut self.scratch.logits);
            let drawn = self.draw_from_all(&logits, number);
            self.scratch.logits = logits;
            return drawn;
        }
        self.scale();
        let dropped = self.truncate(step);
        self.choose(dropped, number)
    }

    /// A draw from the candidates.
    fn choose(&mut self, dropped: Option<(f32, f64)>, number: f64) -> Result<Drawn> {
        let distribution = self.weigh(dropped);
        let total: f64 = distribution.weights.iter().map(|w| w.1).sum();
        let mut left = number * total;
        let mut chosen = distribution.weights.last().copied();
        for &(token, weight) in &distribution.weights {
            if left < weight {
                chosen = Some((token, weight));
                break;
            }
            left -= weight;
        }
        let (token, weight) = chosen.ok_or_else(no_token)?;
        if let Some(m) = self.params.mirostat {
            let surprise = -(weight / total).log2() as f32;
            self.mu -= m.eta * (surprise - m.tau);
        }
        Ok(Drawn { token })
    }

    /// What a draw of step `step` is made from where nothing but the logits, as they are, decides: the
    /// temperature and the number. A device can then draw in our stead.
    pub fn plain_draw(&self, step: u64) -> Option<(f32, f64)> {
        let temperature = self.params.temperature;
        let is_plain = !self.changes_logits() && (temperature == 0.0 || !self.truncates());
        is_plain.then(|| (temperature, uniform(self.seed, step, Purpose::Draw)))
    }

    /// As [`draw`](Self::draw), leaving no trace.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub fn guess(&mut self, logits: &[f32], history: &TokenHistory, step: u64) -> Result<u32> {
        let mu = self.mu;
        let drawn = self.draw(logits, history, step, None);
        self.mu = mu;
        Ok(drawn?.token)
    }

    /// The distribution that the draw of step `step` would be made from, as far as float32 can tell:
    /// a token whose share vanishes beside 1 is left out, though a draw may, once in a hundred million,
    /// take it.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn distribution(
        &mut self,
        logits: &[f32],
        history: &TokenHistory,
        step: u64,
        mask: Option<&[u32]>,
    ) -> Result<Distribution> {
        self.with_scratch(|sampler| sampler.distribution_with_scratch(logits, history, step, mask))
    }

    fn distribution_with_scratch(
        &mut self,
        logits: &[f32],
        history: &TokenHistory,
        step: u64,
        mask: Option<&[u32]>,
    ) -> Result<Distribution> {
        self.process(logits, history, mask)?;
        if self.params.temperature == 0.0 {
            return Ok(Distribution { weights: vec![(greedy(&self.scratch.logits)?.token, 1.0)] });
        }
        self.scale();
        let dropped = self.truncate(step);
        let mut distribution = self.weigh(dropped);
        distribution.weights.retain(|&(_, weight)| 1.0 + weight as f32 > 1.0);
        Ok(distribution)
    }

    /// Mask, bias and penalties into the scratch logits.
    fn process(&mut self, logits: &[f32], history: &TokenHistory, mask: Option<&[u32]>) -> Result<()> {
        self.check_len(logits)?;
        let Self { params: p, scratch, breakers, .. } = self;
        let row = &mut scratch.logits;
        row.clear();
        row.extend_from_slice(logits);
        if let Some(mask) = mask {
            let mut words = mask.iter().copied();
            for some in row.chunks_mut(32) {
                match words.next().unwrap_or(0) {
                    0 => some.fill(f32::NEG_INFINITY),
                    u32::MAX => {}
                    word => {
                        let forbidden = some.iter_mut().enumerate().filter(|(i, _)| word >> i & 1 == 0);
                        forbidden.for_each(|(_, l)| *l = f32::NEG_INFINITY);
                    }
                }
            }
        }
        for &(token, bias) in &p.logit_bias {
            if let Some(l) = row.get_mut(token as usize) {
                *l += bias;
            }
        }
        if p.repetition_penalty != 1.0 || p.frequency_penalty != 0.0 || p.presence_penalty != 0.0 {
            for (token, counts) in history.counts() {
                let Some(l) = row.get_mut(token as usize) else { continue };
                *l = if *l <= 0.0 { *l * p.repetition_penalty } else { *l / p.repetition_penalty };
                if counts.answer > 0 {
                    *l -= counts.answer as f32 * p.frequency_penalty + p.presence_penalty;
                }
            }
        }
        if p.dry.multiplier > 0.0 {
            dry::apply(row, history.tokens(), &p.dry, breakers);
        }
        // a mask may hide what is wrong, a penalty bring it about
        let is_changed = mask.is_some() || self.changes_logits();
        let has_nan = |row: &[f32]| scan::max_and_nan(row).1;
        if has_nan(logits) || is_changed && has_nan(&self.scratch.logits) {
            Err(not_numbers())
        } else {
            Ok(())
        }
    }

    /// Whether the parameters change a logit before the temperature does.
    fn changes_logits(&self) -> bool {
        let p = &self.params;
        !p.logit_bias.is_empty()
            || p.repetition_penalty != 1.0
            || p.frequency_penalty != 0.0
            || p.presence_penalty != 0.0
            || p.dry.multiplier > 0.0
    }

    fn check_len(&self, logits: &[f32]) -> Result<()> {
        if logits.len() == self.vocab_size {
            return Ok(());
        }
        let fault = format!("{} logits for a vocabulary of {}", logits.len(), self.vocab_size);
        Err(Error::internal(fault))
    }

    fn scale(&mut self) {
        let temperature = self.params.temperature;
        if temperature != 1.0 {
            // a quotient that overflows would make equals of different logits: measure from the top
            let logits = &mut self.scratch.logits;
            let (max, _) = scan::max_and_nan(logits);
            if max.is_finite() {
                logits.iter_mut().for_each(|l| *l = (*l - max) / temperature);
            }
        }
    }

    fn truncates(&self) -> bool {
        let p = &self.params;
        p.mirostat.is_some()
            || p.top_n_sigma > 0.0
            || p.top_k > 0
            || p.typical_p < 1.0
            || p.top_p < 1.0
            || p.min_p > 0.0
            || p.xtc.probability > 0.0
    }

    /// Whether `top_k`, `top_p` and `min_p` are all that cuts.
    fn truncates_usually(&self) -> bool {
        let p = &self.params;
        p.mirostat.is_none() && p.top_n_sigma <= 0.0 && p.typical_p >= 1.0 && p.xtc.probability <= 0.0
    }

    /// As scaling a row and [`truncate`](Self::truncate), for the usual stages, which need to see the head
    /// of a long row alone. False where they need more.
    ///
    /// # Errors
    /// `Internal` where a logit is NaN.
    fn fill_usually(&mut self, logits: &[f32]) -> Result<bool> {
        let Self { params: p, scratch, .. } = self;
        let candidates = &mut scratch.candidates;
        let (max, has_nan) = candidates.look(logits);
        if has_nan {
            return Err(not_numbers());
        }
        if !max.is_finite() {
            return Ok(false);
        }
        let scale = Scale { max, temperature: p.temperature };
        if p.top_k > 0 {
            if !candidates.fill_highest(logits, p.top_k) {
                return Ok(false);
            }
            candidates.scale(max, p.temperature);
            truncate::top_k(candidates, p.top_k);
            truncate::top_p(candidates, p.top_p);
        } else if p.top_p < 1.0 {
            if !truncate::top_p_of(candidates, logits, scale, p.top_p) {
                return Ok(false);
            }
        } else {
            truncate::fill_for_min_p(candidates, logits, scale, p.min_p);
        }
        truncate::min_p(candidates, p.min_p);
        Ok(true)
    }

    /// Fills and cuts the candidates; where XTC dropped some, the highest logit and the total weight
    /// from before.
    fn truncate(&mut self, step: u64) -> Option<(f32, f64)> {
        let Self { params: p, scratch, seed, .. } = self;
        let candidates = &mut scratch.candidates;
        candidates.fill(&scratch.logits);
        if p.mirostat.is_some() {
            truncate::mirostat(candidates, self.mu);
            return None;
        }
        truncate::top_n_sigma(candidates, p.top_n_sigma);
        truncate::top_k(candidates, p.top_k);
        truncate::typical_p(candidates, p.typical_p);
        truncate::top_p(candidates, p.top_p);
        truncate::min_p(candidates, p.min_p);
        Self::exclude(p, candidates, *seed, step)
    }

    /// XTC, the last of the truncations.
    fn exclude(p: &SamplingParams, candidates: &mut Candidates, seed: u64, step: u64) -> Option<(f32, f64)> {
        if p.xtc.probability > 0.0 && uniform(seed, step, Purpose::Xtc) < f64::from(p.xtc.probability) {
            let max = truncate::max_logit(candidates);
            let before = (max, truncate::total(candidates, max));
            if truncate::xtc(candidates, p.xtc.threshold) {
                return Some(before);
            }
        }
        None
    }

    /// The candidates' weights, ascending by token, as shares of what was there before XTC.
    fn weigh(&mut self, before: Option<(f32, f64)>) -> Distribution {
        let candidates = &mut self.scratch.candidates;
        let (max, total) = before.unwrap_or_else(|| {
            let max = truncate::max_logit(candidates);
            (max, truncate::total(candidates, max))
        });
        let shares = candidates.as_slice().iter().map(|c| (c.id, truncate::weight(c, max) / total));
        let mut weights: Vec<(u32, f64)> = shares.collect();
        weights.sort_unstable_by_key(|w| w.0);
        Distribution { weights }
    }

    /// A draw from the whole vocabulary: the weights of stretches are summed, then the tokens of the one
    /// that the number falls into.
    fn draw_from_all(&mut self, logits: &[f32], number: f64) -> Result<Drawn> {
        let (max, has_nan) = scan::max_and_nan(logits);
        if has_nan {
            return Err(not_numbers());
        }
        if max == f32::NEG_INFINITY {
            return Err(no_token());
        }
        if max == f32::INFINITY {
            // beside an infinite logit nothing counts
            let row: Vec<f32> =
                logits.iter().map(|&l| if l == max { 0.0 } else { f32::NEG_INFINITY }).collect();
            return self.draw_from_all(&row, number);
        }
        let slope = Scale { max, temperature: self.params.temperature }.slope();
        self.scratch.sums.clear();
        self.scratch.sums.extend(logits.chunks(STRETCH).map(|stretch| scan::sum_exp(stretch, max, slope)));
        let mut left = number * self.scratch.sums.iter().sum::<f64>();
        let mut chosen = 0;
        for (i, &sum) in self.scratch.sums.iter().enumerate() {
            if sum > 0.0 {
                chosen = i;
                if left < sum {
                    break;
                }
                left -= sum;
            }
        }
        let first = chosen * STRETCH;
        let mut last = None;
        for (i, &l) in logits[first..].iter().take(STRETCH).enumerate() {
            let weight = f64::from(scan::exp((l - max) * slope));
            if weight > 0.0 {
                last = Some((first + i) as u32);
                if left < weight {
                    break;
                }
                left -= weight;
            }
        }
        last.map(|token| Drawn { token }).ok_or_else(no_token)
    }
}

/// The highest logit's token, the lowest among equals.
fn greedy(logits: &[f32]) -> Result<Drawn> {
    let (max, has_nan) = scan::max_and_nan(logits);
    if has_nan {
        return Err(not_numbers());
    }
    match scan::first_at(logits, max) {
        Some(token) if max > f32::NEG_INFINITY => Ok(Drawn { token: token as u32 }),
        _ => Err(no_token()),
    }
}

/// The token that a device drew.
///
/// # Errors
/// As [`Sampler::draw`].
pub(crate) fn token_of(drawn: DrawnToken) -> Result<u32> {
    match drawn {
        DrawnToken::Token(token) => Ok(token),
        DrawnToken::NotNumbers => Err(not_numbers()),
        DrawnToken::NoToken => Err(no_token()),
    }
}

fn not_numbers() -> Error {
    Error::internal("the logits are not numbers (NaN)")
}

fn no_token() -> Error {
    Error::internal("no token has a logit above negative infinity")
}

#[cfg(test)]
mod tests;
