//! Queries, keys and values; attention; its output.

use alloyforge_kernels::attention::{self, QueryTile, parts};
use alloyforge_kernels::disjoint::Disjoint;
use alloyforge_kernels::norm;
use alloyforge_kernels::packed::BLOCK;
use alloyforge_kernels::packed::activations::quantize_row;
use alloyforge_kernels::product::{Input, Store};
use alloyforge_kernels::rope::{rotate_half, rotate_interleaved};
use alloyforge_types::{BLOCK_LEN, Result, RopeLayout};

use super::{Context, Tools, by_rows, into_residual, norm_behind, norm_rows, takes_blocks, to_blocks, whole};
use crate::layer::{HeadNorm, Layer};
use crate::step::Rows;
use crate::workspace::PARTS_KEPT;

/// Norm, q, k and v with biases, q/k norm, rotary embedding; k and v into the cache.
pub(crate) fn qkv(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    products(layer, context)?;
    if let HeadNorm::FullWidth { q, k } = &layer.head_norm {
        norm_full_width(q, k, context)?;
    }
    append(layer, context)
}

/// The normed rows times the three matrices, in one job.
fn products(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, count, hidden) = (context.isa, context.step.num_rows, context.spec.hidden_dim);
    let work = &mut *context.work;
    let (pool, wanted) = (context.pool, takes_blocks(&[&layer.q, &layer.k, &layer.v]));
    let input = match &layer.attn_norm {
        Some(norm) => {
            let (eps, from) = (context.spec.norm_eps, work.residual.get());
            let blocks = wanted.then(|| work.blocks.get_mut());
            norm_rows(isa, pool, from, norm, eps, count, work.normed.get_mut(), blocks)?;
            Input::first(work.normed.get(), hidden, count).with_blocks(wanted.then(|| work.blocks.get()))
        }
        None => {
            let input = work.residual.get();
            let blocks = to_blocks(isa, pool, wanted, input, hidden, count, &mut work.blocks)?;
            Input::first(input, hidden, count).with_blocks(blocks)
        }
    };
    let [q, k, v] = [&mut work.q, &mut work.k, &mut work.v].map(|table| Disjoint::new(table.get_mut()));
    let products = [(&layer.q, &q), (&layer.k, &k), (&layer.v, &v)];
    whole(isa, pool, &work.scratch, products, input, Store::Set)
}

/// The norm over all heads together.
fn norm_full_width(q_weight: &[f32], k_weight: &[f32], context: &mut Context<'_>) -> Result<()> {
    let (isa, eps) = (context.isa, context.spec.norm_eps);
    let (q, k) = (Disjoint::new(context.work.q.get_mut()), Disjoint::new(context.work.k.get_mut()));
    by_rows(context.pool, context.step.num_rows, |row| {
        for (values, weight) in [(&q, q_weight), (&k, k_weight)] {
            let width = weight.len();
            // SAFETY: each row is one call's alone.
            let values = unsafe { values.part(row * width..(row + 1) * width) };
            norm::rms_norm_in_place(isa, values, weight, eps);
        }
        Ok(())
    })
}

/// Norm and turn of every head; keys and values into the cache. One chunk takes the rows of one block,
/// one key head and its query heads.
fn append(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, eps, step) = (context.isa, context.spec.norm_eps, context.step);
    let (dim, group, heads) = (layer.head_dim(), layer.heads.group, layer.num_kv_heads);
    let (q_dim, kv_dim) = (layer.q_dim(), layer.kv_dim());
    let work = &mut *context.work;
    let (q, k) = (Disjoint::new(work.q.get_mut()), Disjoint::new(work.k.get_mut()));
    let v = work.v.get();
    let turn = layer
        .rope
        .map(|index| (&context.ropes[index], work.angles[index].0.get(), work.angles[index].1.get()));
    let (q_norm, k_norm) = match &layer.head_norm {
        HeadNorm::PerHead { q, k } => (Some(q), Some(k)),
        HeadNorm::None | HeadNorm::FullWidth { .. } => (None, None),
    };
    let prepare = |values: &mut [f32], weight: Option<&Vec<f32>>, row: usize| {
        if let Some(weight) = weight {
            norm::rms_norm_in_place(isa, values, weight, eps);
        }
        if let Some((rope, cos, sin)) = turn {
            let n = rope.num_angles();
            let (cos, sin) = (&cos[row * n..][..n], &sin[row * n..][..n]);
            match rope.layout() {
                RopeLayout::Half => rotate_half(isa, values, cos, sin),
                RopeLayout::Interleaved => rotate_interleaved(isa, values, cos, sin),
            }
        }
    };
    let layout = layer.heads.layout;
    let writer = context.cache.writer(layer.place);
    context.pool.run(step.runs.len() * heads, |chunk, _| {
        let (run, head) = (step.runs[chunk / heads], chunk % heads);
        let block = step.block(run.sequence, layer.place.group, run.start / BLOCK_LEN);
        // SAFETY: the step has checked that no two runs write to one block; a head is one chunk's alone.
        let (keys, values) = unsafe { writer.planes(block, head) };
        for i in 0..run.count {
            let row = run.first + i;
            for q_head in head * group..(head + 1) * group {
                let at = row * q_dim + q_head * dim;
                // SAFETY: a row's query heads belong to one key head, which is this chunk's alone.
                prepare(unsafe { q.part(at..at + dim) }, q_norm, row);
            }
            let at = row * kv_dim + head * dim;
            // SAFETY: as above.
            let key = unsafe { k.part(at..at + dim) };
            prepare(key, k_norm, row);
            let slot = (run.start + i) % BLOCK_LEN;
            layout.write_key(isa, keys, slot, key);
            layout.write_value(isa, values, slot, &v[at..at + dim]);
        }
        Ok(())
    })
}

/// Whether [`attend`] leaves its results as blocks for the output product: where heads are whole blocks.
fn gives_blocks(layer: &Layer) -> bool {
    takes_blocks(&[&layer.o]) && layer.head_dim().is_multiple_of(BLOCK)
}

/// Softmax attention of the queries over the cache. One chunk takes some rows and one key head; where
/// those are few and each is one row, a part of its cache.
pub(crate) fn attend(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let (isa, step, pool) = (context.isa, context.step, context.pool);
    let (dim, group, heads, q_dim) = (layer.head_dim(), layer.heads.group, layer.num_kv_heads, layer.q_dim());
    let work = &mut *context.work;
    let queries = work.q.get();
    let attended = Disjoint::new(work.attended.get_mut());
    let blocks = gives_blocks(layer).then(|| Disjoint::new(work.blocks.get_mut()));
    let reader = &context.cache.reader(layer.place);
    let scratch = &work.scratch;
    let items = step.tiles.len() * heads;
    // later rows see more: the longest first, so that none is left for the end
    let item = |index: usize| (step.tiles[step.tiles.len() - 1 - index / heads], index % heads);
    let query = |tile: Rows, head: usize| QueryTile {
        queries: &queries[tile.first * q_dim + head * group * dim..],
        stride: q_dim,
        start: tile.start,
        ends: &step.ends[tile.first..tile.first + tile.count],
        sinks: layer.sinks.as_ref().map(|sinks| &sinks[head * group..(head + 1) * group]),
    };
    let planes = |tile: Rows, head: usize| {
        move |index| reader.planes(step.block(tile.sequence, layer.place.group, index), head)
    };
    let out = |tile: Rows, head: usize| {
        let (attended, blocks) = (&attended, &blocks);
        move |row: usize, q_head: usize, values: &[f32]| {
            let at = (tile.first + row) * q_dim + (head * group + q_head) * dim;
            match blocks {
                Some(blocks) => {
                    // SAFETY: these rows' heads are this chunk's alone, and so are their blocks.
                    let blocks = unsafe { blocks.part(at / BLOCK..(at + dim) / BLOCK) };
                    quantize_row(isa, values, blocks);
                }
                // SAFETY: as above.
                None => unsafe { attended.part(at..at + dim) }.copy_from_slice(values),
            }
        }
    };
    let seen = |tile: Rows| parts(query(tile, 0).visible(layer.heads.window));
    let most = step.tiles.iter().map(|tile| seen(*tile).count()).max().unwrap_or(0);
    let is_parted = step.tiles.iter().all(|tile| tile.count == 1)
        && items <= work.partials.items
        && (2..=PARTS_KEPT).contains(&most);
    if !is_parted {
        return pool.run(items, |index, worker| {
            let (tile, head) = item(index);
            let scratch = &mut scratch.get(worker).attention;
            let query = query(tile, head);
            attention::attend(isa, &layer.heads, &query, planes(tile, head), out(tile, head), scratch);
            Ok(())
        });
    }
    let len = group * layer.heads.partial_len();
    {
        let partials = Disjoint::new(work.partials.sums.get_mut());
        pool.run(items * most, |chunk, worker| {
            let (tile, head) = item(chunk / most);
            if let Some(part) = seen(tile).nth(chunk % most) {
                // SAFETY: a part is one chunk's alone.
                let sums = unsafe { partials.part(chunk * len..(chunk + 1) * len) };
                let scratch = &mut scratch.get(worker).attention;
                let query = query(tile, head);
                attention::attend_part(isa, &layer.heads, &query, &part, planes(tile, head), sums, scratch);
            }
            Ok(())
        })?;
    }
    let partials = work.partials.sums.get();
    pool.run(items, |index, worker| {
        let (tile, head) = item(index);
        let sums = partials[index * most * len..].chunks_exact(len).take(seen(tile).count());
        let scratch = &mut scratch.get(worker).attention;
        attention::join(isa, &layer.heads, &query(tile, head), sums, out(tile, head), scratch);
        Ok(())
    })
}

/// Output product, bias, norm after, residual.
pub(crate) fn output(layer: &Layer, context: &mut Context<'_>) -> Result<()> {
    let work = &mut *context.work;
    let tools = Tools {
        isa: context.isa,
        pool: context.pool,
        scratch: &work.scratch,
        residual_scale: context.spec.residual_scale,
        eps: context.spec.norm_eps,
    };
    let (input, width, count) = (work.attended.get(), layer.q_dim(), context.step.num_rows);
    let blocks = if gives_blocks(layer) {
        Some(work.blocks.get())
    } else {
        let wanted = takes_blocks(&[&layer.o]);
        to_blocks(tools.isa, tools.pool, wanted, input, width, count, &mut work.blocks)?
    };
    let input = Input::first(input, width, count).with_blocks(blocks);
    let post_norm = layer.attn_post_norm.as_deref();
    into_residual(&layer.o, input, post_norm, tools, work.residual.get_mut(), work.added.get_mut())?;
    norm_behind(layer.attn_after_norm.as_ref(), context)
}
