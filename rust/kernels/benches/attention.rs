//! How fast attention is, as a share of the peak of fused multiplications and additions.
//!
//! `cargo bench -p alloyforge-kernels --bench attention [-- THREADS.. SET]`. Prefill computes every query
//! row of a sequence; decode one row behind it. Operations are counted as if no score were masked away: two
//! products of the head's width for each token that a row sees.

mod common;

use alloyforge_kernels::attention::{HeadSpec, QueryTile, Scratch, attend, tile_rows};
use alloyforge_kernels::disjoint::{Disjoint, PerWorker};
use alloyforge_kernels::isa::Isa;
use alloyforge_kernels::plane::PlaneLayout;
use alloyforge_kernels::pool::Pool;
use alloyforge_types::{BLOCK_LEN, Error, KvType, Result};
use common::{best, float_rate};

/// Key heads, of one layer.
const HEADS: usize = 6;

/// What is measured: its name, the width of a head, query heads on a key head, tokens, and whether a row
/// sees what comes behind it.
const CASES: [(&str, usize, usize, usize, bool); 6] = [
    ("a language model's prefill", 64, 3, 512, false),
    ("the same further on", 64, 3, 2048, false),
    ("wide heads", 128, 4, 1024, false),
    ("a picture", 64, 1, 197, true),
    ("half a minute of speech", 64, 1, 1500, true),
    ("a sentence", 32, 1, 24, true),
];

/// One layer's cache and queries.
struct Case {
    spec: HeadSpec,
    len: usize,
    planes: Vec<[Vec<u8>; 2]>,
    queries: Vec<f32>,
    ends: Vec<usize>,
}

impl Case {
    fn new(isa: Isa, ty: KvType, dim: usize, group: usize, len: usize, both_ways: bool) -> Self {
        let layout = PlaneLayout { ty, head_dim: dim };
        let spec =
            HeadSpec { layout, group, scale: (dim as f32).sqrt().recip(), softcap: None, window: None };
        let blocks = len.div_ceil(BLOCK_LEN);
        let mut planes = vec![[vec![0; layout.plane_bytes()], vec![0; layout.plane_bytes()]]; HEADS * blocks];
        let number = |i: usize| (i as f32 * 0.731).sin();
        for (i, [keys, values]) in planes.iter_mut().enumerate() {
            for slot in 0..BLOCK_LEN {
                let vector: Vec<f32> = (0..dim).map(|d| number((i * BLOCK_LEN + slot) * dim + d)).collect();
                layout.write_key(isa, keys, slot, &vector);
                layout.write_value(isa, values, slot, &vector);
            }
        }
        let queries = (0..len * HEADS * group * dim).map(number).collect();
        let ends = (1..=len).map(|end| if both_ways { len } else { end }).collect();
        Self { spec, len, planes, queries, ends }
    }

    /// Seconds of the rows from `first` on.
    fn seconds(&self, isa: Isa, pool: &Pool, first: usize, runs: usize) -> Result<f64> {
        let (dim, group) = (self.spec.layout.head_dim, self.spec.group);
        let stride = HEADS * group * dim;
        let scratch = PerWorker::new(pool.threads(), || Ok::<_, Error>(Scratch::new(dim, group)))?;
        let mut out = vec![0.0; self.len * stride];
        let out = Disjoint::new(&mut out);
        let tile = tile_rows(group);
        let (tiles, blocks) = ((self.len - first).div_ceil(tile), self.len.div_ceil(BLOCK_LEN));
        let mut outcome = Ok(());
        let seconds = best(runs, || {
            outcome = pool.run(tiles * HEADS, |index, worker| {
                let (row, head) = (first + (tiles - 1 - index / HEADS) * tile, index % HEADS);
                let start = row * stride + head * group * dim;
                let query = QueryTile {
                    queries: &self.queries[start..],
                    stride,
                    start: row,
                    ends: &self.ends[row..self.len.min(row + tile)],
                    sinks: None,
                };
                let planes = |block: usize| {
                    let [keys, values] = &self.planes[head * blocks + block];
                    (&keys[..], &values[..])
                };
                let take = |row: usize, head: usize, values: &[f32]| {
                    let at = start + row * stride + head * dim;
                    // SAFETY: a tile's rows of one head are one call's alone.
                    unsafe { out.part(at..at + dim) }.copy_from_slice(values);
                };
                attend(isa, &self.spec, &query, planes, take, &mut scratch.get(worker));
                Ok(())
            });
        });
        outcome.map(|()| seconds)
    }

    /// Billions of operations of the rows from `first` on.
    fn operations(&self, first: usize) -> f64 {
        let seen: usize = self.ends[first..].iter().sum();
        (4 * seen * HEADS * self.spec.group * self.spec.layout.head_dim) as f64 / 1e9
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut threads: Vec<usize> = words.iter().filter_map(|w| w.parse().ok()).collect();
    let sets: Vec<Isa> =
        Isa::available().into_iter().filter(|isa| words.iter().any(|w| w == isa.name())).collect();
    let isa = sets.first().copied().unwrap_or_else(Isa::detect);
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    for threads in threads {
        let pool = Pool::new(threads)?;
        let peak = float_rate(isa, &pool)?;
        println!("{}, {threads} threads: {peak:.0} GFLOP/s", isa.name());
        for (name, dim, group, len, both_ways) in CASES {
            print!("{name:28}");
            for (ty, called) in [(KvType::F32, "f32"), (KvType::F16, "f16"), (KvType::Q8_0, "q8_0")] {
                let case = Case::new(isa, ty, dim, group, len, both_ways);
                let many = case.operations(0) / case.seconds(isa, &pool, 0, 10)?;
                let one = case.operations(len - 1) / case.seconds(isa, &pool, len - 1, 50)?;
                let share = |rate: f64| 100.0 * rate / peak;
                print!("  {called}: {many:4.0} {:3.0} %, one row {:3.0} %", share(many), share(one));
            }
            println!();
        }
    }
    Ok(())
}
