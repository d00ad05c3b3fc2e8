//! What the owner thread keeps of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use alloyforge_types::{Error, Priority, Result, TokenDraw};

use crate::constraint::Guide;
use crate::draft::guesser::Guesser;
use crate::handle::Outbox;
use crate::media::SequenceMedia;
use crate::owner::Row;
use crate::probe::{ProbeKind, Readings};
use crate::sampling::{Normaliser, Sampler, TokenHistory, token_of};
use crate::scheduler::{KeepId, SeqId};
use crate::text::{Flow, TextStream};
use crate::{
    Chunk, Completion, Event, Fault, FaultPoint, FinishReason, Output, Timings, TokenLogprob, Usage,
};

/// A place in the queue of requests that wait; dropping it gives the place back.
pub(crate) struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    /// # Errors
    /// `QueueFull`.
    pub(crate) fn take(waiting: &Arc<AtomicUsize>, limit: usize) -> Result<Self> {
        let free = |n: usize| (n < limit).then_some(n + 1);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free) {
            Ok(_) => Ok(Self(Arc::clone(waiting))),
            Err(waiting) => Err(Error::QueueFull { waiting, limit }),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When what happened to a request, since the engine began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    pub(crate) submitted: Duration,
    pub(crate) admitted: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
}

impl Moments {
    pub(crate) fn timings(&self, now: Duration) -> Timings {
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        let admitted = self.admitted.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Timings {
            queue: seconds(self.submitted, admitted),
            prefill: seconds(admitted, first_token),
            decode: seconds(first_token, now),
            first_token: self.first_token.map_or(0.0, |t| seconds(self.submitted, t)),
        }
    }
}

/// What holds for all answers of a request.
pub(crate) struct Rules {
    /// Bounded by the context.
    pub(crate) max_tokens: usize,
    /// The model's end tokens among them, unless they are ignored.
    pub(crate) stop_tokens: Vec<u32>,
    pub(crate) logprobs: Option<usize>,
    /// Where a test wants a panic.
    pub(crate) fault: Fault,
}

/// A request for text.
pub(crate) struct Generation {
    pub(crate) outbox: Outbox,
    /// Moved into the scheduler when the request is taken up.
    pub(crate) prompt: Vec<u32>,
    /// Likewise.
    pub(crate) media: Option<Arc<SequenceMedia>>,
    pub(crate) prompt_len: usize,
    pub(crate) cached_tokens: usize,
    /// Guesses that were computed, and those of them that were right.
    pub(crate) drafted_tokens: usize,
    pub(crate) accepted_tokens: usize,
    pub(crate) rules: Rules,
    pub(crate) is_streaming: bool,
    pub(crate) priority: Priority,
    pub(crate) timeout: Option<f64>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) moments: Moments,
    /// The conversation that keeps its blocks.
    pub(crate) keep: Option<KeepId>,
}

impl Generation {
    /// Ends every choice that has not ended, and gives the end result.
    pub(crate) fn cancel(&mut self, now: Duration) -> Option<Output> {
        let has_logprobs = self.rules.logprobs.is_some();
        for (i, choice) in self.choices.iter_mut().enumerate().filter(|(_, c)| c.finish_reason.is_none()) {
            choice.finish(FinishReason::Cancelled);
            if self.is_streaming
                && let Some(chunk) = choice.chunk(i, has_logprobs)
            {
                self.outbox.hold(Event::Chunk(chunk));
            }
        }
        self.output(now)
    }

    /// The end result, where every choice has ended.
    pub(crate) fn output(&mut self, now: Duration) -> Option<Output> {
        if self.choices.iter().any(|c| c.finish_reason.is_none()) {
            return None;
        }
        let has_logprobs = self.rules.logprobs.is_some();
        let completions = self.choices.iter_mut().enumerate().filter_map(|(choice, c)| {
            Some(Completion {
                choice,
                tokens: std::mem::take(&mut c.tokens),
                text: std::mem::take(&mut c.text),
                logprobs: has_logprobs.then(|| std::mem::take(&mut c.logprobs)),
                finish_reason: c.finish_reason?,
            })
        });
        let choices: Vec<Completion> = completions.collect();
        let usage = Usage {
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_tokens,
            drafted_tokens: self.drafted_tokens,
            accepted_tokens: self.accepted_tokens,
            completion_tokens: choices.iter().map(|c| c.tokens.len()).sum(),
        };
        Some(Output { choices, usage, timings: self.moments.timings(now) })
    }
}

/// One of a request's answers.
pub(crate) struct Choice {
    pub(crate) seq: Option<SeqId>,
    sampler: Sampler,
    /// Which tokens may come, where that is not any.
    guide: Option<Guide>,
    /// What it is expected to say next, where that is guessed.
    pub(crate) guesser: Option<Guesser>,
    /// Made when the first token is drawn: a request that waits costs its prompt and little more.
    history: Option<TokenHistory>,
    stream: TextStream,
    tokens: Vec<u32>,
    text: String,
    logprobs: Vec<TokenLogprob>,
    pub(crate) finish_reason: Option<FinishReason>,
    /// Of `tokens` and of the bytes of `text`, how much has been delivered.
    num_tokens_sent: usize,
    text_len_sent: usize,
}

impl Choice {
    pub(crate) fn new(
        sampler: Sampler,
        stream: TextStream,
        guesser: Option<Guesser>,
        guide: Option<Guide>,
    ) -> Self {
        Self {
            seq: None,
            sampler,
            guide,
            guesser,
            history: None,
            stream,
            tokens: Vec::new(),
            text: String::new(),
            logprobs: Vec::new(),
            finish_reason: None,
            num_tokens_sent: 0,
            text_len_sent: 0,
        }
    }

    /// Draws the next token from `row`. `prompt` is asked for the first one. The answer has ended
    /// where [`finish_reason`](Self::finish_reason) is set afterwards.
    ///
    /// # Errors
    /// `Internal` where the logits are not numbers.
    pub(crate) fn draw(&mut self, row: Row<'_>, prompt: &[u32], rules: &Rules) -> Result<u32> {
        rules.fault.pass(FaultPoint::Sampling);
        let history = self.history.get_or_insert_with(|| TokenHistory::new(prompt));
        let token = match row {
            Row::Logits(logits) => {
                let mask = self.guide.as_mut().map(Guide::mask).transpose()?;
                self.sampler.draw(logits, history, self.tokens.len() as u64, mask)?.token
            }
            Row::Drawn(drawn) => token_of(drawn)?,
        };
        let is_complete = self.guide.as_mut().map(|guide| guide.accept(token)).transpose()?;
        history.push(token);
        self.tokens.push(token);
        if let (Some(k), Row::Logits(logits)) = (rules.logprobs, row) {
            let normaliser = Normaliser::of(logits);
            let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |&l| normaliser.logprob(l));
            let top = normaliser.top(logits, k).into_iter().map(|t| (t.token, t.logprob)).collect();
            self.logprobs.push(TokenLogprob { token, logprob, top });
        }
        rules.fault.pass(FaultPoint::Detokenising);
        if rules.stop_tokens.contains(&token) {
            self.finish(FinishReason::Stop);
        } else if self.stream.push(token, &mut self.text) == Flow::Stopped {
            self.finish_reason = Some(FinishReason::Stop);
        } else if is_complete == Some(true) {
            self.finish(FinishReason::Stop);
        } else if self.tokens.len() >= rules.max_tokens {
            self.finish(FinishReason::Length);
        }
        Ok(token)
    }

    /// How a device would draw, from asked row `row`, the token that is `ahead` of the next one; `None`
    /// where the logits are wanted for more than that.
    pub(crate) fn device_draw(&self, row: usize, ahead: usize, rules: &Rules) -> Option<TokenDraw> {
        if rules.logprobs.is_some() || self.guide.is_some() {
            return None;
        }
        let (temperature, number) = self.sampler.plain_draw((self.tokens.len() + ahead) as u64)?;
        Some(TokenDraw { row, temperature, number })
    }

    /// Has the tokens that may come next worked out beside the next step.
    pub(crate) fn look_ahead(&mut self) {
        if let Some(guide) = self.guide.as_mut().filter(|_| self.finish_reason.is_none()) {
            guide.look_ahead();
        }
    }

    /// Its tokens so far, without the prompt.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens may come behind the next one.
    pub(crate) fn room(&self, rules: &Rules) -> usize {
        rules.max_tokens.saturating_sub(self.tokens.len() + 1)
    }

    /// What a draft model's logits say, drawn as the token will be that is `ahead` of the next one: with
    /// the same number, so that two distributions that agree seldom give different tokens.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub(crate) fn guess(&mut self, logits: &[f32], ahead: usize) -> Result<u32> {
        let Some(history) = &self.history else { return Err(Error::internal("a guess before a token")) };
        self.sampler.guess(logits, history, (self.tokens.len() + ahead) as u64)
    }

    /// Ends the answer, unless it has ended.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        if self.finish_reason.is_some() {
            return;
        }
        // a stop text may have hung on a last, broken character
        let flow = self.stream.finish(&mut self.text);
        self.finish_reason = Some(if flow == Flow::Stopped { FinishReason::Stop } else { reason });
    }

    /// What has not been delivered yet, where there is new text or the end.
    pub(crate) fn chunk(&mut self, choice: usize, has_logprobs: bool) -> Option<Chunk> {
        if self.finish_reason.is_none() && self.text.len() == self.text_len_sent {
            return None;
        }
        let first = self.num_tokens_sent;
        self.num_tokens_sent = self.tokens.len();
        let text = self.text[self.text_len_sent..].to_owned();
        self.text_len_sent = self.text.len();
        Some(Chunk {
            choice,
            text,
            tokens: self.tokens[first..].to_vec(),
            logprobs: has_logprobs.then(|| self.logprobs[first..].to_vec()),
            finish_reason: self.finish_reason,
        })
    }
}

/// A read-out of logits.
pub(crate) struct Probing {
    /// Moved into the scheduler when the request is taken up.
    pub(crate) tokens: Vec<u32>,
    /// Likewise.
    pub(crate) media: Option<Arc<SequenceMedia>>,
    pub(crate) kind: ProbeKind,
    /// Filled step by step; the memory was taken by the caller.
    pub(crate) values: Vec<f32>,
    pub(crate) len: usize,
    pub(crate) reply: Sender<Readings>,
    pub(crate) ticket: Option<Ticket>,
}
