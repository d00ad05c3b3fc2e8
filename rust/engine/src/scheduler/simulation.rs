//! Thousands of random arrivals against a cache that remembers what was written where.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use alloyforge_types::{BLOCK_LEN, Batch, BlockId, Error, NO_BLOCK, Priority};

use super::*;
use crate::kv::most_blocks;

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How the model at hand turns its tokens.
#[derive(Clone, Copy, PartialEq)]
enum Rope {
    Plain,
    /// One table up to this length, another beyond.
    Switching(usize),
    /// A table for each length beyond this one.
    Growing(usize),
}

impl Rope {
    /// The table for token `index` of a sequence.
    fn table(self, rope_len: usize, index: usize) -> u64 {
        let len = rope_len.max(index + 1);
        match self {
            Self::Plain => 0,
            Self::Switching(after) => u64::from(len > after),
            Self::Growing(after) => len.saturating_sub(after) as u64,
        }
    }

    fn regimes(self) -> RopeRegimes {
        match self {
            Self::Plain => RopeRegimes::default(),
            Self::Switching(after) => RopeRegimes::testing(&[after], None),
            Self::Growing(after) => RopeRegimes::testing(&[], Some(after)),
        }
    }

    /// What a cache slot must hold for each of `tokens`: everything that its key and value depend on.
    fn contents(self, tokens: &[u32], rope_len: usize) -> Vec<u64> {
        let add = |hash: &mut u64, (index, &token): (usize, &u32)| {
            *hash = mix(*hash ^ u64::from(token) ^ self.table(rope_len, index) << 32 ^ 1 << 60);
            Some(*hash)
        };
        tokens.iter().enumerate().scan(0, add).collect()
    }
}

struct Simulation {
    scheduler: Scheduler,
    windows: Vec<Option<usize>>,
    /// What each group's slots hold.
    slots: Vec<HashMap<(BlockId, usize), u64>>,
    options: SchedulerOptions,
    rope: Rope,
    context_len: usize,
    is_cached_by_chance: bool,
    /// Live sequences, with how many tokens each is to have and whether all logits are wanted.
    live: BTreeMap<SeqId, (usize, bool)>,
    finished: usize,
    expired: usize,
    drafted: usize,
    random: Random,
    next_seq: SeqId,
    now: Duration,
}

impl Simulation {
    fn new(seed: u64, has_prefix_cache: bool) -> Self {
        let mut random = Random(seed);
        let windows: Vec<Option<usize>> = match random.below(4) {
            0 => vec![None],
            1 => vec![Some(1 + random.below(100))],
            2 => vec![None, Some(1 + random.below(100))],
            _ => vec![Some(40), None, Some(70)],
        };
        let context_len = 40 + random.below(400);
        let max_batch = 1 + random.below(12);
        let rope = [Rope::Plain, Rope::Switching(100), Rope::Growing(100)][random.below(3)];
        let options = SchedulerOptions {
            max_batch,
            max_rows: max_batch + 1 + random.below(120),
            max_logit_rows: max_batch + 1 + random.below(8),
            max_queue: 1 + random.below(60),
            regimes: rope.regimes(),
        };
        // from just enough for one sequence to plenty
        let plenty = 1 + random.below(6);
        let groups: Vec<(Option<usize>, usize)> = windows
            .iter()
            .map(|&w| (w, most_blocks(w, context_len, BLOCK_LEN) * plenty + random.below(3)))
            .collect();
        let kv = KvManager::new(&groups, has_prefix_cache);
        Self {
            scheduler: Scheduler::new(options.clone(), kv),
            slots: vec![HashMap::new(); windows.len()],
            windows,
            options,
            rope,
            context_len,
            is_cached_by_chance: seed.is_multiple_of(6),
            live: BTreeMap::new(),
            finished: 0,
            expired: 0,
            drafted: 0,
            random,
            next_seq: 0,
            now: Duration::ZERO,
        }
    }

    fn new_seq(&mut self) -> SeqId {
        self.next_seq += 1;
        self.next_seq
    }

    fn arrive(&mut self) {
        let is_readout = self.random.chance(5);
        let longest = self.context_len - usize::from(!is_readout);
        let prompt_len = if self.random.chance(20) {
            1 + self.random.below(longest)
        } else {
            1 + self.random.below(longest.min(90))
        };
        // one of three beginnings, of random length, then noise
        let head = self.random.below(3) as u32;
        let head_len = self.random.below(prompt_len + 1);
        let tokens: Vec<u32> = (0..prompt_len)
            .map(|i| if i < head_len { head * 1000 + i as u32 } else { self.random.below(7) as u32 })
            .collect();
        let goal = if is_readout {
            prompt_len
        } else {
            (prompt_len + 1 + self.random.below(80)).min(self.context_len)
        };
        let priority =
            [Priority::Low, Priority::Normal, Priority::High, Priority::Critical][self.random.below(4)];
        let deadline =
            self.random.chance(5).then(|| self.now + Duration::from_millis(self.random.below(3000) as u64));
        let id = self.new_seq();
        let readout = if is_readout { Readout::All } else { Readout::Last };
        let queued = self.scheduler.stats().queued;
        let is_cached = self.is_cached_by_chance && self.random.chance(50);
        let new = NewSequence { id, tokens, priority, deadline, readout, is_cached, media: None };
        match self.scheduler.submit(new, self.now) {
            Ok(()) => {
                assert!(queued < self.options.max_queue);
                self.live.insert(id, (goal, is_readout));
            }
            Err(error) => {
                assert_eq!(error, Error::QueueFull { waiting: queued, limit: self.options.max_queue });
            }
        }
    }

    fn step(&mut self) -> usize {
        self.now += Duration::from_millis(1 + self.random.below(40) as u64);
        let prefill_rows = 1 + self.random.below(self.options.max_rows);
        let decoding = self.scheduler.num_decoding();
        self.guess();
        let plan = self.scheduler.plan(self.now, prefill_rows);
        for &seq in &plan.expired {
            assert!(self.live.remove(&seq).is_some());
            self.expired += 1;
        }
        self.check_plan(&plan, prefill_rows, decoding);
        for (_, copy) in &plan.copies {
            for slot in 0..BLOCK_LEN {
                let held = self.slots[copy.group].get(&(copy.from, slot)).copied();
                match held {
                    Some(held) => self.slots[copy.group].insert((copy.to, slot), held),
                    None => self.slots[copy.group].remove(&(copy.to, slot)),
                };
            }
        }
        self.compute(&plan);
        if self.random.chance(2) {
            // the step failed: its sequences are taken out and nothing of it may be found again
            for step in &plan.steps {
                self.scheduler.remove(step.seq);
                self.live.remove(&step.seq);
            }
        } else {
            let drafts = self.drafts(&plan);
            self.scheduler.commit(&plan);
            self.take_results(&plan, drafts);
        }
        if self.random.chance(3)
            && let Some(&seq) = self.live.keys().nth(self.random.below(self.live.len().max(1)))
        {
            self.scheduler.remove(seq);
            self.live.remove(&seq);
        }
        self.scheduler.check_books();
        plan.steps.len()
    }

    /// Guesses at what some of those who decode will say, as far as they may go on.
    fn guess(&mut self) {
        for (&seq, &(goal, _)) in &self.live {
            let sequence = &self.scheduler.sequences[&seq];
            let room = goal.saturating_sub(sequence.tokens.len() + 1);
            if sequence.is_running && sequence.is_decoding() && self.random.chance(40) {
                let draft: Vec<u32> =
                    (0..self.random.below(9).min(room)).map(|_| self.random.below(7) as u32).collect();
                self.scheduler.set_draft(seq, &draft);
            }
        }
    }

    /// The guesses that a planned step computes, for each of its sequences.
    fn drafts(&self, plan: &Plan) -> Vec<Vec<u32>> {
        let draft = |s: &PlannedStep| self.scheduler.sequences[&s.seq].draft[..s.num_drafted].to_vec();
        plan.steps.iter().map(draft).collect()
    }

    fn check_plan(&self, plan: &Plan, prefill_rows: usize, num_decoding: usize) {
        let seqs: HashSet<SeqId> = plan.steps.iter().map(|s| s.seq).collect();
        assert_eq!(seqs.len(), plan.steps.len(), "a sequence twice in a step");
        assert!(plan.steps.len() <= self.options.max_batch);
        assert!(plan.num_rows() <= self.options.max_rows);
        let num_drafted: usize = plan.steps.iter().map(|s| s.num_drafted).sum();
        assert!(plan.num_rows() <= prefill_rows + num_decoding + num_drafted);
        assert!(plan.num_logits() <= self.options.max_logit_rows);
        let mut batch = Batch::default();
        self.scheduler.fill_batch(plan, &mut batch);
        assert_eq!(batch.tokens.len(), plan.num_rows());
        assert_eq!(batch.logit_rows.len(), plan.num_logits());
        assert!(batch.logit_rows.is_sorted_by(|a, b| a < b));
        let mut written = HashSet::new();
        let mut num_rows = 0;
        for (step, sequence) in plan.steps.iter().zip(&batch.sequences) {
            let tokens = self.tokens_with_draft(step);
            assert_eq!(
                batch.tokens[num_rows..num_rows + step.num_rows],
                tokens[step.start..][..step.num_rows]
            );
            num_rows += step.num_rows;
            for (g, (table, window)) in sequence.tables.iter().zip(&self.windows).enumerate() {
                let end = step.start + step.num_rows;
                assert!(table.len() * BLOCK_LEN >= end);
                for i in step.start..end {
                    assert!(written.insert((g, table[i / BLOCK_LEN], i % BLOCK_LEN)), "two rows to one slot");
                }
                let first = window.map_or(0, |w| (step.start + 1).saturating_sub(w));
                for entry in &table[first / BLOCK_LEN..end.div_ceil(BLOCK_LEN)] {
                    assert_ne!(*entry, NO_BLOCK, "a block that is seen was given back");
                }
            }
        }
        // nobody may read what is written for another
        for (step, sequence) in plan.steps.iter().zip(&batch.sequences) {
            for (g, table) in sequence.tables.iter().enumerate() {
                for index in 0..step.start {
                    let slot = (g, table[index / BLOCK_LEN], index % BLOCK_LEN);
                    assert!(slot.1 == NO_BLOCK || !written.contains(&slot), "a shared slot was written");
                }
            }
        }
    }

    fn tokens_with_draft(&self, step: &PlannedStep) -> Vec<u32> {
        let sequence = &self.scheduler.sequences[&step.seq];
        [&sequence.tokens, &sequence.draft[..step.num_drafted]].concat()
    }

    /// Writes what the step writes and checks that every row finds what it must.
    fn compute(&mut self, plan: &Plan) {
        let mut batch = Batch::default();
        self.scheduler.fill_batch(plan, &mut batch);
        for (step, sequence) in plan.steps.iter().zip(&batch.sequences) {
            let tokens = self.tokens_with_draft(step);
            let contents = self.rope.contents(&tokens, sequence.rope_len);
            for (g, table) in sequence.tables.iter().enumerate() {
                let end = step.start + step.num_rows;
                for i in step.start..end {
                    self.slots[g].insert((table[i / BLOCK_LEN], i % BLOCK_LEN), contents[i]);
                }
                let first = self.windows[g].map_or(0, |w| (step.start + 1).saturating_sub(w));
                for i in first..end {
                    let held = self.slots[g].get(&(table[i / BLOCK_LEN], i % BLOCK_LEN));
                    assert_eq!(held, Some(&contents[i]), "slot {i} of group {g} holds another text");
                }
            }
            if self.rope == Rope::Switching(100) {
                let tables =
                    [0, step.start + step.num_rows - 1].map(|i| self.rope.table(sequence.rope_len, i));
                assert_eq!(tables[0], tables[1], "two tables in one sequence");
            }
        }
    }

    fn take_results(&mut self, plan: &Plan, drafts: Vec<Vec<u32>>) {
        for (step, draft) in plan.steps.iter().zip(drafts) {
            let Some(&(goal, is_readout)) = self.live.get(&step.seq) else { continue };
            let len = self.scheduler.tokens(step.seq).len();
            if is_readout {
                assert_eq!(step.num_logits, step.num_rows);
                if step.start + step.num_rows == len {
                    self.finish(step.seq);
                }
                continue;
            }
            let reaches_end = step.start + step.num_rows - step.num_drafted == len;
            assert_eq!(step.num_logits, if reaches_end { 1 + step.num_drafted } else { 0 });
            if step.num_logits == 0 {
                continue;
            }
            if self.live.len() < 60 && self.random.chance(2) {
                for _ in 0..1 + self.random.below(4) {
                    let child = self.new_seq();
                    self.scheduler.fork(step.seq, child).unwrap();
                    self.live.insert(child, (goal, false));
                    self.grow(child, goal);
                }
            }
            for guess in draft {
                if !self.random.chance(60) || !self.live.contains_key(&step.seq) {
                    break;
                }
                self.drafted += 1;
                self.scheduler.append(step.seq, guess);
                self.scheduler.confirm(step.seq);
            }
            self.grow(step.seq, goal);
        }
    }

    fn grow(&mut self, seq: SeqId, goal: usize) {
        if self.scheduler.tokens(seq).len() + 1 >= goal {
            self.finish(seq);
        } else {
            let token = self.random.below(5) as u32;
            self.scheduler.append(seq, token);
        }
    }

    fn finish(&mut self, seq: SeqId) {
        if self.random.chance(20) {
            self.scheduler.keep(self.random.next() % 4, seq);
        }
        if self.random.chance(5) {
            self.scheduler.let_go(self.random.next() % 4);
        }
        self.scheduler.remove(seq);
        self.live.remove(&seq);
        self.finished += 1;
    }

    /// Lets everything end; every step must bring something further.
    fn drain(&mut self) {
        let mut idle = 0;
        while !self.scheduler.is_empty() {
            idle = if self.step() == 0 { idle + 1 } else { 0 };
            assert!(idle < 4, "sequences are here and nothing moves: {:?}", self.scheduler.stats());
        }
        assert!(self.live.is_empty());
        let stats = self.scheduler.stats();
        assert_eq!((stats.running, stats.waiting, stats.queued, stats.blocks_used), (0, 0, 0, 0));
    }
}

#[test]
fn random_arrivals() {
    let mut preemptions = 0;
    let mut hits = 0;
    let mut expired = 0;
    let mut finished = 0;
    let mut drafted = 0;
    for seed in 0..120 {
        let mut simulation = Simulation::new(seed, seed % 3 != 0);
        for _ in 0..200 {
            for _ in 0..simulation.random.below(3) {
                simulation.arrive();
            }
            simulation.step();
        }
        simulation.drain();
        let stats = simulation.scheduler.stats();
        assert!(seed % 3 != 0 || seed.is_multiple_of(6) || stats.prefix_hit_tokens == 0);
        preemptions += stats.preemptions;
        hits += stats.prefix_hit_tokens;
        expired += simulation.expired;
        finished += simulation.finished;
        drafted += simulation.drafted;
    }
    // the paths that the checks above are meant for were taken
    let counts = format!(
        "{finished} finished, {preemptions} preempted, {hits} found, {expired} expired, {drafted} guessed"
    );
    assert!(finished > 5000 && preemptions > 1000 && hits > 5000 && expired > 100, "{counts}");
    assert!(drafted > 1000, "{counts}");
}

fn plain(max_batch: usize, num_blocks: usize) -> Scheduler {
    let options = SchedulerOptions {
        max_batch,
        max_rows: 256,
        max_logit_rows: max_batch + 1,
        max_queue: 1000,
        regimes: RopeRegimes::default(),
    };
    Scheduler::new(options, KvManager::new(&[(None, num_blocks)], false))
}

fn sequence(id: SeqId, len: usize, priority: Priority) -> NewSequence {
    NewSequence {
        id,
        tokens: vec![7; len],
        priority,
        deadline: None,
        readout: Readout::Last,
        is_cached: false,
        media: None,
    }
}

/// Serves until all of `goals` (tokens to write) are reached; the order in which they were.
fn serve(scheduler: &mut Scheduler, now: &mut Duration, mut goals: BTreeMap<SeqId, usize>) -> Vec<SeqId> {
    let mut order = Vec::new();
    while !goals.is_empty() {
        let plan = scheduler.plan(*now, 64);
        scheduler.commit(&plan);
        for step in plan.steps.iter().filter(|s| s.num_logits == 1) {
            let left = goals.get_mut(&step.seq).unwrap();
            *left -= 1;
            if *left == 0 {
                goals.remove(&step.seq);
                scheduler.remove(step.seq);
                order.push(step.seq);
            } else {
                scheduler.append(step.seq, 1);
            }
        }
        *now += Duration::from_millis(10);
    }
    order
}

#[test]
fn first_come_first_served_within_a_priority_and_priorities_before_that() {
    let mut scheduler = plain(1, 100);
    let mut now = Duration::ZERO;
    let priorities = [Priority::Low, Priority::Normal, Priority::Low, Priority::Critical, Priority::High];
    for (i, priority) in priorities.into_iter().enumerate() {
        scheduler.submit(sequence(i as u64, 3, priority), now).unwrap();
        now += Duration::from_millis(1);
    }
    let order = serve(&mut scheduler, &mut now, (0..5).map(|i| (i, 2)).collect());
    assert_eq!(order, [3, 4, 1, 0, 2]);
}

#[test]
fn a_low_request_is_served_before_normal_ones_that_came_much_later() {
    let mut scheduler = plain(1, 100);
    scheduler.submit(sequence(0, 3, Priority::Low), Duration::ZERO).unwrap();
    let mut now = AGEING - Duration::from_millis(1);
    scheduler.submit(sequence(1, 3, Priority::Normal), now).unwrap();
    now += Duration::from_millis(2);
    scheduler.submit(sequence(2, 3, Priority::Normal), now).unwrap();
    let order = serve(&mut scheduler, &mut now, (0..3).map(|i| (i, 2)).collect());
    assert_eq!(order, [1, 0, 2]);
}

#[test]
fn a_higher_priority_takes_the_place_of_a_lower_one() {
    let mut scheduler = plain(2, 100);
    let mut now = Duration::ZERO;
    for i in 0..3 {
        scheduler.submit(sequence(i, 3, Priority::Low), now).unwrap();
    }
    let plan = scheduler.plan(now, 64);
    assert_eq!(plan.admitted, [(0, 0), (1, 0)]);
    scheduler.commit(&plan);
    for step in plan.steps {
        scheduler.append(step.seq, 1);
    }
    scheduler.submit(sequence(9, 3, Priority::Critical), now).unwrap();
    let plan = scheduler.plan(now, 64);
    assert_eq!((plan.preempted.as_slice(), plan.admitted.as_slice()), ([1].as_slice(), [(9, 0)].as_slice()));
    scheduler.commit(&plan);
    for step in plan.steps.iter().filter(|s| s.num_logits == 1) {
        scheduler.append(step.seq, 1);
    }
    let order = serve(&mut scheduler, &mut now, [(0, 3), (1, 3), (2, 3), (9, 1)].into());
    assert_eq!(order[0], 9);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut scheduler = plain(4, 1000);
    let mut now = Duration::ZERO;
    scheduler.submit(sequence(0, 5000, Priority::Normal), now).unwrap();
    scheduler.submit(sequence(1, 20, Priority::Normal), now).unwrap();
    let order = serve(&mut scheduler, &mut now, [(0, 1), (1, 3)].into());
    assert_eq!(order, [1, 0]);
    assert!(now < Duration::from_secs(2));
}

#[test]
fn small_ones_pass_one_that_is_too_large_for_now_but_not_for_ever() {
    let mut scheduler = plain(3, 8);
    let mut now = Duration::ZERO;
    // half of the blocks are in use for long, and the large one needs more than the other half
    scheduler.submit(sequence(0, 120, Priority::Normal), now).unwrap();
    let plan = scheduler.plan(now, 256);
    scheduler.commit(&plan);
    scheduler.submit(sequence(1, 150, Priority::Normal), now).unwrap();
    let mut goals: BTreeMap<SeqId, usize> = [(0, 100), (1, 1)].into();
    for i in 2..300 {
        scheduler.submit(sequence(i, 3, Priority::Normal), now).unwrap();
        goals.insert(i, 2);
    }
    scheduler.append(0, 1);
    let order = serve(&mut scheduler, &mut now, goals);
    let place = |seq: SeqId| order.iter().position(|&s| s == seq).unwrap();
    assert!(place(2) < place(1), "nobody passed");
    assert!(place(1) < 120, "everybody passed: {}", place(1));
}

#[test]
fn a_full_queue_refuses() {
    let mut scheduler = plain(1, 100);
    scheduler.options.max_queue = 2;
    let now = Duration::ZERO;
    for i in 0..2 {
        scheduler.submit(sequence(i, 3, Priority::Normal), now).unwrap();
    }
    let refused = scheduler.submit(sequence(2, 3, Priority::Normal), now);
    assert_eq!(refused, Err(Error::QueueFull { waiting: 2, limit: 2 }));
    scheduler.plan(now, 64);
    scheduler.submit(sequence(2, 3, Priority::Normal), now).unwrap();
}

#[test]
fn time_runs_out_in_the_queue_and_in_the_batch() {
    let mut scheduler = plain(1, 100);
    for i in 0..2 {
        let deadline = Some(Duration::from_secs(1 + i));
        let new = NewSequence { deadline, ..sequence(i, 3, Priority::Normal) };
        scheduler.submit(new, Duration::ZERO).unwrap();
    }
    let plan = scheduler.plan(Duration::ZERO, 64);
    scheduler.commit(&plan);
    assert!(scheduler.plan(Duration::from_millis(999), 64).expired.is_empty());
    assert_eq!(scheduler.plan(Duration::from_secs(1), 64).expired, [0]);
    assert_eq!(scheduler.plan(Duration::from_secs(5), 64).expired, [1]);
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.stats().blocks_used, 0);
}

#[test]
fn those_with_the_same_beginning_compute_it_once() {
    let mut scheduler = plain(8, 1000);
    scheduler.kv = KvManager::new(&[(None, 1000)], true);
    let mut now = Duration::ZERO;
    let prompt_of = |i: u64| (0..640).chain([2000 + i as u32]).collect::<Vec<u32>>();
    for i in 0..8 {
        let new = NewSequence { tokens: prompt_of(i), ..sequence(i, 1, Priority::Normal) };
        scheduler.submit(new, now).unwrap();
    }
    let mut rows = 0;
    while !scheduler.is_empty() {
        let plan = scheduler.plan(now, 128);
        rows += plan.num_rows();
        scheduler.commit(&plan);
        for step in plan.steps.iter().filter(|s| s.num_logits == 1) {
            scheduler.remove(step.seq);
        }
        now += Duration::from_millis(1);
    }
    assert!(rows < 640 + 8 * 64, "{rows} rows were computed");
    assert!(scheduler.stats().prefix_hit_tokens >= 7 * 576);
}

impl Scheduler {
    /// Counts every reference again and compares.
    fn check_books(&self) {
        let blocks: Vec<&crate::kv::SequenceBlocks> = self.sequences.values().map(|s| &s.blocks).collect();
        self.kv.check_books(&blocks);
        assert_eq!(self.running.len() + self.waiting.len(), self.sequences.len());
        for (id, sequence) in &self.sequences {
            let line = if sequence.is_running { &self.running } else { &self.waiting };
            assert!(line.contains(&sequence.rank) && sequence.rank.seq == *id);
            assert!(sequence.is_running || sequence.blocks.is_empty());
            assert!(sequence.num_computed <= sequence.tokens.len());
        }
        let queued = self.sequences.values().filter(|s| !s.was_admitted).count();
        assert_eq!(queued, self.num_queued);
        let deadlines = self.sequences.values().filter(|s| s.deadline.is_some()).count();
        assert_eq!(deadlines, self.deadlines.len());
    }
}
