//! Attention against its definition, in every tile, part and instruction set.

use super::*;
use crate::reference;
use alloyforge_types::KvType;
use proptest::prelude::*;

fn wave(seed: usize, i: usize) -> f32 {
    ((seed % 9973) as f32 * 0.37 + i as f32 * 1.618).sin() * 1.5
}

/// A sequence's cache and queries.
struct Case {
    spec: HeadSpec,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    planes: Vec<(Vec<u8>, Vec<u8>)>,
    queries: Vec<f32>,
    ends: Vec<usize>,
    sinks: Option<Vec<f32>>,
}

impl Case {
    fn new(spec: HeadSpec, len: usize, ends: Vec<usize>, sinks: Option<Vec<f32>>, seed: usize) -> Self {
        let dim = spec.layout.head_dim;
        let vectors = |salt: usize| -> Vec<Vec<f32>> {
            (0..len).map(|t| (0..dim).map(|d| wave(seed + salt, t * dim + d)).collect()).collect()
        };
        let (keys, values) = (vectors(1), vectors(2));
        // stale numbers where no token was written yet
        let bytes = spec.layout.plane_bytes();
        let mut planes = vec![(vec![0xff; bytes], vec![0xff; bytes]); len.div_ceil(BLOCK_LEN)];
        for t in 0..len {
            let (k, v) = &mut planes[t / BLOCK_LEN];
            spec.layout.write_key(Isa::detect(), k, t % BLOCK_LEN, &keys[t]);
            spec.layout.write_value(Isa::detect(), v, t % BLOCK_LEN, &values[t]);
        }
        let queries = (0..len * spec.group * dim).map(|i| wave(seed + 3, i)).collect();
        Self { spec, keys, values, planes, queries, ends, sinks }
    }

    /// The rows from `start` on, in tiles of `rows`.
    fn run(&self, isa: Isa, start: usize, rows: usize) -> Vec<f32> {
        let HeadSpec { layout, group, .. } = self.spec;
        let stride = group * layout.head_dim;
        let mut out = vec![0.0; (self.ends.len() - start) * stride];
        let mut scratch = Scratch::new(layout.head_dim, group);
        for first in (start..self.ends.len()).step_by(rows) {
            let tile = QueryTile {
                queries: &self.queries[first * stride..],
                stride,
                start: first,
                ends: &self.ends[first..self.ends.len().min(first + rows)],
                sinks: self.sinks.as_deref(),
            };
            attend(
                isa,
                &self.spec,
                &tile,
                |block| (&self.planes[block].0, &self.planes[block].1),
                |row, head, values| {
                    out[(first - start + row) * stride + head * layout.head_dim..][..layout.head_dim]
                        .copy_from_slice(values);
                },
                &mut scratch,
            );
        }
        out
    }

    /// Row `row`, its parts apart.
    fn run_parts(&self, isa: Isa, row: usize) -> Vec<f32> {
        let HeadSpec { layout, group, .. } = self.spec;
        let stride = group * layout.head_dim;
        let (mut scratch, mut out) = (Scratch::new(layout.head_dim, group), vec![0.0; stride]);
        let tile = QueryTile {
            queries: &self.queries[row * stride..],
            stride,
            start: row,
            ends: &self.ends[row..row + 1],
            sinks: self.sinks.as_deref(),
        };
        let planes = |block: usize| (&self.planes[block].0[..], &self.planes[block].1[..]);
        let mut partials = Vec::new();
        for part in parts(tile.visible(self.spec.window)) {
            let mut partial = vec![f32::NAN; group * self.spec.partial_len()];
            attend_part(isa, &self.spec, &tile, &part, planes, &mut partial, &mut scratch);
            partials.push(partial);
        }
        let take = |_: usize, head: usize, values: &[f32]| {
            out[head * layout.head_dim..][..layout.head_dim].copy_from_slice(values);
        };
        join(isa, &self.spec, &tile, partials.iter().map(|p| &p[..]), take, &mut scratch);
        out
    }

    fn want(&self, row: usize, head: usize) -> Vec<f64> {
        let HeadSpec { layout, group, scale, softcap, window } = self.spec;
        let from = window.map_or(0, |w| (row + 1).saturating_sub(w));
        let query = &self.queries[(row * group + head) * layout.head_dim..][..layout.head_dim];
        let sink = self.sinks.as_ref().map(|s| s[head]);
        let seen = from..self.ends[row];
        reference::attend(query, &self.keys[seen.clone()], &self.values[seen], scale, softcap, sink)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn attention_is_the_reference_whatever_the_tile(
        head_dim in prop::sample::select(vec![1usize, 7, 16, 32, 40, 64, 80, 128]),
        group in 1usize..4,
        len in 1usize..150,
        ahead in 0usize..20,
        window in prop::option::of(1usize..100),
        softcap in prop::option::of(2.0f32..30.0),
        has_sinks in any::<bool>(),
        rows in 1usize..=16,
        seed in any::<u16>(),
    ) {
        let layout = PlaneLayout { ty: KvType::F32, head_dim };
        let spec = HeadSpec { layout, group, scale: 1.0 / (head_dim as f32).sqrt(), softcap, window };
        // a picture near the middle, whose tokens see each other
        let picture = len / 2..len.min(len / 2 + ahead);
        let ends = (0..len).map(|t| if picture.contains(&t) { picture.end } else { t + 1 }).collect();
        let sinks = has_sinks.then(|| (0..group).map(|h| wave(h, 5)).collect());
        let case = Case::new(spec, len, ends, sinks, usize::from(seed));
        for isa in Isa::available() {
            let out = case.run(isa, 0, rows);
            for row in 0..len {
                for head in 0..group {
                    let got = &out[(row * group + head) * head_dim..][..head_dim];
                    for (g, w) in got.iter().zip(case.want(row, head)) {
                        prop_assert!((f64::from(*g) - w).abs() < 2e-5, "{} row {row}: {g}, not {w}", isa.name());
                    }
                }
            }
            // other tiles, a later start: the same bits
            prop_assert_eq!(&case.run(isa, 0, 1), &out);
            let start = len / 3;
            prop_assert_eq!(&case.run(isa, start, tile_rows(group))[..], &out[start * group * head_dim..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn parts_joined_are_the_whole(
        ty in prop::sample::select(vec![KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0]),
        head_dim in prop::sample::select(vec![5usize, 32, 64, 72, 80]),
        group in 1usize..8,
        len in 200usize..3000,
        window in prop::option::of(1usize..1500),
        has_sinks in any::<bool>(),
        seed in any::<u16>(),
    ) {
        let layout = PlaneLayout { ty, head_dim };
        let spec = HeadSpec { layout, group, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None, window };
        let sinks = has_sinks.then(|| (0..group).map(|h| wave(h, 5)).collect());
        let case = Case::new(spec, len, (1..=len).collect(), sinks, usize::from(seed));
        for isa in Isa::available() {
            // the last rows, some of which see the same parts and some of which do not
            let start = len - 40;
            let out = case.run(isa, start, tile_rows(group));
            for row in (start..len).step_by(13) {
                let stride = group * head_dim;
                prop_assert_eq!(&case.run_parts(isa, row)[..], &out[(row - start) * stride..][..stride]);
                for head in 0..group {
                    let got = &out[(row - start) * stride + head * head_dim..][..head_dim];
                    for (g, w) in got.iter().zip(case.want(row, head)) {
                        // the cache's own rounding
                        let near = if matches!(ty, KvType::BF16 | KvType::Q8_0) { 3e-2 } else { 4e-3 };
                        prop_assert!((f64::from(*g) - w).abs() < near, "{} row {row}: {g}, not {w}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn parts_begin_at_the_same_places_everywhere() {
    let all: Vec<_> = parts(0..1 << 40).collect();
    assert!(all.len() <= MAX_PARTS);
    assert!(all.windows(2).all(|w| w[0].end == w[1].start && w[0].len() <= w[1].len()));
    assert_eq!((all[0].clone(), all[8].clone(), all[16].clone()), (0..256, 2048..2304, 4096..4608));
    for visible in [0..1, 255..256, 256..257, 300..5000, 4095..4097, 123_456..1_234_567] {
        let want = all.iter().filter(|p| p.start < visible.end && p.end > visible.start).cloned();
        assert!(want.eq(parts(visible.clone())));
    }
    assert_eq!(parts(7..7).count(), 0);
}

#[test]
fn narrower_sets_agree_with_wider_ones() {
    let layout = PlaneLayout { ty: KvType::F16, head_dim: 40 };
    let spec = HeadSpec { layout, group: 2, scale: 0.2, softcap: Some(9.0), window: Some(50) };
    let case = Case::new(spec, 90, (1..=90).collect(), Some(vec![0.5, -0.5]), 3);
    let results: Vec<Vec<f32>> = Isa::available()
        .into_iter()
        .filter(|isa| isa.name().starts_with("avx"))
        .map(|isa| case.run(isa, 0, 16))
        .collect();
    assert!(results.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn a_nan_key_reaches_the_rows_that_see_it() {
    let layout = PlaneLayout { ty: KvType::F32, head_dim: 8 };
    let spec = HeadSpec { layout, group: 1, scale: 0.3, softcap: None, window: Some(10) };
    let mut case = Case::new(spec, 70, (1..=70).collect(), None, 3);
    layout.write_key(Isa::detect(), &mut case.planes[1].0, 3, &[f32::NAN; 8]);
    for isa in Isa::available() {
        for (row, out) in case.run(isa, 0, 16).chunks_exact(8).enumerate() {
            assert!(out.iter().all(|v| v.is_nan() == (35..45).contains(&row)), "row {row}");
        }
    }
}
