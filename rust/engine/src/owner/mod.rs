//! The one thread that owns the model.
//!
//! It repeats: take in what callers sent, plan a step, compute it, draw tokens, publish the counts,
//! deliver. Nobody else touches the model, the scheduler or a request's state, so that there is no
//! lock to take in the wrong order. Without work it sleeps in the channel.
//!
//! A panic stays with those it concerns: one while a request's token is drawn or its text written
//! fails that request. A step that fails, by a panic too, is computed again one sequence at a time, and
//! those fail that fail by themselves. A panic in this thread's own books fails all requests and begins
//! with empty books.

mod books;
mod pace;
mod rows;
mod speculation;
mod transfer;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use alloyforge_interfaces::Model;
use alloyforge_types::{Batch, DrawnToken, Error, Result};

use crate::command::Command;
use crate::draft::model::ModelDrafter;
use crate::engine::Shared;
use crate::scheduler::{Plan, PlannedStep, Scheduler};
use books::Books;
use pace::Pace;
pub(crate) use rows::Row;
use rows::Rows;
use speculation::Speculation;

/// What the owner thread starts with.
pub(crate) struct Owner {
    pub(crate) model: Box<dyn Model>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) shared: Arc<Shared>,
    /// Makes a scheduler with empty books.
    pub(crate) scheduler: Box<dyn Fn() -> Scheduler + Send>,
    pub(crate) max_rows: usize,
    /// Most guesses in one step.
    pub(crate) max_guesses: usize,
    /// A smaller model to guess with.
    pub(crate) drafter: Option<ModelDrafter>,
    /// The engine's beginning: the zero of all times.
    pub(crate) epoch: Instant,
}

impl Owner {
    /// Serves until the engine is closed.
    pub(crate) fn run(self) {
        let Self { model, commands, shared, scheduler, max_rows, max_guesses, drafter, epoch } = self;
        let mut stepper = Stepper {
            model,
            batch: Batch::default(),
            logits: Vec::new(),
            drawn: None,
            pace: Pace::new(max_rows),
            speculation: Speculation::new(drafter, max_guesses),
            max_rows,
            signature: None,
        };
        let mut books = Books::new(scheduler(), Arc::clone(&shared), epoch);
        loop {
            let is_open = catch_unwind(AssertUnwindSafe(|| {
                let is_open = books.take_in(&commands);
                if is_open {
                    stepper.step(&mut books);
                }
                is_open
            }));
            match is_open {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => {
                    // nothing that the books say can be relied on
                    let error = Error::internal(message(&*panic));
                    books.fail_all(&error);
                    let counts = books.counts();
                    books = Books::new(scheduler(), Arc::clone(&shared), epoch);
                    books.go_on_from(counts);
                }
            }
        }
        books.fail_all(&Error::Closed);
    }
}

impl Books {
    /// Takes in what callers have sent; waits for something where there is nothing to do. False once
    /// the engine is closed.
    fn take_in(&mut self, commands: &Receiver<Command>) -> bool {
        if self.is_idle() {
            match commands.recv() {
                Ok(Command::Close) | Err(_) => return false,
                Ok(command) => self.obey(command),
            }
        }
        loop {
            match commands.try_recv() {
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => break,
            }
        }
        self.deliver();
        true
    }
}

/// The model with the buffers of a step.
struct Stepper {
    model: Box<dyn Model>,
    batch: Batch,
    logits: Vec<f32>,
    /// What the device drew, where that was left to it.
    drawn: Option<Vec<DrawnToken>>,
    pace: Pace,
    speculation: Speculation,
    max_rows: usize,
    /// See [`Stepper::signature`]; found out when first asked for.
    signature: Option<u64>,
}

impl Stepper {
    fn step(&mut self, books: &mut Books) {
        let began = Instant::now();
        self.transfer(books);
        let rows = self.pace.prefill_rows(books.scheduler.num_decoding());
        self.speculation.guess(books);
        let plan = books.plan(rows);
        if !plan.steps.is_empty() {
            let begin = Instant::now();
            let copied = self.caught(|stepper| stepper.copy(&plan));
            match copied.and_then(|()| self.compute(books, &plan)) {
                Ok(()) => {
                    let took = begin.elapsed();
                    books.count_step(took);
                    let is_decode = |s: &&PlannedStep| s.num_rows == 1 + s.num_drafted && s.start > 0;
                    let num_decodes = plan.steps.iter().filter(is_decode).count();
                    let num_drafted: usize = plan.steps.iter().map(|s| s.num_drafted).sum();
                    let num_prefill_rows = plan.num_rows() - num_decodes - num_drafted;
                    if num_drafted == 0 {
                        self.pace.note(num_decodes, num_prefill_rows, took);
                    }
                    books.commit(&plan, self.rows());
                    if num_prefill_rows == 0 {
                        self.speculation.note(plan.num_rows(), num_drafted, begin.elapsed());
                    }
                }
                Err(error) => self.try_one_by_one(books, &plan, &error),
            }
        }
        books.deliver();
        books.count_busy(began.elapsed());
    }

    /// The parts of a step that failed with `error`, each by itself, so that only those fail that the
    /// fault is in: what a row gives does not depend on the rows beside it, and what was written before is
    /// written again, blocks that were copied for the step too.
    fn try_one_by_one(&mut self, books: &mut Books, plan: &Plan, error: &Error) {
        let is_alone = plan.steps.len() == 1;
        if is_alone || self.caught(|stepper| stepper.copy(plan)).is_err() {
            return books.fail_step(plan, error);
        }
        for step in &plan.steps {
            // a choice of the same request may have failed it
            if !books.scheduler.contains(step.seq) {
                continue;
            }
            let part = Plan { steps: vec![*step], ..Plan::default() };
            match self.compute(books, &part) {
                Ok(()) => books.commit(&part, self.rows()),
                Err(error) => books.fail_step(&part, &error),
            }
        }
    }

    /// What the last step gave for each asked row.
    fn rows(&self) -> Rows<'_> {
        match &self.drawn {
            Some(tokens) => Rows::Drawn(tokens),
            None => Rows::Logits { values: &self.logits, vocab_size: self.model.spec().vocab_size },
        }
    }

    fn caught<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|panic| Err(Error::internal(format!("a step failed: {}", message(&*panic)))))
    }

    fn copy(&mut self, plan: &Plan) -> Result<()> {
        let mut copies = plan.copies.iter().map(|(_, copy)| *copy).peekable();
        while let Some(copy) = copies.next() {
            // blocks copied together: none is read after it was written
            let mut pairs = vec![(copy.from, copy.to)];
            while let Some(next) = copies.next_if(|next| {
                next.group == copy.group && pairs.iter().all(|p| p.0 != next.to && p.1 != next.from)
            }) {
                pairs.push((next.from, next.to));
            }
            self.model.copy_blocks(copy.group, &pairs)?;
        }
        Ok(())
    }

    fn compute(&mut self, books: &Books, plan: &Plan) -> Result<()> {
        books.scheduler.fill_batch(plan, &mut self.batch);
        self.drawn = None;
        if self.model.can_draw()
            && let Some(draws) = books.device_draws(plan)
        {
            let tokens = self.caught(|stepper| {
                books.pass_faults(plan);
                stepper.model.draw(&stepper.batch, &draws)
            })?;
            if tokens.len() != draws.len() {
                return Err(Error::internal(format!(
                    "the model drew {} of {} tokens",
                    tokens.len(),
                    draws.len()
                )));
            }
            self.drawn = Some(tokens);
            return Ok(());
        }
        self.caught(|stepper| {
            books.pass_faults(plan);
            stepper.model.forward(&stepper.batch, &mut stepper.logits)
        })?;
        let wanted = plan.num_logits() * self.model.spec().vocab_size;
        if self.logits.len() != wanted {
            return Err(Error::internal(format!("the model gave {} logits of {wanted}", self.logits.len())));
        }
        Ok(())
    }
}

/// A panic's words.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
