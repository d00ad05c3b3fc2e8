//! Where a step's time goes, phase by phase.
//!
//! `cargo bench -p alloyforge-backend-cpu --bench steps -- MODEL.gguf [THREADS] [f16|bf16|f32|q8_0]`. For
//! each kind of step, the best of several runs: its time, tokens a second, and the share of every phase.
//! Prompts and depths are those that the engines are compared at.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use alloyforge_backend_cpu::CpuBackend;
use alloyforge_formats::gguf::GgufFile;
use alloyforge_interfaces::{Backend, LoadOptions, MemoryUse, Model};
use alloyforge_models::{Config, Decoder, resolve};
use alloyforge_types::{BLOCK_LEN, Batch, BlockId, Error, KvType, Result, SequenceStep};

/// The phases, in their order.
const PHASES: [&str; 8] = ["begin", "embed", "qkv", "attend", "output", "mlp", "final norm", "logits"];

/// Most rows of a step.
const MAX_ROWS: usize = 512;

thread_local! {
    /// Seconds spent in each phase.
    static SPENT: Cell<[f64; PHASES.len()]> = const { Cell::new([0.0; PHASES.len()]) };
}

/// A backend whose phases are timed.
struct Timed(CpuBackend);

/// Adds the time of `run` to `phase`.
fn timed<T>(phase: usize, run: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let out = run();
    let mut spent = SPENT.get();
    spent[phase] += begin.elapsed().as_secs_f64();
    SPENT.set(spent);
    out
}

impl Backend for Timed {
    fn device(&self) -> &str {
        self.0.device()
    }

    fn kv_type(&self) -> KvType {
        self.0.kv_type()
    }

    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn memory(&self) -> MemoryUse {
        self.0.memory()
    }

    fn reserve_kv(&mut self, blocks: &[usize]) -> Result<()> {
        self.0.reserve_kv(blocks)
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        timed(0, || self.0.begin(batch))
    }

    fn embed(&mut self) -> Result<()> {
        timed(1, || self.0.embed())
    }

    fn qkv(&mut self, layer: usize) -> Result<()> {
        timed(2, || self.0.qkv(layer))
    }

    fn attend(&mut self, layer: usize) -> Result<()> {
        timed(3, || self.0.attend(layer))
    }

    fn output(&mut self, layer: usize) -> Result<()> {
        timed(4, || self.0.output(layer))
    }

    fn mlp(&mut self, layer: usize) -> Result<()> {
        timed(5, || self.0.mlp(layer))
    }

    fn final_norm(&mut self) -> Result<()> {
        timed(6, || self.0.final_norm())
    }

    fn logits(&mut self, out: &mut [f32]) -> Result<()> {
        timed(7, || self.0.logits(out))
    }

    fn copy_blocks(&mut self, group: usize, pairs: &[(BlockId, BlockId)]) -> Result<()> {
        self.0.copy_blocks(group, pairs)
    }
}

/// A step of `sequences` sequences with `rows` tokens each behind `depth`.
fn batch(groups: usize, sequences: usize, rows: usize, depth: usize) -> Batch {
    let blocks = (depth + rows).div_ceil(BLOCK_LEN) as u32;
    Batch {
        tokens: (0..(sequences * rows) as u32).map(|i| 1000 + i * 37 % 20000).collect(),
        sequences: (0..sequences as u32)
            .map(|i| SequenceStep {
                num_rows: rows,
                start: depth,
                rope_len: depth + rows,
                tables: vec![(i * blocks..(i + 1) * blocks).collect(); groups],
                ..SequenceStep::default()
            })
            .collect(),
        logit_rows: (1..=sequences).map(|i| i * rows - 1).collect(),
        embeds: Vec::new(),
        ..Batch::default()
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some(path) = words.first() else {
        println!("name a GGUF file");
        return Ok(());
    };
    let threads = words.iter().find_map(|w| w.parse().ok());
    let kv_type = words[1..].iter().find_map(|w| KvType::from_name(w));
    let file = Arc::new(GgufFile::open(Path::new(path))?);
    let resolved = resolve(Config::Gguf(file.metadata()), file.clone())?;
    let options = LoadOptions {
        dtype: None,
        quantize: None,
        kv_type,
        threads,
        max_rows: MAX_ROWS,
        max_logit_rows: 32,
        kv_bytes: None,
        progress: None,
    };
    let begin = Instant::now();
    let backend = CpuBackend::load(&resolved.spec, &*resolved.weights, &options)?;
    println!(
        "{path}: {} on {} threads, loaded in {:.0} ms",
        backend.instruction_set(),
        backend.threads(),
        begin.elapsed().as_secs_f64() * 1e3
    );
    let groups = resolved.spec.kv_groups.len();
    let mut model = Decoder::new(resolved.spec, Timed(backend)).with_limits(MAX_ROWS, 32);
    model.reserve_kv(&vec![256; groups])?;
    let mut logits = Vec::new();
    for (name, sequences, rows, depth, runs) in [
        ("prefill 512", 1, 512, 0, 5),
        ("prefill 512 behind 1536", 1, 512, 1536, 3),
        ("decode behind 128", 1, 1, 128, 40),
        ("decode behind 2048", 1, 1, 2048, 40),
        ("4 sequences behind 128", 4, 1, 128, 20),
        ("16 sequences behind 48", 16, 1, 48, 20),
    ] {
        let batch = batch(groups, sequences, rows, depth);
        let mut best: (f64, [f64; PHASES.len()]) = (f64::INFINITY, [0.0; PHASES.len()]);
        for _ in 0..runs {
            SPENT.set([0.0; PHASES.len()]);
            let begin = Instant::now();
            model.forward(&batch, &mut logits)?;
            let seconds = begin.elapsed().as_secs_f64();
            if seconds < best.0 {
                best = (seconds, SPENT.get());
            }
        }
        if logits.iter().any(|x| !x.is_finite()) {
            return Err(Error::internal("logits that are not finite"));
        }
        let (seconds, spent) = best;
        print!("{name:24} {:8.3} ms {:7.0} tok/s ", seconds * 1e3, (sequences * rows) as f64 / seconds);
        for (phase, spent) in PHASES.iter().zip(spent) {
            if spent / seconds > 0.005 {
                print!("  {phase} {:.3} ms {:.0} %", spent * 1e3, 100.0 * spent / seconds);
            }
        }
        println!();
    }
    Ok(())
}
