//! How fast products are, as shares of what the processor can do.
//!
//! `cargo bench -p alloyforge-kernels --bench products [-- THREADS.. TYPE.. SHAPE]`, for example
//! `1 2 q4_0` or `2 f32 768x768x197`.
//! For many rows, billions of operations a second and their share of the peak of products of bytes, or of
//! fused multiplications and additions for plain numbers, measured in the same run; for one row, the bytes of the weights a second and their share of what the
//! machine can read. Each is the best of several runs, because a neighbour only ever takes time away.

use std::hint::black_box;
use std::time::Instant;

use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::isa::{Isa, Kernel, Simd};
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::memory::Buffer;
use alloyforge_kernels::packed::activations::{Activations, num_blocks, quantize_row};
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{Input, Output, Store, product, scratch_len};
use alloyforge_types::{Error, QuantType, Result};

/// Rows, columns, and rows of activations of the large product, unless it is given.
const SHAPE: (usize, usize, usize) = (2048, 2048, 512);

/// Weight rows of the product of one row: more bytes than any cache has.
const LONG: usize = 1 << 17;

/// Rows of activations of smaller ones.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

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

/// Sixteen independent chains of products of bytes, in quarters where registers hold fewer.
struct Peak(usize);

impl Kernel for Peak {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        if S::REGISTERS >= 32 { self.chains::<S, 16>(s) } else { self.chains::<S, 4>(s) }
    }
}

impl Peak {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f32 {
        // so few that 16 bits hold them
        let weights = s.splat_byte(black_box(0));
        let mut sums = [s.open(s.splat_sum(0)); N];
        for i in 0..self.0 * (16 / N) {
            for sum in &mut sums {
                *sum = s.dot(*sum, weights, [i as i8 & 63, 1, 2, 3]);
            }
        }
        sums.into_iter().map(|sum| s.sum(s.sums_to_f32(s.settle(s.splat_sum(0), sum)))).sum()
    }
}

/// Sixteen independent chains of fused multiplications and additions, as above.
struct Floats(usize);

impl Kernel for Floats {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        if S::REGISTERS >= 32 { self.chains::<S, 16>(s) } else { self.chains::<S, 4>(s) }
    }
}

impl Floats {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f32 {
        let factor = s.splat(black_box(0.5));
        let mut sums = [factor; N];
        for _ in 0..self.0 * (16 / N) {
            for sum in &mut sums {
                *sum = s.mul_add(*sum, factor, factor);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

/// Reads memory.
struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut all = [s.splat_byte(0); 4];
        for lines in self.0.as_chunks::<256>().0 {
            for (all, line) in all.iter_mut().zip(lines.as_chunks::<64>().0) {
                *all = s.or(*all, s.load_bytes(line));
            }
        }
        let mut out = [0; 64];
        s.store_bytes(s.or(s.or(all[0], all[1]), s.or(all[2], all[3])), &mut out);
        out.iter().map(|&b| f32::from(b)).sum()
    }
}

/// Billions of operations a second of sixteen chains, `each` a link.
fn peak(pool: &Pool, each: usize, chains: impl Fn(usize) -> f32 + Sync) -> Result<f64> {
    let n = 100_000;
    let mut outcome = Ok(());
    let seconds = best(20, || {
        outcome = pool.run(pool.threads(), |_, _| {
            black_box(chains(n));
            Ok(())
        });
    });
    outcome.map(|()| (pool.threads() * n * 16 * each) as f64 / seconds / 1e9)
}

/// Billions of bytes a second, of as many as a matrix may have.
fn bandwidth(isa: Isa, pool: &Pool) -> Result<f64> {
    let mut buffer = Buffer::zeroed(256 << 20, "a buffer to read")?;
    buffer.bytes_mut().fill(1);
    let bytes = buffer.bytes();
    let part = 1 << 20;
    let mut outcome = Ok(());
    let seconds = best(8, || {
        outcome = pool.run(bytes.len() / part, |i, _| {
            black_box(isa.run(Read(&bytes[i * part..(i + 1) * part])));
            Ok(())
        });
    });
    outcome.map(|()| bytes.len() as f64 / seconds / 1e9)
}

/// One matrix and its input.
struct Case {
    matrix: Matrix,
    values: Vec<f32>,
    blocks: Activations,
    out: Vec<f32>,
}

impl Case {
    /// Weights of noise, the scales small.
    fn new(isa: Isa, pool: &Pool, ty: QuantType, rows: usize, cols: usize, count: usize) -> Result<Self> {
        let len = ty.row_bytes(cols).ok_or_else(|| Error::internal("no whole blocks"))?;
        let mut state = 1u64;
        let row: Vec<u8> = (0..len)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                if i % 2 == 1 { (state >> 60) as u8 } else { (state >> 56) as u8 }
            })
            .collect();
        let data = row.repeat(rows);
        let matrix = Matrix::pack_tiles(pool, isa, "w", (rows, cols), ty, &data, ty)?;
        let x: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut blocks = Activations::new(count * num_blocks(cols))?;
        for row in blocks.get_mut().chunks_exact_mut(num_blocks(cols)) {
            quantize_row(isa, &x, row);
        }
        Ok(Self { matrix, values: x.repeat(count), blocks, out: vec![0.0; rows * count] })
    }

    /// Seconds of the product of the first `count` rows.
    fn seconds(&mut self, isa: Isa, pool: &Pool, count: usize, runs: usize) -> Result<f64> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        let scratch = PerWorker::new(pool.threads(), || Ok::<_, Error>(vec![0.0; scratch_len(cols)]))?;
        let input = Input::first(&self.values, cols, count).with_blocks(Some(self.blocks.get()));
        let values = Disjoint::new(&mut self.out);
        let mut outcome = Ok(());
        let seconds = best(runs, || {
            let grid = Grid::new(&self.matrix, count, pool.threads());
            outcome = pool.run(grid.parts(), |index, worker| {
                let (batch, part) = grid.part(index);
                let output = Output {
                    values: &values,
                    stride: rows,
                    first_row: batch.start,
                    first_column: 0,
                    bias: None,
                    store: Store::Set,
                };
                let scratch = &mut scratch.get(worker);
                // SAFETY: each part has rows and columns of its own.
                unsafe { product(isa, &self.matrix, part, input.batch(batch), output, scratch) }
            });
        });
        outcome.map(|()| seconds)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut threads: Vec<usize> = words.iter().filter_map(|w| w.parse().ok()).collect();
    let mut types: Vec<QuantType> = words.iter().filter_map(|w| QuantType::from_name(w)).collect();
    let shape = words.iter().find_map(|w| {
        let sizes: Vec<usize> = w.split('x').map_while(|n| n.parse().ok()).collect();
        <[usize; 3]>::try_from(sizes).ok()
    });
    let (rows, cols, count) = shape.map_or(SHAPE, |[rows, cols, count]| (rows, cols, count));
    let sets: Vec<Isa> =
        Isa::available().into_iter().filter(|isa| words.iter().any(|w| w == isa.name())).collect();
    let isa = sets.first().copied().unwrap_or_else(Isa::detect);
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    if types.is_empty() {
        use QuantType as T;
        types = vec![T::Q4_0, T::Q4_1, T::Q5_0, T::Q5_1, T::Q8_0, T::Q2K, T::Q3K, T::Q4K, T::Q5K, T::Q6K];
        types.extend([T::IQ4NL, T::IQ4XS, T::MXFP4, T::F32, T::F16, T::BF16]);
    }
    for threads in threads {
        let pool = Pool::new(threads)?;
        let bytes = peak(&pool, 128, |n| isa.run_bytes(Peak(n)))?;
        let floats = peak(&pool, 32, |n| isa.run(Floats(n)))?;
        let bandwidth = bandwidth(isa, &pool)?;
        println!(
            "{}, {threads} threads: {bytes:.0} GOP/s, {floats:.0} GFLOP/s, {bandwidth:.1} GB/s",
            isa.name()
        );
        for &ty in &types {
            let mut case = Case::new(isa, &pool, ty, rows, cols, count)?;
            let gop = (2 * rows * cols) as f64 / 1e9;
            let many = gop * count as f64 / case.seconds(isa, &pool, count, 15)?;
            let peak = if case.matrix.takes_blocks() { bytes } else { floats };
            print!("{:8} {many:5.0} GOP/s {:3.0} %", ty.name(), 100.0 * many / peak);
            for count in BATCHES.into_iter().filter(|&n| n <= count) {
                print!("  {count}: {:4.0}", gop * count as f64 / case.seconds(isa, &pool, count, 30)?);
            }
            drop(case);
            let mut case = Case::new(isa, &pool, ty, LONG, cols, 1)?;
            let one = case.matrix.bytes() as f64 / case.seconds(isa, &pool, 1, 10)? / 1e9;
            println!("  one row {one:5.1} GB/s {:3.0} %", 100.0 * one / bandwidth);
        }
    }
    Ok(())
}
