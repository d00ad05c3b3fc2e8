//! What this machine can do at best, so that every other figure can be a share of it.
//!
//! `cargo bench -p alloyforge-kernels --bench limits [-- THREADS..]`. Products of bytes, of bf16 pairs and
//! of f32 numbers out of registers; bytes read a second of 16 MB (which the caches hold), 90 MB (a small
//! model) and 1 GiB, in huge pages where the system has them, and for 1 GiB in small ones too. Each is the
//! best of several runs, on one thread and on as many as there are physical cores.

mod common;

use std::hint::black_box;

use alloyforge_kernels::isa::{Isa, LANES};
use alloyforge_kernels::memory::Buffer;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::topology;
use alloyforge_types::Result;
use common::{CHAINS, LINKS, bandwidth, byte_rate, float_rate, rate};

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
    row("products of bytes, GOP/s", &|pool| byte_rate(isa, pool))?;
    if let Some(chains) = bf16_chains() {
        row("products of bf16, GFLOP/s", &|pool| rate(pool, 4 * LANES, chains))?;
    }
    row("products of f32, GFLOP/s", &|pool| float_rate(isa, pool))?;
    for (name, len) in [("16 MB", 16_000_000), ("90 MB", 90_000_000), ("1 GiB", 1 << 30)] {
        let mut buffer = Buffer::zeroed(len, "a buffer to read")?;
        buffer.bytes_mut().fill(1);
        row(&format!("reading {name}, GB/s"), &|pool| bandwidth(isa, pool, buffer.bytes()))?;
    }
    let small = vec![1u8; 1 << 30];
    row("reading 1 GiB in the allocator's pages, GB/s", &|pool| bandwidth(isa, pool, &small))
}
