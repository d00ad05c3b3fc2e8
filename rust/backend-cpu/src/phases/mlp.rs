//! The gated MLP.

use alloyforge_kernels::activation::activate;
use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::product::{Input, Store, chunk_rows, num_chunks};
use alloyforge_types::Result;

use super::{Context, Tools, experts, into_residual, norm_rows, part};
use crate::layer::{Dense, Layer, Mlp};

/// Norm, gated MLP or experts, norm after, residual.
pub(crate) fn mlp(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    if let Some(weight) = &layer.mlp_norm {
        let (count, eps) = (context.step.num_rows, context.spec.norm_eps);
        let work = &mut *context.work;
        norm_rows(context.isa, context.pool, work.residual.get(), weight, eps, count, work.normed.get_mut())?;
    }
    match &layer.mlp {
        Mlp::Dense(mlp) => dense(mlp, layer, context),
        Mlp::Experts(mlp) => experts::experts(mlp, layer, context),
    }
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
    let input = Input::first(input, context.spec.hidden_dim, count);
    {
        let (gate, up) = (Disjoint::new(work.gate.get_mut()), Disjoint::new(work.up.get_mut()));
        context.pool.run(num_chunks(ff_dim), |chunk, worker| {
            let mut scratch = tools.scratch.get(worker);
            let rows = chunk_rows(chunk, ff_dim);
            // SAFETY: each chunk has columns of its own.
            unsafe {
                part(isa, &mlp.gate, rows.clone(), input, &gate, 0, Store::Set, &mut scratch)?;
                part(isa, &mlp.up, rows.clone(), input, &up, 0, Store::Set, &mut scratch)?;
            }
            for row in 0..count {
                let range = row * ff_dim + rows.start..row * ff_dim + rows.end;
                // SAFETY: as above.
                let (gate, up) = unsafe { (gate.part(range.clone()), up.part(range)) };
                activate(isa, mlp.activation, gate, up);
            }
            Ok(())
        })?;
    }
    let input = Input::first(work.gate.get(), ff_dim, count);
    let post_norm = layer.mlp_post_norm.as_deref();
    into_residual(&mlp.down, input, post_norm, tools, work.residual.get_mut(), work.added.get_mut())
}
