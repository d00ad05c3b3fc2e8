//! The requests in hand, and what each step means for them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use alloyforge_types::{Error, Result, TokenDraw};

use super::message;
use super::rows::{Row, Rows};
use crate::command::{Command, JobId, Transfer};
use crate::engine::Shared;
use crate::handle::Outbox;
use crate::job::{Choice, Generation, Probing, Rules};
use crate::probe::{ProbeKind, Readings};
use crate::sampling::Normaliser;
use crate::scheduler::{NewSequence, Plan, PlannedStep, Readout, Scheduler, SeqId};
use crate::{Event, FaultPoint, Stats};

/// A request in hand.
enum Job {
    Generation(Box<Generation>),
    Probing(Box<Probing>),
}

/// Everything that the owner thread knows of requests.
pub(super) struct Books {
    pub(super) scheduler: Scheduler,
    jobs: HashMap<JobId, Job>,
    /// Whose a sequence is: the request, and which of its choices.
    owners: HashMap<SeqId, (JobId, usize)>,
    next_seq: SeqId,
    /// Requests in hand with something to deliver.
    unsent: Vec<JobId>,
    // ends wait until the counts are published, so that who has a result finds its blocks free
    /// The ends of requests that are over.
    departing: Vec<Outbox>,
    replies: Vec<(Sender<Readings>, Readings)>,
    /// Blocks to be brought out of the cache or into it before the next step.
    pub(super) transfers: Vec<Transfer>,
    shared: Arc<Shared>,
    epoch: Instant,
    counts: Counts,
}

/// The requests in hand, to draw guesses with.
pub(super) struct Drawing<'a> {
    jobs: &'a mut HashMap<JobId, Job>,
}

impl Drawing<'_> {
    /// As [`Choice::guess`].
    ///
    /// # Errors
    /// As [`Choice::guess`].
    pub(super) fn guess(&mut self, id: JobId, index: usize, logits: &[f32], ahead: usize) -> Result<u32> {
        match self.jobs.get_mut(&id) {
            Some(Job::Generation(job)) => match job.choices.get_mut(index) {
                Some(choice) => choice.guess(logits, ahead),
                None => Err(Error::internal("a guess for a choice that is not there")),
            },
            _ => Err(Error::internal("a guess for a request that is not there")),
        }
    }
}

/// Counts that outlive the books.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
    prefix_hit_tokens: u64,
    preemptions: u64,
    drafted_tokens: u64,
    accepted_tokens: u64,
    steps: u64,
    busy_seconds: f64,
    model_seconds: f64,
}

impl Books {
    pub(super) fn new(scheduler: Scheduler, shared: Arc<Shared>, epoch: Instant) -> Self {
        Self {
            scheduler,
            jobs: HashMap::new(),
            owners: HashMap::new(),
            next_seq: 0,
            unsent: Vec::new(),
            departing: Vec::new(),
            replies: Vec::new(),
            transfers: Vec::new(),
            shared,
            epoch,
            counts: Counts::default(),
        }
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> Counts {
        let stats = self.scheduler.stats();
        Counts {
            prefix_hit_tokens: self.counts.prefix_hit_tokens + stats.prefix_hit_tokens,
            preemptions: self.counts.preemptions + stats.preemptions,
            ..self.counts
        }
    }

    /// Counts a step in which the model took `model` of the time.
    pub(super) fn count_step(&mut self, model: Duration) {
        self.counts.steps += 1;
        self.counts.model_seconds += model.as_secs_f64();
    }

    /// Counts the time of a whole step.
    pub(super) fn count_busy(&mut self, step: Duration) {
        self.counts.busy_seconds += step.as_secs_f64();
    }

    /// Counts on from those of earlier books.
    pub(super) fn go_on_from(&mut self, counts: Counts) {
        self.counts = counts;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.scheduler.is_empty()
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Carries out a command other than `Close`.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Generate(id, job) => self.take_up_generation(id, job),
            Command::Probe(id, job) => self.take_up_probing(id, job),
            Command::Cancel(id) => self.cancel(id),
            Command::LetGo(keep) => self.scheduler.let_go(keep),
            Command::Fork(keep, other) => self.scheduler.keep_too(keep, other),
            Command::Transfer(transfer) => self.transfers.push(transfer),
            Command::Close => {}
        }
    }

    fn submit(&mut self, id: JobId, new: NewSequence, job: Job) {
        let now = self.now();
        let seq = new.id;
        match self.scheduler.submit(new, now) {
            Ok(()) => {
                self.owners.insert(seq, (id, 0));
                self.jobs.insert(id, job);
            }
            Err(error) => self.send_off(job, &error),
        }
    }

    fn new_seq(&mut self) -> SeqId {
        self.next_seq += 1;
        self.next_seq
    }

    fn take_up_generation(&mut self, id: JobId, mut job: Box<Generation>) {
        // the cancellation of a request whose media were being encoded came before the request
        if job.outbox.is_cancelled() {
            self.jobs.insert(id, Job::Generation(job));
            return self.cancel(id);
        }
        let seq = self.new_seq();
        if let Some(first) = job.choices.first_mut() {
            first.seq = Some(seq);
        }
        let limit = job.timeout.map(|t| Duration::try_from_secs_f64(t).unwrap_or(Duration::MAX));
        let new = NewSequence {
            id: seq,
            tokens: std::mem::take(&mut job.prompt),
            media: job.media.take(),
            priority: job.priority,
            deadline: limit.and_then(|limit| job.moments.submitted.checked_add(limit)),
            readout: Readout::Last,
            is_cached: job.keep.is_some(),
        };
        self.submit(id, new, Job::Generation(job));
    }

    fn take_up_probing(&mut self, id: JobId, mut job: Box<Probing>) {
        let new = NewSequence {
            id: self.new_seq(),
            tokens: std::mem::take(&mut job.tokens),
            media: job.media.take(),
            priority: Default::default(),
            deadline: None,
            readout: Readout::All,
            is_cached: false,
        };
        self.submit(id, new, Job::Probing(job));
    }

    fn cancel(&mut self, id: JobId) {
        if let Some(Job::Generation(job)) = self.jobs.get(&id)
            && let Some(keep) = job.keep
            && let Some(seq) = job.choices.first().and_then(|c| c.seq)
        {
            self.scheduler.keep(keep, seq);
        }
        // nobody waits for a read-out that is cancelled
        let Some(Job::Generation(mut job)) = self.remove(id) else { return };
        let now = self.now();
        let ended = catch_unwind(AssertUnwindSafe(|| job.cancel(now)));
        let last = match ended {
            Ok(Some(output)) => Event::Finished(Box::new(output)),
            Ok(None) => Event::Failed(Error::internal("a cancelled answer did not end")),
            Err(panic) => Event::Failed(Error::internal(message(&*panic))),
        };
        self.depart(*job, last);
    }

    /// Takes a request out with all its sequences.
    fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        let mine: Vec<SeqId> = match &job {
            Job::Generation(job) => job.choices.iter().filter_map(|c| c.seq).collect(),
            Job::Probing(_) => {
                self.owners.iter().filter(|(_, (job, _))| *job == id).map(|(seq, _)| *seq).collect()
            }
        };
        for seq in mine {
            self.scheduler.remove(seq);
            self.owners.remove(&seq);
        }
        Some(job)
    }

    fn depart(&mut self, mut job: Generation, last: Event) {
        job.outbox.hold(last);
        self.departing.push(job.outbox);
    }

    fn send_off(&mut self, job: Job, error: &Error) {
        match job {
            Job::Generation(job) => self.depart(*job, Event::Failed(error.clone())),
            Job::Probing(job) => self.replies.push((job.reply, Err(error.clone()))),
        }
    }

    fn fail(&mut self, id: JobId, error: &Error) {
        if let Some(job) = self.remove(id) {
            self.send_off(job, error);
        }
    }

    /// Fails every request.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for (_, job) in std::mem::take(&mut self.jobs) {
            self.send_off(job, error);
        }
        self.unsent.clear();
        self.shared.publish(Stats { kv_blocks_total: self.shared.stats().kv_blocks_total, ..self.totals() });
        self.send_ends();
    }

    /// Publishes the counts and delivers what there is.
    pub(super) fn deliver(&mut self) {
        self.send_chunks();
        let stats = self.scheduler.stats();
        self.shared.publish(Stats {
            running: stats.running,
            // those not served yet are counted where they are submitted
            waiting: stats.waiting - stats.queued,
            kv_blocks_used: stats.blocks_used,
            kv_blocks_total: stats.blocks_total,
            ..self.totals()
        });
        self.send_ends();
    }

    fn totals(&self) -> Stats {
        let counts = self.counts();
        Stats {
            prefix_hit_tokens: counts.prefix_hit_tokens,
            preemptions: counts.preemptions,
            prompt_tokens: counts.prompt_tokens,
            completion_tokens: counts.completion_tokens,
            drafted_tokens: counts.drafted_tokens,
            accepted_tokens: counts.accepted_tokens,
            steps: counts.steps,
            busy_seconds: counts.busy_seconds,
            model_seconds: counts.model_seconds,
            ..Stats::default()
        }
    }

    /// Delivers chunks. A caller's waker that panics fails that caller's request.
    fn send_chunks(&mut self) {
        for id in std::mem::take(&mut self.unsent) {
            let Some(Job::Generation(job)) = self.jobs.get_mut(&id) else { continue };
            let delivery = AssertUnwindSafe(|| {
                job.rules.fault.pass(FaultPoint::Delivery);
                job.outbox.flush();
            });
            if let Err(panic) = catch_unwind(delivery) {
                self.fail(id, &Error::internal(message(&*panic)));
            }
        }
    }

    /// Delivers ends.
    fn send_ends(&mut self) {
        for mut outbox in self.departing.drain(..) {
            // the events are in before the waker is called, and it can fail nothing any more
            let _ = catch_unwind(AssertUnwindSafe(|| outbox.flush()));
        }
        for (reply, result) in self.replies.drain(..) {
            // who no longer waits gets nothing
            let _ = reply.send(result);
        }
    }

    /// Has the requests of a step panic that a test wants to.
    pub(super) fn pass_faults(&self, plan: &Plan) {
        for step in &plan.steps {
            if let Some(Job::Generation(job)) =
                self.owners.get(&step.seq).and_then(|(id, _)| self.jobs.get(id))
            {
                job.rules.fault.pass(FaultPoint::Step);
            }
        }
    }

    /// Fails the requests of a step.
    pub(super) fn fail_step(&mut self, plan: &Plan, error: &Error) {
        for step in &plan.steps {
            if let Some(&(id, _)) = self.owners.get(&step.seq) {
                self.fail(id, error);
            }
        }
    }

    /// Plans a step and notes what that did to requests.
    pub(super) fn plan(&mut self, prefill_rows: usize) -> Plan {
        let now = self.now();
        let plan = self.scheduler.plan(now, prefill_rows);
        for (seq, cached_tokens) in &plan.admitted {
            match self.owners.get(seq).and_then(|(id, _)| self.jobs.get_mut(id)) {
                Some(Job::Generation(job)) => {
                    job.moments.admitted = Some(now);
                    job.cached_tokens = *cached_tokens;
                    job.ticket = None;
                    self.counts.prompt_tokens += job.prompt_len as u64;
                }
                Some(Job::Probing(job)) => {
                    job.ticket = None;
                    self.counts.prompt_tokens += job.len as u64;
                }
                None => {}
            }
        }
        for seq in &plan.expired {
            if let Some(&(id, _)) = self.owners.get(seq) {
                let seconds = match self.jobs.get(&id) {
                    Some(Job::Generation(job)) => job.timeout.unwrap_or_default(),
                    _ => 0.0,
                };
                self.fail(id, &Error::Timeout { seconds });
            }
        }
        plan
    }

    /// The draws of a step, one for each row that it asks for, where all of them can be made on the
    /// device.
    pub(super) fn device_draws(&self, plan: &Plan) -> Option<Vec<TokenDraw>> {
        let mut draws = Vec::with_capacity(plan.num_logits());
        for step in plan.steps.iter().filter(|step| step.num_logits > 0) {
            let &(id, index) = self.owners.get(&step.seq)?;
            let Some(Job::Generation(job)) = self.jobs.get(&id) else { return None };
            // the first row serves all siblings
            if job.moments.first_token.is_none() && job.choices.len() > 1 {
                return None;
            }
            let choice = job.choices.get(index)?;
            for ahead in 0..step.num_logits {
                draws.push(choice.device_draw(draws.len(), ahead, &job.rules)?);
            }
        }
        Some(draws)
    }

    /// Takes in what a step left, rows in the order of the plan.
    pub(super) fn commit(&mut self, plan: &Plan, rows: Rows<'_>) {
        self.scheduler.commit(plan);
        let mut rest = rows;
        for step in &plan.steps {
            let (rows, after) = rest.split_at(step.num_logits);
            rest = after;
            if step.num_logits == 0 {
                continue;
            }
            // a sibling may have failed their request earlier in this step
            let Some(&(id, choice)) = self.owners.get(&step.seq) else { continue };
            let done = catch_unwind(AssertUnwindSafe(|| match self.jobs.get(&id) {
                Some(Job::Generation(_)) => self.take_tokens(id, choice, step, rows),
                Some(Job::Probing(_)) => match rows {
                    Rows::Logits { values, vocab_size } => self.take_rows(id, step.start, values, vocab_size),
                    Rows::Drawn(_) => Err(Error::internal("a read-out was given tokens")),
                },
                None => Ok(()),
            }));
            let done = done.unwrap_or_else(|panic| Err(Error::internal(message(&*panic))));
            if let Err(error) = done {
                self.fail(id, &error);
            }
        }
    }

    /// Draws the next token of a choice, and those behind it that the step guessed right; after a
    /// prompt, the next token of all its siblings too.
    fn take_tokens(&mut self, id: JobId, choice: usize, step: &PlannedStep, rows: Rows<'_>) -> Result<()> {
        let Some(Job::Generation(job)) = self.jobs.get_mut(&id) else { return Ok(()) };
        let is_first = job.moments.first_token.is_none();
        if is_first {
            job.moments.first_token = Some(self.epoch.elapsed());
            let parent = job.choices.first().and_then(|c| c.seq);
            for i in 1..job.choices.len() {
                self.next_seq += 1;
                let child = self.next_seq;
                if let Some(parent) = parent {
                    self.scheduler.fork(parent, child)?;
                }
                job.choices[i].seq = Some(child);
                self.owners.insert(child, (id, i));
            }
        }
        let drawn = if is_first { 0..job.choices.len() } else { choice..choice + 1 };
        let looking = drawn.clone();
        let (first, guessed) = rows.split_at(1);
        let first = first.get(0).ok_or_else(|| Error::internal("a step without its rows"))?;
        for i in drawn {
            self.draw(id, i, first)?;
        }
        let num_accepted = self.take_guesses(id, choice, step, guessed)?;
        let Some(Job::Generation(job)) = self.jobs.get_mut(&id) else { return Ok(()) };
        job.choices[looking].iter_mut().for_each(Choice::look_ahead);
        job.drafted_tokens += step.num_drafted;
        job.accepted_tokens += num_accepted;
        self.counts.drafted_tokens += step.num_drafted as u64;
        self.counts.accepted_tokens += num_accepted as u64;
        if let Some(output) = job.output(self.epoch.elapsed())
            && let Some(Job::Generation(job)) = self.remove(id)
        {
            self.depart(*job, Event::Finished(Box::new(output)));
        }
        Ok(())
    }

    /// Goes on drawing, from the rows of `guessed`, for as long as what is drawn is what was guessed.
    /// Returns how many guesses were right.
    fn take_guesses(
        &mut self,
        id: JobId,
        index: usize,
        step: &PlannedStep,
        guessed: Rows<'_>,
    ) -> Result<usize> {
        let mut num_right = 0;
        while let Some(Job::Generation(job)) = self.jobs.get_mut(&id) {
            let Some(choice) = job.choices.get_mut(index) else { break };
            let Some(&token) = choice.tokens().last() else { break };
            let Some(guesser) = &mut choice.guesser else { break };
            // the one behind those that were computed is looked at too, for the rate
            if !guesser.check(num_right, token) || num_right >= step.num_drafted {
                break;
            }
            num_right += 1;
            if choice.finish_reason.is_some() {
                break;
            }
            self.scheduler.confirm(step.seq);
            let Some(row) = guessed.get(num_right - 1) else { break };
            self.draw(id, index, row)?;
        }
        if let Some((choice, ..)) = self.choice(id, index)
            && let Some(guesser) = &mut choice.guesser
        {
            guesser.tell(&[]);
        }
        Ok(num_right)
    }

    /// The sequences' tokens, and the way to draw guesses at those to come.
    pub(super) fn drawing(&mut self) -> (&Scheduler, Drawing<'_>) {
        (&self.scheduler, Drawing { jobs: &mut self.jobs })
    }

    /// Sequences that decode, whose tokens are guessed: each with its request and its choice.
    pub(super) fn guessed(&self) -> Vec<(SeqId, JobId, usize)> {
        let owner = |seq: SeqId| self.owners.get(&seq).map(|&(id, choice)| (seq, id, choice));
        self.scheduler.decoding().filter_map(owner).collect()
    }

    /// A choice with the tokens that it has so far, prompt included, and the rules it keeps to.
    pub(super) fn choice(&mut self, id: JobId, index: usize) -> Option<(&mut Choice, &Rules, &[u32])> {
        let Some(Job::Generation(job)) = self.jobs.get_mut(&id) else { return None };
        let choice = job.choices.get_mut(index)?;
        let tokens = self.scheduler.tokens(choice.seq?);
        Some((choice, &job.rules, tokens))
    }

    fn draw(&mut self, id: JobId, index: usize, row: Row<'_>) -> Result<()> {
        let Some(Job::Generation(job)) = self.jobs.get_mut(&id) else { return Ok(()) };
        let job = &mut **job;
        let Some(choice) = job.choices.get_mut(index) else { return Ok(()) };
        let Some(seq) = choice.seq else { return Ok(()) };
        let token = choice.draw(row, self.scheduler.tokens(seq), &job.rules)?;
        self.counts.completion_tokens += 1;
        if choice.finish_reason.is_some() {
            choice.seq = None;
            if let Some(keep) = job.keep.filter(|_| index == 0) {
                self.scheduler.keep(keep, seq);
            }
            self.scheduler.remove(seq);
            self.owners.remove(&seq);
        } else {
            self.scheduler.append(seq, token);
        }
        if job.is_streaming
            && let Some(chunk) = choice.chunk(index, job.rules.logprobs.is_some())
        {
            job.outbox.hold(Event::Chunk(chunk));
            self.unsent.push(id);
        }
        Ok(())
    }

    /// Takes in rows of a read-out.
    fn take_rows(&mut self, id: JobId, start: usize, rows: &[f32], vocab_size: usize) -> Result<()> {
        let Some(Job::Probing(job)) = self.jobs.get_mut(&id) else { return Ok(()) };
        match job.kind {
            ProbeKind::Logits => job.values.extend_from_slice(rows),
            ProbeKind::Score => {
                let Some((&seq, _)) = self.owners.iter().find(|(_, owner)| owner.0 == id) else {
                    return Ok(());
                };
                let tokens = self.scheduler.tokens(seq);
                for (row, token) in rows.chunks_exact(vocab_size).zip(tokens.iter().skip(start + 1)) {
                    let Some(&logit) = row.get(*token as usize) else { break };
                    if row.iter().any(|l| l.is_nan()) {
                        return Err(Error::internal("the model's logits are not numbers"));
                    }
                    job.values.push(Normaliser::of(row).logprob(logit));
                }
            }
        }
        if start + rows.len() / vocab_size.max(1) < job.len {
            return Ok(());
        }
        if let Some(Job::Probing(job)) = self.remove(id) {
            self.replies.push((job.reply, Ok(job.values)));
        }
        Ok(())
    }
}
