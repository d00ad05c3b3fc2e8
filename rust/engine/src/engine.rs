//! The engine: a model on a thread of its own, and the door to it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use alloyforge_interfaces::{Encoder, MemoryUse, Model, Tokenizer};
use alloyforge_types::{Error, KvType, ModelSpec, Result, SamplingParams};

use crate::command::{Command, JobId, Transfer};
use crate::constraint::{Constraints, Guide};
use crate::draft::guesser::Guesser;
use crate::draft::model::{MOST_SEQUENCES, ModelDrafter};
use crate::handle::Outbox;
use crate::job::{Choice, Generation, Moments, Probing, Rules, Ticket};
use crate::kv::{KvManager, KvSize, free_memory, least_kv, size_kv};
use crate::media::desk::Desk;
use crate::media::{MediaPrompt, SequenceMedia};
use crate::owner::Owner;
use crate::probe::{Probe, ProbeKind};
use crate::sampling::{Sampler, derive_seed};
use crate::scheduler::{RopeRegimes, Scheduler, SchedulerOptions};
use crate::text::TextStream;
use crate::{Conversation, Draft, EngineOptions, Event, Handle, Request, Stats, conversation};

/// What the owner thread publishes.
#[derive(Default)]
pub(crate) struct Shared {
    stats: Mutex<Stats>,
    /// Requests submitted and not served yet.
    queued: Arc<AtomicUsize>,
}

impl Shared {
    pub(crate) fn publish(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    pub(crate) fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to know of a model that an engine runs.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// The decoder.
    pub spec: ModelSpec,
    /// The device, by the name the public API uses.
    pub device: String,
    /// The type of cached keys and values.
    pub kv_type: KvType,
    /// Threads that compute.
    pub threads: usize,
    /// Bytes held.
    pub memory: MemoryUse,
    /// The KV cache's size.
    pub kv: KvSize,
}

/// A model that serves requests together. Any thread may call any method at any time.
pub struct Engine {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_closed: AtomicBool,
    next_job: AtomicU64,
    tokenizer: Arc<dyn Tokenizer>,
    facts: ModelFacts,
    guesses: Guesses,
    max_queue: usize,
    constraints: Constraints,
    /// Where media are encoded, where the model takes any.
    desk: Option<Desk>,
    epoch: Instant,
    /// A child process has the engine's memory and not its thread.
    process: u32,
}

impl Engine {
    /// Sizes the KV cache and starts serving.
    ///
    /// # Errors
    /// `InvalidRequest` for an option out of range, `OutOfMemory` where the KV cache does not fit,
    /// `Internal` where no thread can be started.
    pub fn start(
        model: Box<dyn Model>,
        tokenizer: Arc<dyn Tokenizer>,
        options: &EngineOptions,
    ) -> Result<Self> {
        Self::start_drafting(model, Draft::Off, tokenizer, options)
    }

    /// As [`start`](Self::start), with guesses at the tokens to come.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_drafting(
        mut model: Box<dyn Model>,
        draft: Draft,
        tokenizer: Arc<dyn Tokenizer>,
        options: &EngineOptions,
    ) -> Result<Self> {
        options.check()?;
        let spec = model.spec().clone();
        let free =
            |model: &dyn Model| options.free_memory.or_else(|| model.free_memory()).or_else(free_memory);
        let guesses = match &draft {
            Draft::Off => Guesses::Never,
            Draft::Ngram => Guesses::FromText,
            Draft::Model(_) => Guesses::Told,
        };
        let drafter = match draft {
            Draft::Model(draft) => {
                // what the model itself is promised stays
                let least = least_kv(&spec, model.kv_type(), options)?;
                let left = free(&*draft).map(|free| free.saturating_sub(least));
                Some(drafter(draft, &spec, options, left)?)
            }
            Draft::Off | Draft::Ngram => None,
        };
        // a draft model's cache is taken by now
        let kv = size_kv(&spec, model.kv_type(), options, free(&*model))?;
        model.reserve_kv(&kv.blocks)?;
        let facts = ModelFacts {
            device: model.device().to_owned(),
            kv_type: model.kv_type(),
            threads: model.threads(),
            memory: model.memory(),
            spec,
            kv,
        };

        let windows = facts.spec.kv_groups.iter().map(|g| g.window);
        let groups: Vec<(Option<usize>, usize)> = windows.zip(facts.kv.blocks.iter().copied()).collect();
        let scheduler_options = SchedulerOptions {
            max_batch: options.max_batch,
            max_rows: options.max_rows,
            max_logit_rows: options.max_logit_rows(),
            max_queue: options.max_queue,
            regimes: RopeRegimes::new(&facts.spec),
        };
        let prefix_cache = options.prefix_cache;
        let scheduler =
            move || Scheduler::new(scheduler_options.clone(), KvManager::new(&groups, prefix_cache));

        let (commands, received) = channel();
        let shared = Arc::new(Shared::default());
        shared.publish(Stats { kv_blocks_total: facts.kv.blocks.iter().sum(), ..Stats::default() });
        let epoch = Instant::now();
        let owner = Owner {
            model,
            commands: received,
            shared: Arc::clone(&shared),
            scheduler: Box::new(scheduler),
            max_rows: options.max_rows,
            max_guesses: options.max_logit_rows() - options.max_batch,
            drafter,
            epoch,
        };
        let thread = thread::Builder::new()
            .name("alloyforge-engine".into())
            .spawn(move || owner.run())
            .map_err(|e| Error::internal(format!("no thread for the engine: {e}")))?;
        Ok(Self {
            commands,
            shared,
            thread: Mutex::new(Some(thread)),
            is_closed: AtomicBool::new(false),
            next_job: AtomicU64::new(0),
            constraints: Constraints::new(Arc::clone(&tokenizer), facts.spec.vocab_size),
            tokenizer,
            facts,
            guesses,
            max_queue: options.max_queue,
            desk: None,
            epoch,
            process: std::process::id(),
        })
    }

    /// The same engine, which has media encoded by `encoder`.
    ///
    /// # Errors
    /// `Internal` where no thread can be started.
    pub fn with_encoder(self, encoder: Arc<dyn Encoder>) -> Result<Self> {
        let mut engine = self;
        engine.desk = Some(Desk::start(encoder)?);
        Ok(engine)
    }

    /// The model that it runs.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// Counts.
    pub fn stats(&self) -> Stats {
        let stats = self.shared.stats();
        Stats { waiting: stats.waiting + self.shared.queued.load(Ordering::Relaxed), ..stats }
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// `InvalidRequest` naming the parameter at fault, `ContextLength`, `QueueFull`, `Closed`.
    pub fn submit(&self, mut request: Request) -> Result<Handle> {
        self.check_open()?;
        if request.prompt.is_empty() {
            match self.tokenizer.bos() {
                (Some(bos), _) => request.prompt.push(bos),
                (None, _) => {
                    return Err(Error::invalid(
                        "prompt",
                        "is empty, and the model has no BOS token to begin with",
                    ));
                }
            }
        }
        self.check_tokens("prompt", &request.prompt)?;
        let room = self.room_behind(request.prompt.len())?;
        self.check_request(&request)?;

        let mut stop_tokens = request.stop_tokens;
        if !request.ignore_eos {
            stop_tokens.extend_from_slice(self.tokenizer.eos());
        }
        let seed = request.sampling.seed.unwrap_or_else(system_seed);
        let guides: Vec<Option<Guide>> = match &request.constraint {
            Some(form) => self.constraints.guides(form, request.n)?.into_iter().map(Some).collect(),
            None => (0..request.n).map(|_| None).collect(),
        };
        let choices = (0..).zip(guides).map(|(i, guide)| {
            let seed = derive_seed(seed, i);
            let sampling = SamplingParams { seed: Some(seed), ..request.sampling.clone() };
            let vocab_size = self.facts.spec.vocab_size;
            let sampler = Sampler::new(&sampling, vocab_size, Some(&*self.tokenizer), seed)?;
            let tokenizer = Arc::clone(&self.tokenizer);
            let stream = TextStream::new(tokenizer, request.stop.clone(), request.special_text);
            let guesser = match self.guesses {
                Guesses::Never => None,
                Guesses::FromText => Some(Guesser::from_text()),
                Guesses::Told => Some(Guesser::told()),
            };
            Ok(Choice::new(sampler, stream, guesser, guide))
        });
        let choices = choices.collect::<Result<Vec<_>>>()?;

        let ticket = Ticket::take(&self.shared.queued, self.max_queue)?;
        let id = self.new_job();
        let (outbox, handle) = Outbox::new(id, self.commands.clone());
        let generation = Generation {
            outbox,
            prompt_len: request.prompt.len(),
            prompt: request.prompt,
            media: None,
            cached_tokens: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            rules: Rules {
                max_tokens: request.max_tokens.unwrap_or(room).min(room),
                stop_tokens,
                logprobs: request.logprobs,
                fault: request.fault,
            },
            is_streaming: request.stream,
            priority: request.priority,
            timeout: request.timeout,
            choices,
            ticket: Some(ticket),
            moments: Moments { submitted: self.epoch.elapsed(), ..Moments::default() },
            keep: request.conversation.map(|c| c.0),
        };
        let mut generation = Box::new(generation);
        let Some(media) = request.media else {
            self.send(Command::Generate(id, generation))?;
            return Ok(handle);
        };
        let commands = self.commands.clone();
        self.encode(media, move |media| match media {
            Ok(media) => {
                generation.media = Some(Arc::new(media));
                // a closed engine drops the command, which fails the request
                let _ = commands.send(Command::Generate(id, generation));
            }
            Err(error) => {
                generation.outbox.hold(Event::Failed(error));
                generation.outbox.flush();
            }
        })?;
        Ok(handle)
    }

    /// Begins to read out the logits of `tokens`, or their log probabilities.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and `OutOfMemory` where the values do not fit.
    pub fn probe(&self, tokens: Vec<u32>, kind: ProbeKind) -> Result<Probe> {
        self.probe_with(tokens, None, kind)
    }

    /// As [`probe`](Self::probe), of a prompt with media.
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    pub fn probe_with(&self, tokens: Vec<u32>, media: Option<MediaPrompt>, kind: ProbeKind) -> Result<Probe> {
        self.check_open()?;
        if tokens.is_empty() {
            return Err(Error::invalid("prompt", "is empty"));
        }
        self.check_tokens("prompt", &tokens)?;
        if tokens.len() > self.facts.kv.context_len {
            return Err(Error::ContextLength { tokens: tokens.len(), limit: self.facts.kv.context_len });
        }
        let num_values = match kind {
            ProbeKind::Logits => tokens.len().saturating_mul(self.facts.spec.vocab_size),
            ProbeKind::Score => tokens.len() - 1,
        };
        let values = reserve(num_values)?;
        let ticket = Ticket::take(&self.shared.queued, self.max_queue)?;
        let id = self.new_job();
        let (reply, probe) = Probe::new(id, self.commands.clone());
        let len = tokens.len();
        let probing = Probing { tokens, media: None, kind, values, len, reply, ticket: Some(ticket) };
        let mut probing = Box::new(probing);
        let Some(media) = media else {
            self.send(Command::Probe(id, probing))?;
            return Ok(probe);
        };
        let commands = self.commands.clone();
        self.encode(media, move |media| match media {
            Ok(media) => {
                probing.media = Some(Arc::new(media));
                let _ = commands.send(Command::Probe(id, probing));
            }
            // who no longer waits gets nothing
            Err(error) => drop(probing.reply.send(Err(error))),
        })?;
        Ok(probe)
    }

    /// A conversation that keeps nothing yet.
    ///
    /// # Errors
    /// `Closed`.
    pub fn conversation(&self) -> Result<Conversation> {
        self.check_open()?;
        Ok(Conversation::new(self.new_job(), self.commands.clone()))
    }

    /// A second conversation that keeps what `conversation` does.
    ///
    /// # Errors
    /// `Closed`.
    pub fn fork(&self, conversation: &Conversation) -> Result<Conversation> {
        let fork = self.conversation()?;
        self.send(Command::Fork(conversation.id().0, fork.id().0))?;
        Ok(fork)
    }

    /// Writes what `conversation` keeps to a file, with a text of the caller's own.
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `Device`, `Closed`.
    pub fn save(&self, conversation: &Conversation, path: &Path, text: String) -> Result<()> {
        self.check_open()?;
        let (reply, contents) = channel();
        self.send(Command::Transfer(Transfer::Out(conversation.id().0, reply)))?;
        conversation::write(path, &contents.recv().unwrap_or(Err(Error::Closed))?, text)
    }

    /// Has `conversation` keep what a file holds, in place of what it kept before, and gives the
    /// caller's text. What finds no place in the cache will be computed again.
    ///
    /// # Errors
    /// `Io`; `Format` for a file that is damaged or no conversation; `InvalidRequest` where another
    /// model wrote it; `OutOfMemory`, `Device`, `Closed`.
    pub fn restore(&self, conversation: &Conversation, path: &Path) -> Result<String> {
        self.check_open()?;
        let (contents, text) = conversation::read(path)?;
        let (reply, done) = channel();
        self.send(Command::Transfer(Transfer::In(conversation.id().0, contents, reply)))?;
        done.recv().unwrap_or(Err(Error::Closed))?;
        Ok(text)
    }

    /// Has the media of `prompt` encoded and calls `then` with what a sequence carries of them.
    fn encode(
        &self,
        prompt: MediaPrompt,
        then: impl FnOnce(Result<SequenceMedia>) + Send + 'static,
    ) -> Result<()> {
        let Some(desk) = &self.desk else {
            return Err(Error::invalid("media", "the model takes none"));
        };
        let hidden_dim = self.facts.spec.hidden_dim;
        let items = prompt.items.clone();
        desk.encode(
            &items,
            Box::new(move |rows| then(rows.and_then(|rows| SequenceMedia::new(&prompt, &rows, hidden_dim)))),
        );
        Ok(())
    }

    /// Ends all requests with `Closed` and frees the model. Calls after the first do nothing.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // where the thread has ended, nobody listens
        let _ = self.commands.send(Command::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && self.process == std::process::id()
        {
            // its panics were caught inside
            let _ = thread.join();
        }
    }

    /// # Errors
    /// `Closed`; `Device` in a child process, which has no engine thread.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.process != std::process::id() {
            let fault = "the session was opened before this process was forked; open one here".to_owned();
            return Err(Error::Device { device: self.facts.device.clone(), fault });
        }
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    fn new_job(&self) -> JobId {
        self.next_job.fetch_add(1, Ordering::Relaxed)
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::Closed)
    }

    /// How many tokens fit behind a prompt of `len`.
    fn room_behind(&self, len: usize) -> Result<usize> {
        let limit = self.facts.kv.context_len;
        if len >= limit {
            return Err(Error::ContextLength { tokens: len.saturating_add(1), limit });
        }
        Ok(limit - len)
    }

    fn check_tokens(&self, name: &str, tokens: &[u32]) -> Result<()> {
        let vocab_size = self.facts.spec.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= vocab_size) {
            Some(id) => {
                let fault = format!("token id {id} is outside the vocabulary of {vocab_size} tokens");
                Err(Error::invalid(name, fault))
            }
            None => Ok(()),
        }
    }

    fn check_request(&self, request: &Request) -> Result<()> {
        let invalid = |name: &str, fault: &str| Err(Error::invalid(name, fault));
        if request.max_tokens == Some(0) {
            return invalid("max_tokens", "must be at least 1");
        }
        if request.n == 0 || request.n > MAX_CHOICES {
            return Err(Error::invalid("n", format!("must be between 1 and {MAX_CHOICES}")));
        }
        if request.stop.iter().any(String::is_empty) {
            return invalid("stop", "an empty text would stop every answer at once");
        }
        if request.timeout.is_some_and(|t| !(t > 0.0 && t.is_finite())) {
            return invalid("timeout", "must be a positive, finite number of seconds");
        }
        if request.logprobs.is_some_and(|k| k > self.facts.spec.vocab_size) {
            return invalid("logprobs", "asks for more alternatives than there are tokens");
        }
        self.check_tokens("stop_tokens", &request.stop_tokens)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where the guesses at a request's tokens come from.
#[derive(Debug, Clone, Copy)]
enum Guesses {
    Never,
    FromText,
    Told,
}

/// A drafter on `draft`, with a cache for the few sequences that it is asked about at once.
///
/// # Errors
/// `InvalidRequest` where it has fewer tokens than the model of `spec`, `OutOfMemory`.
fn drafter(
    mut draft: Box<dyn Model>,
    spec: &ModelSpec,
    options: &EngineOptions,
    free: Option<u64>,
) -> Result<ModelDrafter> {
    let own = EngineOptions {
        context_len: None,
        kv_memory: None,
        max_batch: MOST_SEQUENCES.min(options.max_batch),
        prefix_cache: false,
        ..options.clone()
    };
    // a quarter of the half that a model with its own cache alone would take
    let kv = size_kv(draft.spec(), draft.kv_type(), &own, free.map(|n| n / 4))?;
    draft.reserve_kv(&kv.blocks)?;
    Ok(ModelDrafter::new(draft, &kv.blocks, options.max_rows, kv.context_len, spec.vocab_size))
}

/// Most answers to one request.
const MAX_CHOICES: usize = 1024;

/// # Errors
/// `OutOfMemory`.
fn reserve(num_values: usize) -> Result<Vec<f32>> {
    let needed = (num_values as u64).saturating_mul(4);
    let available = free_memory().unwrap_or(u64::MAX);
    let mut values = Vec::new();
    if needed > available || values.try_reserve_exact(num_values).is_err() {
        return Err(Error::OutOfMemory { what: "the values read out".into(), needed, available });
    }
    Ok(values)
}

/// A seed that nobody chose.
fn system_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // every RandomState has keys of its own, drawn from the operating system
    RandomState::new().build_hasher().finish()
}
