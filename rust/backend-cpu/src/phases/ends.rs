//! Before the layers and after them: angles, embeddings, the last norm, logits.

use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::matrix::Matrix;
use alloyforge_kernels::norm;
use alloyforge_kernels::product::{self, Input, Output, Store};
use alloyforge_kernels::scale;
use alloyforge_types::{Error, Result};

use super::{Context, by_rows, to_blocks};
use crate::layer::Norm;
use crate::step::Source;

/// The angles of every row for every rope, once a step.
pub(crate) fn angles(context: &mut Context<'_>) -> Result<()> {
    let step = context.step;
    for (rope, (cos, sin)) in context.ropes.iter().zip(&mut context.work.angles) {
        let n = rope.num_angles();
        let (cos, sin) = (Disjoint::new(cos.get_mut()), Disjoint::new(sin.get_mut()));
        by_rows(context.pool, step.num_rows, |row| {
            let range = row * n..(row + 1) * n;
            // SAFETY: each row is one call's alone.
            let (cos, sin) = unsafe { (cos.part(range.clone()), sin.part(range)) };
            let (position, len) = step.positions[row];
            rope.angles(position, len, cos, sin);
            Ok(())
        })?;
    }
    Ok(())
}

/// Residual stream = scaled token embeddings, spliced rows as they are.
pub(crate) fn embed(embedding: &Matrix, positions: Option<&[f32]>, context: &mut Context<'_>) -> Result<()> {
    let (step, isa, hidden) = (context.step, context.isa, context.spec.hidden_dim);
    let factor = context.spec.embedding_scale;
    let residual = Disjoint::new(context.work.residual.get_mut());
    by_rows(context.pool, step.num_rows, |row| {
        // SAFETY: each row is one call's alone.
        let to = unsafe { residual.part(row * hidden..(row + 1) * hidden) };
        match step.sources[row] {
            Source::Token(token) => {
                let token = token as usize;
                embedding.widen_rows(isa, token..token + 1, to)?;
                scale::scale_and_cap(isa, to, factor, None);
                if let Some(positions) = positions {
                    let at = step.places[row] * hidden;
                    norm::add_scaled(isa, to, &positions[at..at + hidden], 1.0);
                }
            }
            Source::Span(span, index) => {
                to.copy_from_slice(&step.spans[span].values[index * hidden..][..hidden]);
            }
        }
        Ok(())
    })
}

/// What spliced rows add to the residual stream behind `layer`.
pub(crate) fn add_deeper(layer: usize, context: &mut Context<'_>) {
    let hidden = context.spec.hidden_dim;
    let residual = context.work.residual.get_mut();
    for span in &context.step.spans {
        let Some(values) = span.deeper.get(layer) else { continue };
        let to = &mut residual[span.first_row * hidden..][..span.rows.len() * hidden];
        for (to, value) in to.iter_mut().zip(&values[span.rows.start * hidden..span.rows.end * hidden]) {
            *to += value;
        }
    }
}

/// The norm before the head, of the rows whose logits are asked for.
pub(crate) fn final_norm(norm: &Norm, context: &mut Context<'_>) -> Result<()> {
    let (step, isa, hidden, eps) =
        (context.step, context.isa, context.spec.hidden_dim, context.spec.norm_eps);
    let residual = context.work.residual.get();
    let last = Disjoint::new(context.work.last.get_mut());
    by_rows(context.pool, step.logit_rows.len(), |i| {
        // SAFETY: each row is one call's alone.
        let to = unsafe { last.part(i * hidden..(i + 1) * hidden) };
        norm.apply(isa, &residual[step.logit_rows[i] * hidden..][..hidden], eps, to);
        Ok(())
    })
}

/// The residual stream of the rows whose logits are asked for.
pub(crate) fn hidden(context: &mut Context<'_>, out: &mut [f32]) -> Result<()> {
    let (step, hidden) = (context.step, context.spec.hidden_dim);
    let wanted = step.logit_rows.len() * hidden;
    if out.len() != wanted {
        return Err(Error::internal(format!("room for {} numbers, not {wanted}", out.len())));
    }
    let residual = context.work.residual.get();
    for (to, &row) in out.chunks_exact_mut(hidden).zip(&step.logit_rows) {
        to.copy_from_slice(&residual[row * hidden..][..hidden]);
    }
    Ok(())
}

/// Logits of those rows.
pub(crate) fn logits(
    head: &Matrix,
    bias: Option<&[f32]>,
    context: &mut Context<'_>,
    out: &mut [f32],
) -> Result<()> {
    let (spec, isa, count) = (context.spec, context.isa, context.step.logit_rows.len());
    let vocab = spec.vocab_size;
    if out.len() != count * vocab {
        return Err(Error::internal(format!("room for {} logits, not {}", out.len(), count * vocab)));
    }
    let work = &mut *context.work;
    let input = work.last.get();
    let blocks =
        to_blocks(isa, context.pool, head.takes_blocks(), input, spec.hidden_dim, count, &mut work.blocks)?;
    let input = Input::first(input, spec.hidden_dim, count).with_blocks(blocks);
    let values = Disjoint::new(out);
    context.pool.run(product::num_chunks(vocab), |chunk, worker| {
        let rows = product::chunk_rows(chunk, vocab);
        let output =
            Output { values: &values, stride: vocab, first_row: 0, first_column: 0, bias, store: Store::Set };
        let mut scratch = work.scratch.get(worker);
        // SAFETY: each chunk has columns of its own.
        unsafe { product::product(isa, head, rows.clone(), input, output, &mut scratch.panel) }?;
        for row in 0..count {
            // SAFETY: as above.
            let part = unsafe { values.part(row * vocab + rows.start..row * vocab + rows.end) };
            scale::scale_and_cap(isa, part, spec.logit_scale, spec.logit_softcap);
        }
        Ok(())
    })
}
