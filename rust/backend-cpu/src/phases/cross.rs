//! Attention over an encoder's states.

use alloyforge_kernels::attention::{self, QueryTile};
use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::product::{Input, Store};
use alloyforge_types::{BLOCK_LEN, Error, Result};

use super::{Context, Tools, into_residual, norm_rows, takes_blocks, to_blocks, whole};
use crate::layer::Cross;

/// Norm, queries, attention over the states of each sequence's slot, output, residual.
pub(crate) fn cross(cross: &Cross, layer: usize, context: &mut Context<'_>) -> Result<()> {
    queries(cross, context)?;
    attend(cross, context)?;
    for watched in 0..context.step.watched_heads.len() {
        let (of, head) = context.step.watched_heads[watched];
        if of == layer {
            watch(cross, head, watched, context);
        }
    }
    output(cross, context)
}

/// The normed rows times the query matrix.
fn queries(cross: &Cross, context: &mut Context<'_>) -> Result<()> {
    let (isa, count, hidden) = (context.isa, context.step.num_rows, context.spec.hidden_dim);
    let (eps, wanted) = (context.spec.norm_eps, takes_blocks(&[&cross.q]));
    let work = &mut *context.work;
    let blocks = wanted.then(|| work.blocks.get_mut());
    norm_rows(
        isa,
        context.pool,
        work.residual.get(),
        &cross.norm,
        eps,
        count,
        work.normed.get_mut(),
        blocks,
    )?;
    let input = Input::first(work.normed.get(), hidden, count).with_blocks(wanted.then(|| work.blocks.get()));
    let values = Disjoint::new(work.q.get_mut());
    whole(isa, context.pool, &work.scratch, [(&cross.q, &values)], input, Store::Set)
}

/// Softmax attention over the states. One chunk takes some rows of one slot and one head.
fn attend(cross: &Cross, context: &mut Context<'_>) -> Result<()> {
    let (isa, step, states) = (context.isa, context.step, &*context.states);
    let (dim, heads, width) = (cross.heads.layout.head_dim, cross.num_heads, cross.width());
    let queries = context.work.q.get();
    let attended = Disjoint::new(context.work.attended.get_mut());
    let reader = states.cache.reader(cross.place);
    let scratch = &context.work.scratch;
    context.pool.run(step.cross_tiles.len() * heads, |chunk, worker| {
        let (tile, head) = (step.cross_tiles[chunk / heads], chunk % heads);
        let first = head * dim;
        let query = QueryTile {
            queries: &queries[tile.first * width + first..],
            stride: width,
            start: 0,
            ends: &states.ends[..tile.count],
            sinks: None,
        };
        attention::attend(
            isa,
            &cross.heads,
            &query,
            |index| reader.planes(states.block(tile.sequence, index), head),
            |row, _, values| {
                let at = (tile.first + row) * width + first;
                // SAFETY: these rows' head is this chunk's alone.
                unsafe { attended.part(at..at + dim) }.copy_from_slice(values);
            },
            &mut scratch.get(worker).attention,
        );
        Ok(())
    })
}

/// The probabilities of `head` for every row, kept as number `index` of the watched heads.
fn watch(cross: &Cross, head: usize, index: usize, context: &mut Context<'_>) {
    let (isa, step) = (context.isa, context.step);
    let (dim, width, len) = (cross.heads.layout.head_dim, cross.width(), context.states.len);
    let queries = context.work.q.get();
    let mut watched = std::mem::take(&mut context.states.watched);
    watched.resize(step.watched_heads.len() * step.num_rows * len, 0.0);
    let reader = context.states.cache.reader(cross.place);
    let mut keys = vec![0.0; dim * BLOCK_LEN];
    for tile in &step.cross_tiles {
        for block in 0..len.div_ceil(BLOCK_LEN) {
            let (plane, _) = reader.planes(context.states.block(tile.sequence, block), head);
            cross.heads.layout.read_keys(isa, plane, &mut keys);
            let slots = BLOCK_LEN.min(len - block * BLOCK_LEN);
            for row in tile.first..tile.first + tile.count {
                let query = &queries[row * width + head * dim..][..dim];
                let out = &mut watched[(index * step.num_rows + row) * len + block * BLOCK_LEN..][..slots];
                out.fill(0.0);
                for (q, keys) in query.iter().zip(keys.chunks_exact(BLOCK_LEN)) {
                    for (o, k) in out.iter_mut().zip(keys) {
                        *o += q * k * cross.heads.scale;
                    }
                }
            }
        }
    }
    for row in 0..step.num_rows {
        let out = &mut watched[(index * step.num_rows + row) * len..][..len];
        let most = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        out.iter_mut().for_each(|o| *o = (*o - most).exp());
        let sum: f32 = out.iter().sum();
        out.iter_mut().for_each(|o| *o /= sum);
    }
    context.states.watched = watched;
}

/// Output product, bias, residual.
fn output(cross: &Cross, context: &mut Context<'_>) -> Result<()> {
    let work = &mut *context.work;
    let tools = Tools {
        isa: context.isa,
        pool: context.pool,
        scratch: &work.scratch,
        residual_scale: context.spec.residual_scale,
        eps: context.spec.norm_eps,
    };
    let (input, width, count) = (work.attended.get(), cross.width(), context.step.num_rows);
    let wanted = takes_blocks(&[&cross.o]);
    let blocks = to_blocks(tools.isa, tools.pool, wanted, input, width, count, &mut work.blocks)?;
    let input = Input::first(input, width, count).with_blocks(blocks);
    into_residual(&cross.o, input, None, tools, work.residual.get_mut(), work.added.get_mut())
}

/// Keys and values of `states`, `[len, hidden]`, for one layer, into `slot`.
pub(crate) fn put(
    cross: &Cross,
    slot: usize,
    states: &[f32],
    max_rows: usize,
    context: &mut Context<'_>,
) -> Result<()> {
    let (isa, pool, hidden) = (context.isa, context.pool, context.spec.hidden_dim);
    let (len, width, dim, heads) =
        (context.states.len, cross.width(), cross.heads.layout.head_dim, cross.num_heads);
    // whole blocks, as many as the workspace holds
    let step = max_rows / BLOCK_LEN * BLOCK_LEN;
    if step == 0 {
        return Err(Error::internal(format!("states by {max_rows} rows")));
    }
    let wanted = takes_blocks(&[&cross.k, &cross.v]);
    for (from, part_of) in states.chunks(step * hidden).enumerate().map(|(i, part)| (i * step, part)) {
        let count = part_of.len() / hidden;
        let work = &mut *context.work;
        let blocks = to_blocks(isa, pool, wanted, part_of, hidden, count, &mut work.blocks)?;
        let input = Input::first(part_of, hidden, count).with_blocks(blocks);
        {
            let [k, v] = [&mut work.k, &mut work.v].map(|table| Disjoint::new(table.get_mut()));
            whole(isa, pool, &work.scratch, [(&cross.k, &k), (&cross.v, &v)], input, Store::Set)?;
        }
        let (k, v) = (work.k.get(), work.v.get());
        let (first_block, layout) = (from / BLOCK_LEN, cross.heads.layout);
        let states = &mut *context.states;
        let places: Vec<_> =
            (0..count.div_ceil(BLOCK_LEN)).map(|block| states.block(slot, first_block + block)).collect();
        let writer = states.cache.writer(cross.place);
        pool.run(places.len() * heads, |chunk, _| {
            let (block, head) = (chunk / heads, chunk % heads);
            // SAFETY: each chunk has a block and a head of its own.
            let (keys, values) = unsafe { writer.planes(places[block], head) };
            for (slot, row) in (block * BLOCK_LEN..count.min((block + 1) * BLOCK_LEN)).enumerate() {
                let at = row * width + head * dim;
                layout.write_key(isa, keys, slot, &k[at..at + dim]);
                layout.write_value(isa, values, slot, &v[at..at + dim]);
            }
            Ok(())
        })?;
    }
    debug_assert_eq!(states.len(), len * hidden);
    Ok(())
}
