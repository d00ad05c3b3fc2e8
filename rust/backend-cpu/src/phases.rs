//! The phases, each a few jobs of the pool over the workspace.

pub(crate) mod attention;
pub(crate) mod cross;
pub(crate) mod ends;
mod experts;
pub(crate) mod mlp;
mod plain;

use std::ops::Range;

use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::norm;
use alloyforge_kernels::packed::activations::{Activations, Block, num_blocks, quantize_row};
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{self, Input, Output, Store};
use alloyforge_types::{ModelSpec, Result};

use crate::cache::Cache;
use crate::layer::{Linear, Norm};
use crate::rope::Rope;
use crate::states::States;
use crate::step::Step;
use crate::workspace::{Scratch, Workspace};

/// Rows of one chunk of a job by rows. A single decoded row is then no job at all.
const ROWS_A_CHUNK: usize = 4;

/// What the phases work with.
pub(crate) struct Context<'a> {
    pub(crate) spec: &'a ModelSpec,
    pub(crate) isa: Isa,
    pub(crate) pool: &'a Pool,
    pub(crate) ropes: &'a [Rope],
    pub(crate) cache: &'a mut Cache,
    pub(crate) states: &'a mut States,
    pub(crate) step: &'a Step,
    pub(crate) work: &'a mut Workspace,
}

/// Calls `task` for each of `count` rows, a few in each chunk.
fn by_rows(pool: &Pool, count: usize, task: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    pool.run(count.div_ceil(ROWS_A_CHUNK), |chunk, _| {
        (chunk * ROWS_A_CHUNK..count.min((chunk + 1) * ROWS_A_CHUNK)).try_for_each(&task)
    })
}

/// The norm of every row of `from`, into `to` and, where there is room, into blocks.
#[allow(clippy::too_many_arguments, reason = "what goes in and where it goes")]
fn norm_rows(
    isa: Isa,
    pool: &Pool,
    from: &[f32],
    norm: &Norm,
    eps: f32,
    count: usize,
    to: &mut [f32],
    blocks: Option<&mut [Block]>,
) -> Result<()> {
    let width = norm.width();
    let (to, blocks) = (Disjoint::new(to), blocks.map(Disjoint::new));
    by_rows(pool, count, |row| {
        // SAFETY: each row is one call's alone.
        let to = unsafe { to.part(row * width..(row + 1) * width) };
        norm.apply(isa, &from[row * width..][..width], eps, to);
        if let Some(blocks) = &blocks {
            let len = num_blocks(width);
            // SAFETY: as above.
            quantize_row(isa, to, unsafe { blocks.part(row * len..(row + 1) * len) });
        }
        Ok(())
    })
}

/// Whether one of the matrices takes its input as blocks.
fn takes_blocks(linears: &[&Linear]) -> bool {
    linears.iter().any(|linear| linear.matrix.takes_blocks())
}

/// `count` rows of `width` numbers as blocks, where they are `wanted`.
fn to_blocks<'a>(
    isa: Isa,
    pool: &Pool,
    wanted: bool,
    values: &[f32],
    width: usize,
    count: usize,
    room: &'a mut Activations,
) -> Result<Option<&'a [Block]>> {
    if !wanted {
        return Ok(None);
    }
    {
        let (blocks, len) = (Disjoint::new(room.get_mut()), num_blocks(width));
        by_rows(pool, count, |row| {
            // SAFETY: each row is one call's alone.
            let blocks = unsafe { blocks.part(row * len..(row + 1) * len) };
            quantize_row(isa, &values[row * width..][..width], blocks);
            Ok(())
        })?;
    }
    Ok(Some(room.get()))
}

/// The rows `rows` of a product, into rows of `stride` numbers.
///
/// # Safety
/// While it runs, nobody else touches columns `rows` of `values` in the rows from `first_row` on.
#[allow(clippy::too_many_arguments, reason = "what goes in and where it goes")]
unsafe fn part(
    isa: Isa,
    linear: &Linear,
    rows: Range<usize>,
    input: Input<'_>,
    values: &Disjoint<'_, f32>,
    first_row: usize,
    store: Store,
    scratch: &mut Scratch,
) -> Result<()> {
    let (stride, bias) = (linear.matrix.rows(), linear.bias.as_deref());
    let output = Output { values, stride, first_row, first_column: 0, bias, store };
    // SAFETY: as this function's own promise.
    unsafe { product::product(isa, &linear.matrix, rows, input, output, &mut scratch.panel) }
}

/// The rows `rows` of a product, into as many columns of `values`, by themselves.
fn columns(
    isa: Isa,
    linear: &Linear,
    rows: Range<usize>,
    input: Input<'_>,
    values: &mut [f32],
    panel: &mut [f32],
) -> Result<()> {
    let (stride, first_column, bias) = (rows.len(), rows.start, linear.bias.as_deref());
    let values = &Disjoint::new(values);
    let output = Output { values, stride, first_row: 0, first_column, bias, store: Store::Set };
    // SAFETY: the values are borrowed for this alone.
    unsafe { product::product(isa, &linear.matrix, rows, input, output, panel) }
}

/// Whole products of the same rows, in one job.
fn whole<const N: usize>(
    isa: Isa,
    pool: &Pool,
    scratch: &PerWorker<Scratch>,
    products: [(&Linear, &Disjoint<'_, f32>); N],
    input: Input<'_>,
    store: Store,
) -> Result<()> {
    let products = products
        .map(|(linear, values)| (linear, values, Grid::new(&linear.matrix, input.count(), pool.threads())));
    let parts = products.iter().map(|(.., grid)| grid.parts()).sum();
    pool.run(parts, |mut index, worker| {
        let mut scratch = scratch.get(worker);
        for (linear, values, grid) in products {
            if index < grid.parts() {
                let (batch, rows) = grid.part(index);
                let (first_row, input) = (batch.start, input.batch(batch));
                // SAFETY: each part has rows and columns of its own.
                return unsafe { part(isa, linear, rows, input, values, first_row, store, &mut scratch) };
            }
            index -= grid.parts();
        }
        Ok(())
    })
}

/// A whole product of the step's rows that ends in the residual stream: added at once, or by way of a
/// norm.
fn into_residual(
    linear: &Linear,
    input: Input<'_>,
    post_norm: Option<&[f32]>,
    tools: Tools<'_>,
    residual: &mut [f32],
    added: &mut [f32],
) -> Result<()> {
    {
        let (target, store) = match post_norm {
            None => (Disjoint::new(residual), Store::AddScaled(tools.residual_scale)),
            Some(_) => (Disjoint::new(added), Store::Set),
        };
        whole(tools.isa, tools.pool, tools.scratch, [(linear, &target)], input, store)?;
    }
    match post_norm {
        None => Ok(()),
        Some(weight) => add_normed(weight, input.count(), tools, residual, added),
    }
}

/// The norm of the residual stream behind a sum, where there is one.
fn norm_behind(norm: Option<&Norm>, context: &mut Context<'_>) -> Result<()> {
    let Some(norm) = norm else { return Ok(()) };
    let (isa, pool, eps) = (context.isa, context.pool, context.spec.norm_eps);
    let (count, work) = (context.step.num_rows, &mut *context.work);
    norm_rows(isa, pool, work.residual.get(), norm, eps, count, work.normed.get_mut(), None)?;
    std::mem::swap(&mut work.residual, &mut work.normed);
    Ok(())
}

/// Adds the norm of every row of `added` to the residual stream.
fn add_normed(
    weight: &[f32],
    count: usize,
    tools: Tools<'_>,
    residual: &mut [f32],
    added: &mut [f32],
) -> Result<()> {
    let width = weight.len();
    let (residual, added) = (Disjoint::new(residual), Disjoint::new(added));
    by_rows(tools.pool, count, |row| {
        let range = row * width..(row + 1) * width;
        // SAFETY: each row is one call's alone.
        let (residual, added) = unsafe { (residual.part(range.clone()), added.part(range)) };
        norm::rms_norm_in_place(tools.isa, added, weight, tools.eps);
        norm::add_scaled(tools.isa, residual, added, tools.residual_scale);
        Ok(())
    })
}

/// What every product needs beside its numbers.
#[derive(Clone, Copy)]
struct Tools<'a> {
    isa: Isa,
    pool: &'a Pool,
    scratch: &'a PerWorker<Scratch>,
    residual_scale: f32,
    eps: f32,
}
