//! What this machine can do at best, so that every other figure can be a share of it.
//!
//! `cargo bench -p alloyforge-kernels --bench limits [-- THREADS..]`. Products of bytes, of bf16 pairs and
//! of f32 numbers out of registers; bytes read a second of 16 MB (which the caches hold), 90 MB (a small
//! model) and 1 GiB, in huge pages where the system has them, and for 1 GiB in small ones too. Each is the
//! best of several runs, on one thread and on as many as there are physical cores.

use std::hint::black_box;
use std::time::Instant;

use alloyforge_kernels::isa::{Isa, Kernel, LANES, Simd};
use alloyforge_kernels::memory::Buffer;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::topology;
use alloyforge_types::Result;

/// Independent chains: enough for the latency of any of these, and on sets whose registers hold fewer, in
/// quarters one after the other.
const CHAINS: usize = 16;

/// A quarter of them.
const FEW: usize = CHAINS / 4;

/// Links of a chain in one run.
const LINKS: usize = 200_000;

/// Bytes that a thread reads at a time.
const PART: usize = 256 << 10;

/// The shortest of several runs, in seconds.
fn best(runs: usize, mut run: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Chains of products of bytes.
struct Bytes;

impl Kernel for Bytes {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        if S::REGISTERS >= 32 { self.chains::<S, CHAINS>(s) } else { self.chains::<S, FEW>(s) }
    }
}

impl Bytes {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f32 {
        let weights = s.splat_byte(black_box(0));
        let mut sums = [s.open(s.splat_sum(0)); N];
        for i in 0..LINKS * (CHAINS / N) {
            for sum in &mut sums {
                *sum = s.dot(*sum, weights, [i as i8 & 63, 1, 2, 3]);
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += s.sum(s.sums_to_f32(s.settle(s.splat_sum(0), sum)));
        }
        all
    }
}

/// Chains of fused multiplications and additions.
struct Floats;

impl Kernel for Floats {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        if S::REGISTERS >= 32 { self.chains::<S, CHAINS>(s) } else { self.chains::<S, FEW>(s) }
    }
}

impl Floats {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f32 {
        let factor = s.splat(black_box(0.5));
        let mut sums = [factor; N];
        for _ in 0..LINKS * (CHAINS / N) {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, factor, factor);
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += s.sum(sum);
        }
        all
    }
}

/// Chains of products of bf16 pairs; `None` where the processor has none.
fn bf16_chains() -> Option<fn() -> f32> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f,avx512bf16")]
        fn chains() -> f32 {
            let mut sums = [_mm512_setzero_ps(); CHAINS];
            let ones = black_box(_mm512_set1_ps(0.5));
            let pairs = _mm512_cvtne2ps_pbh(ones, ones);
            for _ in 0..LINKS {
                for sum in &mut sums {
                    *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
                }
            }
            let mut all = 0.0;
            for sum in sums {
                all += _mm512_reduce_add_ps(sum);
            }
            all
        }

        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            // SAFETY: detected.
            return Some(|| unsafe { chains() });
        }
    }
    None
}

/// Reads memory.
struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut all = [s.splat_byte(0); 8];
        for lines in self.0.as_chunks::<512>().0 {
            for (all, line) in all.iter_mut().zip(lines.as_chunks::<64>().0) {
                *all = s.or(*all, s.load_bytes(line));
            }
        }
        let mut out = [0; 64];
        let mut sum = 0.0;
        for all in all {
            s.store_bytes(all, &mut out);
            sum += f32::from(out[0]);
        }
        sum
    }
}

/// Billions of operations a second of chains that do `each` a link.
fn rate(pool: &Pool, each: usize, chains: impl Fn() -> f32 + Sync) -> Result<f64> {
    let mut outcome = Ok(());
    let seconds = best(15, || {
        outcome = pool.run(pool.threads(), |_, _| {
            black_box(chains());
            Ok(())
        });
    });
    outcome.map(|()| (pool.threads() * LINKS * CHAINS * each) as f64 / seconds / 1e9)
}

/// Billions of bytes a second.
fn bandwidth(isa: Isa, pool: &Pool, bytes: &[u8]) -> Result<f64> {
    let mut outcome = Ok(());
    let seconds = best(12, || {
        outcome = pool.run(bytes.len() / PART, |i, _| {
            black_box(isa.run(Read(&bytes[i * PART..(i + 1) * PART])));
            Ok(())
        });
    });
    outcome.map(|()| (bytes.len() / PART * PART) as f64 / seconds / 1e9)
}

fn main() -> Result<()> {
    let words = std::env::args().skip(1);
    let mut threads: Vec<usize> = words.filter_map(|w| w.parse().ok()).collect();
    if threads.is_empty() {
        threads = vec![1, topology::physical_cores()];
        threads.dedup();
    }
    let isa = Isa::detect();
    println!(
        "| {} | {} |",
        isa.name(),
        threads.iter().map(|n| format!("{n} threads")).collect::<Vec<_>>().join(" | ")
    );
    println!("| --- |{}", " --- |".repeat(threads.len()));
    let pools: Vec<Pool> = threads.iter().map(|&n| Pool::new(n)).collect::<Result<_>>()?;
    let row = |name: &str, measure: &dyn Fn(&Pool) -> Result<f64>| -> Result<()> {
        let cells: Vec<String> =
            pools.iter().map(|pool| measure(pool).map(|x| format!("{x:.1}"))).collect::<Result<_>>()?;
        println!("| {name} | {} |", cells.join(" | "));
        Ok(())
    };
    row("products of bytes, GOP/s", &|pool| rate(pool, 8 * LANES, || isa.run_bytes(Bytes)))?;
    if let Some(chains) = bf16_chains() {
        row("products of bf16, GFLOP/s", &|pool| rate(pool, 4 * LANES, chains))?;
    }
    row("products of f32, GFLOP/s", &|pool| rate(pool, 2 * LANES, || isa.run(Floats)))?;
    for (name, len) in [("16 MB", 16_000_000), ("90 MB", 90_000_000), ("1 GiB", 1 << 30)] {
        let mut buffer = Buffer::zeroed(len, "a buffer to read")?;
        buffer.bytes_mut().fill(1);
        row(&format!("reading {name}, GB/s"), &|pool| bandwidth(isa, pool, buffer.bytes()))?;
    }
    let small = vec![1u8; 1 << 30];
    row("reading 1 GiB in the allocator's pages, GB/s", &|pool| bandwidth(isa, pool, &small))
}
