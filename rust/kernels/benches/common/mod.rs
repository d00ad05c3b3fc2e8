//! What the machine can do at best, for benches that measure it and for those that compare with it.
#![allow(dead_code, reason = "each bench compares with something else")]

use std::hint::black_box;
use std::time::Instant;

use alloyforge_kernels::isa::{Isa, Kernel, LANES, Simd};
use alloyforge_kernels::pool::Pool;
use alloyforge_types::Result;

/// Independent chains: enough for the latency of any of these, and on sets whose registers hold fewer, in
/// quarters one after the other.
pub const CHAINS: usize = 16;

/// A quarter of them.
const FEW: usize = CHAINS / 4;

/// Links of a chain in one run.
pub const LINKS: usize = 200_000;

/// Bytes that a thread reads at a time.
const PART: usize = 256 << 10;

/// The shortest of several runs, in seconds.
pub fn best(runs: usize, mut run: impl FnMut()) -> f64 {
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
pub fn rate(pool: &Pool, each: usize, chains: impl Fn() -> f32 + Sync) -> Result<f64> {
    let mut outcome = Ok(());
    let seconds = best(15, || {
        outcome = pool.run(pool.threads(), |_, _| {
            black_box(chains());
            Ok(())
        });
    });
    outcome.map(|()| (pool.threads() * LINKS * CHAINS * each) as f64 / seconds / 1e9)
}

/// Billions of operations a second of products of bytes.
pub fn byte_rate(isa: Isa, pool: &Pool) -> Result<f64> {
    rate(pool, 8 * LANES, || isa.run_bytes(Bytes))
}

/// Billions of operations a second of products of f32 numbers.
pub fn float_rate(isa: Isa, pool: &Pool) -> Result<f64> {
    rate(pool, 2 * LANES, || isa.run(Floats))
}

/// Billions of bytes a second.
pub fn bandwidth(isa: Isa, pool: &Pool, bytes: &[u8]) -> Result<f64> {
    let mut outcome = Ok(());
    let seconds = best(12, || {
        outcome = pool.run(bytes.len() / PART, |i, _| {
            black_box(isa.run(Read(&bytes[i * PART..(i + 1) * PART])));
            Ok(())
        });
    });
    outcome.map(|()| (bytes.len() / PART * PART) as f64 / seconds / 1e9)
}
