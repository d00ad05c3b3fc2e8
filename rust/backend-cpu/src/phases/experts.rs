//! A mixture of experts.
//!
//! Rows are sorted by expert, so that each expert is two products over all rows that chose it. A row
//! adds its experts' results in the order of its own choice, whoever else chose them.

use alloyforge_kernels::activation::activate;
use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::norm;
use alloyforge_kernels::packed::activations::Activations;
use alloyforge_kernels::pool::Pool;
use alloyforge_kernels::product::{Input, InputRows, Store, chunk_rows, num_chunks};
use alloyforge_kernels::router::choose;
use alloyforge_types::{Error, Result};

use super::{Context, Tools, add_normed, by_rows, part, takes_blocks, to_blocks};
use crate::layer::{Experts, Layer};
use crate::workspace::{Routing, Scratch};

/// Router, experts, norm after, residual.
pub(crate) fn experts(mlp: &Experts, layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, count, hidden) = (context.isa, context.step.num_rows, context.spec.hidden_dim);
    let work = &mut *context.work;
    let tools = Tools {
        isa,
        pool: context.pool,
        scratch: &work.scratch,
        residual_scale: context.spec.residual_scale,
        eps: context.spec.norm_eps,
    };
    let Some(routing) = &mut work.routing else {
        return Err(Error::internal("no workspace for experts"));
    };
    let input = if layer.mlp_norm.is_some() { work.normed.get() } else { work.residual.get() };
    route(mlp, Input::first(input, hidden, count), tools, routing)?;
    sort(mlp, count, routing);
    run(mlp, input, tools, routing, [work.gate.get_mut(), work.up.get_mut()], &mut work.blocks)?;
    combine(mlp, count, hidden, tools, routing, work.added.get_mut())?;
    match &layer.mlp_post_norm {
        Some(weight) => add_normed(weight, count, tools, work.residual.get_mut(), work.added.get_mut()),
        None => add(isa, tools, count, hidden, work.residual.get_mut(), work.added.get()),
    }
}

/// Every row's experts and their weights.
fn route(mlp: &Experts, input: Input<'_>, tools: Tools<'_>, routing: &mut Routing) -> Result<()> {
    let num_experts = mlp.experts.len();
    {
        let logits = Disjoint::new(routing.logits.get_mut());
        tools.pool.run(num_chunks(num_experts), |chunk, worker| {
            let mut scratch = tools.scratch.get(worker);
            let rows = chunk_rows(chunk, num_experts);
            // SAFETY: each chunk has columns of its own.
            unsafe { part(tools.isa, &mlp.router, rows, input, &logits, 0, Store::Set, &mut scratch) }
        })?;
    }
    let logits = routing.logits.get();
    let (chosen, weights) = (Disjoint::new(&mut routing.chosen), Disjoint::new(&mut routing.weights));
    by_rows(tools.pool, input.count(), |row| {
        let range = row * mlp.per_token..(row + 1) * mlp.per_token;
        // SAFETY: each row is one call's alone.
        let (chosen, weights) = unsafe { (chosen.part(range.clone()), weights.part(range)) };
        choose(&logits[row * num_experts..][..num_experts], mlp.order, chosen, weights);
        Ok(())
    })
}

/// Sorts the rows by expert, by counting.
fn sort(mlp: &Experts, count: usize, routing: &mut Routing) {
    let chosen = &routing.chosen[..count * mlp.per_token];
    let counts = &mut routing.counts[..mlp.experts.len()];
    counts.fill(0);
    for &expert in chosen {
        counts[expert as usize] += 1;
    }
    routing.active.clear();
    let mut next = 0;
    for (expert, count) in counts.iter_mut().enumerate() {
        if *count > 0 {
            routing.active.push((expert, next));
        }
        // from here on, where the expert's next row goes
        (*count, next) = (next, next + *count);
    }
    routing.active.push((mlp.experts.len(), next));
    for (i, &expert) in chosen.iter().enumerate() {
        let place = &mut counts[expert as usize];
        routing.sorted[*place] = (i / mlp.per_token) as u32;
        routing.places[i] = *place as u32;
        *place += 1;
    }
}

/// All experts that have rows, each on its own rows, into `routing.results`. `blocks` has those of the
/// input.
fn run(
    mlp: &Experts,
    input: &[f32],
    tools: Tools<'_>,
    routing: &mut Routing,
    [gate, up]: [&mut [f32]; 2],
    blocks: &mut Activations,
) -> Result<()> {
    let Some([gate_of_first, ..]) = mlp.experts.first() else { return Ok(()) };
    let (ff_dim, hidden) = (gate_of_first.matrix.rows(), gate_of_first.matrix.cols());
    let (active, sorted) = (&routing.active, &routing.sorted);
    let isa = tools.isa;
    {
        let (gate, up) = (Disjoint::new(&mut *gate), Disjoint::new(up));
        let blocks = blocks.get();
        each(tools.pool, tools.scratch, active, ff_dim, |expert, places, rows, scratch| {
            let [gate_weights, up_weights, _] = &mlp.experts[expert];
            let rows_of = InputRows::Listed(&sorted[places.clone()]);
            let input = Input { values: input, stride: hidden, rows: rows_of, blocks: Some(blocks) };
            // SAFETY: each chunk has columns of its own in rows of its own.
            unsafe {
                part(isa, gate_weights, rows.clone(), input, &gate, places.start, Store::Set, scratch)?;
                part(isa, up_weights, rows.clone(), input, &up, places.start, Store::Set, scratch)?;
            }
            for place in places {
                let range = place * ff_dim + rows.start..place * ff_dim + rows.end;
                // SAFETY: as above.
                let (gate, up) = unsafe { (gate.part(range.clone()), up.part(range)) };
                activate(isa, mlp.activation, gate, up);
            }
            Ok(())
        })?;
    }
    let wanted = mlp.experts.iter().any(|[.., down]| takes_blocks(&[down]));
    let count = active.last().map_or(0, |(_, end)| *end);
    let blocks = to_blocks(isa, tools.pool, wanted, gate, ff_dim, count, blocks)?;
    let results = Disjoint::new(routing.results.get_mut());
    each(tools.pool, tools.scratch, active, hidden, |expert, places, rows, scratch| {
        let rows_of = InputRows::Range(places.start, places.end);
        let input = Input { values: gate, stride: ff_dim, rows: rows_of, blocks };
        // SAFETY: each chunk has columns of its own in rows of its own.
        unsafe {
            part(isa, &mlp.experts[expert][2], rows, input, &results, places.start, Store::Set, scratch)
        }
    })
}

/// Calls `task` for every chunk of `width` weight rows of every active expert, with the expert and the
/// places of its rows.
fn each(
    pool: &Pool,
    scratch: &PerWorker<Scratch>,
    active: &[(usize, usize)],
    width: usize,
    task: impl Fn(usize, std::ops::Range<usize>, std::ops::Range<usize>, &mut Scratch) -> Result<()> + Sync,
) -> Result<()> {
    let chunks = num_chunks(width);
    pool.run(active.len().saturating_sub(1) * chunks, |chunk, worker| {
        let (expert, first) = active[chunk / chunks];
        let (_, end) = active[chunk / chunks + 1];
        task(expert, first..end, chunk_rows(chunk % chunks, width), &mut scratch.get(worker))
    })
}

/// Every row's weighted sum of its experts' results, into `added`.
fn combine(
    mlp: &Experts,
    count: usize,
    hidden: usize,
    tools: Tools<'_>,
    routing: &Routing,
    added: &mut [f32],
) -> Result<()> {
    let results = routing.results.get();
    let added = Disjoint::new(added);
    by_rows(tools.pool, count, |row| {
        // SAFETY: each row is one call's alone.
        let added = unsafe { added.part(row * hidden..(row + 1) * hidden) };
        added.fill(0.0);
        for i in row * mlp.per_token..(row + 1) * mlp.per_token {
            let result = &results[routing.places[i] as usize * hidden..][..hidden];
            norm::add_scaled(tools.isa, added, result, routing.weights[i]);
        }
        Ok(())
    })
}

/// Adds every row of `added` to the residual stream.
fn add(
    isa: Isa,
    tools: Tools<'_>,
    count: usize,
    hidden: usize,
    residual: &mut [f32],
    added: &[f32],
) -> Result<()> {
    let residual = Disjoint::new(residual);
    by_rows(tools.pool, count, |row| {
        let range = row * hidden..(row + 1) * hidden;
        // SAFETY: each row is one call's alone.
        norm::add_scaled(isa, unsafe { residual.part(range.clone()) }, &added[range], tools.residual_scale);
        Ok(())
    })
}
