//! An MLP without a gate.

use alloyforge_kernels::activation::activate_plain;
use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::grid::Grid;
use alloyforge_kernels::product::{Input, Store};
use alloyforge_types::Result;

use super::{Context, Tools, into_residual, part, takes_blocks, to_blocks};
use crate::layer::{Layer, Plain};

/// `down(activation(up(x)))` of the normed rows, norm after, residual.
pub(crate) fn plain(mlp: &Plain, layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, count) = (context.isa, context.step.num_rows);
    let work = &mut *context.work;
    let tools = Tools {
        isa,
        pool: context.pool,
        scratch: &work.scratch,
        residual_scale: context.spec.residual_scale,
        eps: context.spec.norm_eps,
    };
    let ff_dim = mlp.up.matrix.rows();
    let input = if layer.mlp_norm.is_some() { work.normed.get() } else { work.residual.get() };
    let wanted = takes_blocks(&[&mlp.up]);
    let input =
        Input::first(input, context.spec.hidden_dim, count).with_blocks(wanted.then(|| work.blocks.get()));
    {
        let values = Disjoint::new(work.gate.get_mut());
        let grid = Grid::new(&mlp.up.matrix, count, context.pool.threads());
        context.pool.run(grid.parts(), |index, worker| {
            let mut scratch = tools.scratch.get(worker);
            let (batch, rows) = grid.part(index);
            let (first, input) = (batch.start, input.batch(batch.clone()));
            // SAFETY: each part has rows and columns of its own.
            unsafe { part(isa, &mlp.up, rows.clone(), input, &values, first, Store::Set, &mut scratch) }?;
            for row in batch {
                // SAFETY: as above.
                let part = unsafe { values.part(row * ff_dim + rows.start..row * ff_dim + rows.end) };
                activate_plain(isa, mlp.activation, part);
            }
            Ok(())
        })?;
    }
    let (input, wanted) = (work.gate.get(), takes_blocks(&[&mlp.down]));
    let blocks = to_blocks(isa, context.pool, wanted, input, ff_dim, count, &mut work.blocks)?;
    let input = Input::first(input, ff_dim, count).with_blocks(blocks);
    let post_norm = layer.mlp_post_norm.as_deref();
    into_residual(&mlp.down, input, post_norm, tools, work.residual.get_mut(), work.added.get_mut())
}
