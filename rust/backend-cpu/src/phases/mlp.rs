//! The gated MLP.

use alloyforge_kernels::activation::activate;
use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::packed::BLOCK;
use alloyforge_kernels::packed::activations::quantize_row;
use alloyforge_kernels::product::{CHUNK_ROWS, Input, Store};
use alloyforge_types::Result;

use super::{
    Context, Tools, columns, experts, into_residual, norm_behind, norm_rows, part, plain, takes_blocks,
    to_blocks,
};
use crate::layer::{Dense, Layer, Mlp};
use crate::workspace::Scratch;

/// Norm, gated MLP or experts, norm after, residual.
pub(crate) fn mlp(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let wanted = match &layer.mlp {
        Mlp::Dense(mlp) => takes_blocks(&[&mlp.gate, &mlp.up]),
        Mlp::Plain(mlp) => takes_blocks(&[&mlp.up]),
        Mlp::Experts(mlp) => mlp.experts.iter().any(|[gate, up, _]| takes_blocks(&[gate, up])),
    };
    let (isa, pool, count, hidden) =
        (context.isa, context.pool, context.step.num_rows, context.spec.hidden_dim);
    let work = &mut *context.work;
    let from = work.residual.get();
    match &layer.mlp_norm {
        Some(norm) => {
            let (eps, blocks) = (context.spec.norm_eps, wanted.then(|| work.blocks.get_mut()));
            norm_rows(isa, pool, from, norm, eps, count, work.normed.get_mut(), blocks)?;
        }
        None => {
            to_blocks(isa, pool, wanted, from, hidden, count, &mut work.blocks)?;
        }
    }
    match &layer.mlp {
        Mlp::Dense(mlp) => dense(mlp, layer, context)?,
        Mlp::Plain(mlp) => plain::plain(mlp, layer, context)?,
        Mlp::Experts(mlp) => experts::experts(mlp, layer, context)?,
    }
    norm_behind(layer.mlp_after_norm.as_ref(), context)
}

fn dense(mlp: &Dense, layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, count) = (context.isa, context.step.num_rows);
    let work = &mut *context.work;
    let tools = Tools {
        isa,
        pool: context.pool,
        scratch: &work.scratch,
        residual_scale: context.spec.residual_scale,
        eps: context.spec.norm_eps,
    };
    let ff_dim = mlp.gate.matrix.rows();
    let input = if layer.mlp_norm.is_some() { work.normed.get() } else { work.residual.get() };
    let wanted = takes_blocks(&[&mlp.gate, &mlp.up]);
    let input =
        Input::first(input, context.spec.hidden_dim, count).with_blocks(wanted.then(|| work.blocks.get()));
    let gives_blocks = takes_blocks(&[&mlp.down]);
    if gives_blocks {
        let grid = Grid::small(&mlp.gate.matrix, count);
        let blocks = Disjoint::new(work.gated.get_mut());
        context.pool.run(grid.parts(), |index, worker| {
            let mut scratch = tools.scratch.get(worker);
            let Scratch { panel, gate, up, .. } = &mut *scratch;
            let (batch, rows) = grid.part(index);
            let (width, places) = (rows.len(), rows.start / BLOCK..rows.end / BLOCK);
            let (first, len, input) = (batch.start, batch.len() * width, input.batch(batch));
            // a part's numbers stay in the cache until they are blocks
            let (gate, up) = (&mut gate.get_mut()[..len], &mut up.get_mut()[..len]);
            columns(isa, &mlp.gate, rows.clone(), input, gate, panel)?;
            columns(isa, &mlp.up, rows, input, up, panel)?;
            activate(isa, mlp.activation, gate, up);
            for (row, gate) in gate.chunks_exact(width).enumerate() {
                let first = (first + row) * (ff_dim / BLOCK);
                // SAFETY: each part has rows and columns of its own, which are whole blocks.
                let blocks = unsafe { blocks.part(first + places.start..first + places.end) };
                quantize_row(isa, gate, blocks);
            }
            Ok(())
        })?;
    } else {
        let grid = Grid::new(&mlp.gate.matrix, count, context.pool.threads());
        let (gate, up) = (Disjoint::new(work.gate.get_mut()), Disjoint::new(work.up.get_mut()));
        context.pool.run(grid.parts(), |index, worker| {
            let mut scratch = tools.scratch.get(worker);
            let (batch, rows) = grid.part(index);
            let (first, input) = (batch.start, input.batch(batch.clone()));
            // SAFETY: each part has rows and columns of its own.
            unsafe {
                part(isa, &mlp.gate, rows.clone(), input, &gate, first, Store::Set, &mut scratch)?;
                part(isa, &mlp.up, rows.clone(), input, &up, first, Store::Set, &mut scratch)?;
            }
            for row in batch {
                let range = row * ff_dim + rows.start..row * ff_dim + rows.end;
                // SAFETY: as above.
                let (gate, up) = unsafe { (gate.part(range.clone()), up.part(range)) };
                activate(isa, mlp.activation, gate, up);
            }
            Ok(())
        })?;
    }
    let blocks = gives_blocks.then(|| work.gated.get());
    let input = Input::first(work.gate.get(), ff_dim, count).with_blocks(blocks);
    let post_norm = layer.mlp_post_norm.as_deref();
    into_residual(&mlp.down, input, post_norm, tools, work.residual.get_mut(), work.added.get_mut())
}

// a chunk of the gate's rows is whole blocks of what goes down
const _: () = assert!(CHUNK_ROWS.is_multiple_of(BLOCK));
