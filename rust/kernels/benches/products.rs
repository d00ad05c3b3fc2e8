//! How fast products are, as shares of what the processor can do.
//!
//! `cargo bench -p alloyforge-kernels --bench products [-- THREADS.. TYPE.. SHAPE]`, for example
//! `1 2 q4_0` or `2 f32 768x768x197`.
//! For many rows, billions of operations a second and their share of the peak of products of bytes, or of
//! fused multiplications and additions for plain numbers, measured in the same run; for one row, the bytes of the weights a second and their share of what the
//! machine can read. Each is the best of several runs, because a neighbour only ever takes time away.

mod common;

use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::memory::Buffer;
use alloyforge_kernels::packed::activations::{Activations, num_blocks, quantize_row};
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{Input, Output, Store, product, scratch_len};
use alloyforge_types::{Error, QuantType, Result};
use common::{bandwidth, best, byte_rate, float_rate};

/// Rows, columns, and rows of activations of the large product, unless it is given.
const SHAPE: (usize, usize, usize) = (2048, 2048, 512);

/// Weight rows of the product of one row: more bytes than any cache has.
const LONG: usize = 1 << 17;

/// Rows of activations of smaller ones.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

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
        let (bytes, floats) = (byte_rate(isa, &pool)?, float_rate(isa, &pool)?);
        let bandwidth = {
            // as many as a matrix may have
            let mut buffer = Buffer::zeroed(256 << 20, "a buffer to read")?;
            buffer.bytes_mut().fill(1);
            bandwidth(isa, &pool, buffer.bytes())?
        };
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
