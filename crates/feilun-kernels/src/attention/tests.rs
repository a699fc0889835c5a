use super::*;
use crate::AlignedBytes;
use crate::kv::{KvKind, KvRows, KvSlot, write};
use crate::vector::test_rows::{assert_same_bits, values};

const KINDS: [KvKind; 3] = [KvKind::F32, KvKind::Bf16, KvKind::Q8];
const POSITIONS_MAX: usize = 600;

/// A cache with some sequences in shuffled blocks, and queries for every position of each.
struct Scene {
    shape: AttentionShape,
    cache: AlignedBytes,
    tables: Vec<Vec<u32>>,
    /// Per sequence `positions * q_stride`.
    queries: Vec<Vec<f32>>,
    q_stride: usize,
}

/// What a call asks for: (sequence, start, number of rows).
type Request = (usize, usize, usize);

impl Scene {
    /// Sequences of the given lengths; `shuffle` changes the physical blocks, and nothing else.
    fn new(shape: AttentionShape, lengths: &[usize], shuffle: usize) -> Scene {
        let layout = shape.layout;
        let num_blocks: usize = lengths.iter().map(|len| len.div_ceil(16)).sum();
        // One block more than needed, so that steps of any size coprime to it visit all.
        let total = (num_blocks + 1..).find(|total| is_prime(*total)).unwrap();
        let mut cache = AlignedBytes::zeroed(total * layout.block_bytes()).unwrap();
        // Left by earlier owners: NaN as float, bf16 and scale.
        cache.fill(0xff);
        let mut next = 0;
        let mut tables = Vec::new();
        for len in lengths {
            let table: Vec<u32> = (next..next + len.div_ceil(16))
                .map(|block| (block * (2 * shuffle + 1) % total) as u32)
                .collect();
            next += table.len();
            tables.push(table);
        }
        let q_stride = shape.num_heads * layout.head_dim() + 5;
        let mut queries = Vec::new();
        let mut pool = Pool::new(1).unwrap();
        for (sequence, len) in lengths.iter().enumerate() {
            let seed = 3 * sequence as u64;
            let keys = values(len * layout.kv_size(), seed + 1, 1.5);
            let rows = values(len * layout.kv_size(), seed + 2, 2.0);
            queries.push(values(len * q_stride, seed + 3, 3.0));
            let slots: Vec<KvSlot> =
                (0..*len).map(|at| layout.slot(&tables[sequence], at).unwrap()).collect();
            let rows = KvRows { keys: &keys, values: &rows, stride: layout.kv_size() };
            write(&mut pool, Isa::best(), &layout, &mut cache, &slots, rows);
        }
        Scene { shape, cache, tables, queries, q_stride }
    }

    fn segment(&self, (sequence, start, num_rows): Request) -> AttentionSegment<'_> {
        AttentionSegment { num_rows, start, blocks: &self.tables[sequence] }
    }

    fn q_size(&self) -> usize {
        self.shape.num_heads * self.shape.layout.head_dim()
    }

    fn attend(&self, isa: Isa, num_threads: usize, requests: &[Request]) -> Vec<f32> {
        let segments: Vec<_> = requests.iter().map(|request| self.segment(*request)).collect();
        let mut q = Vec::new();
        for (sequence, start, num_rows) in requests {
            let rows = start * self.q_stride..(start + num_rows) * self.q_stride;
            q.extend_from_slice(&self.queries[*sequence][rows]);
        }
        let num_rows = requests.iter().map(|request| request.2).sum();
        let limits = AttentionLimits {
            num_rows,
            num_segments: requests.len(),
            num_positions: POSITIONS_MAX,
        };
        let mut scratch = AttentionScratch::new(&[self.shape], limits, num_threads).unwrap();
        let mut out = vec![f32::NAN; num_rows * self.q_size()];
        let mut pool = Pool::new(num_threads).unwrap();
        // Twice, because the second call finds a used scratch.
        for _ in 0..2 {
            attend(
                &mut pool,
                isa,
                &self.shape,
                &self.cache,
                &segments,
                &q,
                self.q_stride,
                &mut scratch,
                &mut out,
            );
        }
        out
    }

    /// The result of one row by the formula.
    fn expected(&self, sequence: usize, position: usize) -> Vec<f64> {
        let head_dim = self.shape.layout.head_dim();
        let segment = self.segment((sequence, 0, 0));
        (0..self.shape.num_heads)
            .flat_map(|head| {
                let start = position * self.q_stride + head * head_dim;
                let q = &self.queries[sequence][start..start + head_dim];
                reference::attend_row(&self.shape, &self.cache, &segment, position, head, q)
            })
            .collect()
    }
}

fn is_prime(n: usize) -> bool {
    n > 2 && (2..n).all(|d| !n.is_multiple_of(d))
}

fn shape(
    kind: KvKind,
    num_kv_heads: usize,
    group: usize,
    head_dim: usize,
    window: Option<usize>,
) -> AttentionShape {
    AttentionShape {
        layout: KvLayout::new(kind, num_kv_heads, head_dim).unwrap(),
        num_heads: num_kv_heads * group,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window,
    }
}

/// Of the weighted means of values in -2..2. The 8-bit kind rounds q and p to sixteen bits.
fn tolerance(kind: KvKind) -> f64 {
    if kind == KvKind::Q8 { 1.5e-4 } else { 1e-5 }
}

#[track_caller]
fn assert_row(kind: KvKind, found: &[f32], expected: &[f64], what: &str) {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= tolerance(kind), "{what}: at {index} {found} for {expected}");
    }
}

/// Around blocks, around chunks, and several chunks.
const LENGTHS: [usize; 12] = [1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, POSITIONS_MAX];

fn check_matrix(kind: KvKind, head_dims: &[usize]) {
    for &head_dim in head_dims {
        for group in [1, 2, 3, 8] {
            for window in [None, Some(1), Some(5), Some(16), Some(512)] {
                let num_kv_heads = if group < 3 { 2 } else { 1 };
                let shape = shape(kind, num_kv_heads, group, head_dim, window);
                let scene = Scene::new(shape, &LENGTHS, 7);
                // The last row of each sequence, as decode, then the last few, as prefill.
                for num_rows in [1, 7] {
                    let requests: Vec<Request> = LENGTHS
                        .iter()
                        .enumerate()
                        .map(|(sequence, len)| {
                            let num_rows = num_rows.min(*len);
                            (sequence, len - num_rows, num_rows)
                        })
                        .collect();
                    let what = format!("{kind:?} {head_dim} x{group} {window:?} {num_rows} rows");
                    let found = scene.attend(Isa::best(), 2, &requests);
                    let mut row_end = 0;
                    for (sequence, start, num_rows) in &requests {
                        row_end += num_rows;
                        let expected = scene.expected(*sequence, start + num_rows - 1);
                        let row = &found[(row_end - 1) * scene.q_size()..row_end * scene.q_size()];
                        assert_row(kind, row, &expected, &what);
                    }
                    for isa in Isa::available() {
                        // Without an FMA instruction the portable path takes seconds.
                        if isa != Isa::Portable || head_dim * group <= 200 {
                            assert_same_bits(&scene.attend(isa, 1, &requests), &found);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn f32_agrees_with_the_formula() {
    check_matrix(KvKind::F32, &[18, 32, 64, 80, 128, 256]);
}

#[test]
fn bf16_agrees_with_the_formula() {
    check_matrix(KvKind::Bf16, &[18, 32, 64, 80, 128, 256]);
}

#[test]
fn q8_agrees_with_the_formula() {
    check_matrix(KvKind::Q8, &[2, 18, 32, 64, 80, 128, 256]);
}

/// Each row alone, on one thread, in other blocks: what every other way must reproduce.
fn rows_alone(shape: AttentionShape, lengths: &[usize]) -> Vec<Vec<f32>> {
    let scene = Scene::new(shape, lengths, 3);
    lengths
        .iter()
        .enumerate()
        .map(|(sequence, len)| {
            (0..*len).flat_map(|at| scene.attend(Isa::best(), 1, &[(sequence, at, 1)])).collect()
        })
        .collect()
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    for kind in KINDS {
        for (num_kv_heads, group, head_dim, window) in
            [(3, 3, 64, None), (1, 4, 32, Some(100)), (2, 1, 18, Some(300)), (1, 7, 80, None)]
        {
            let shape = shape(kind, num_kv_heads, group, head_dim, window);
            let lengths = [POSITIONS_MAX, 280, 33];
            let expected = rows_alone(shape, &lengths);
            for (shuffle, num_threads) in [(0, 1), (1, 2), (5, 3)] {
                let scene = Scene::new(shape, &lengths, shuffle);
                let q_size = scene.q_size();
                // Whole prompts together, whole prompts alone, uneven pieces in company.
                let wholes: Vec<Request> = (0..3).map(|s| (s, 0, lengths[s])).collect();
                let found = scene.attend(Isa::best(), num_threads, &wholes);
                assert_same_bits(&found, &expected.concat());
                for sequence in 0..3 {
                    let alone = scene.attend(Isa::best(), num_threads, &wholes[sequence..][..1]);
                    assert_same_bits(&alone, &expected[sequence]);
                }
                let mut start = 0;
                for num_rows in [1, 2, 13, 64, 150, 370] {
                    let company = [(1, 279, 1), (0, start, num_rows), (2, 5, 20)];
                    let found = scene.attend(Isa::best(), num_threads, &company);
                    let rows = start * q_size..(start + num_rows) * q_size;
                    assert_same_bits(&found[q_size..(1 + num_rows) * q_size], &expected[0][rows]);
                    assert_same_bits(&found[..q_size], &expected[1][279 * q_size..]);
                    start += num_rows;
                }
                assert_eq!(start, POSITIONS_MAX);
                // The whole batch as decode.
                let last: Vec<Request> = (0..3).map(|s| (s, lengths[s] - 1, 1)).collect();
                let found = scene.attend(Isa::best(), num_threads, &last);
                for (sequence, row) in found.chunks(q_size).enumerate() {
                    assert_same_bits(row, &expected[sequence][(lengths[sequence] - 1) * q_size..]);
                }
            }
        }
    }
}

#[test]
fn storage_costs_little_accuracy() {
    // Against the same attention over unrounded keys and values.
    let lengths = [POSITIONS_MAX];
    let request = [(0, POSITIONS_MAX - 50, 50)];
    let exact = Scene::new(shape(KvKind::F32, 3, 3, 64, None), &lengths, 1);
    let exact = exact.attend(Isa::best(), 2, &request);
    for (kind, bound) in [(KvKind::Bf16, 4e-3), (KvKind::Q8, 8e-3)] {
        let scene = Scene::new(shape(kind, 3, 3, 64, None), &lengths, 1);
        let found = scene.attend(Isa::best(), 2, &request);
        let square = |x: f32| f64::from(x).powi(2);
        let error: f64 = found.iter().zip(&exact).map(|(a, b)| square(a - b)).sum();
        let norm: f64 = exact.iter().copied().map(square).sum();
        let relative = (error / norm).sqrt();
        assert!(relative < bound, "{kind:?}: relative error {relative:.1e}");
        assert!(relative > bound / 20.0, "{kind:?}: suspiciously exact, {relative:.1e}");
    }
}

#[test]
fn queries_of_zeros_give_the_mean() {
    for kind in KINDS {
        let mut scene = Scene::new(shape(kind, 1, 2, 32, None), &[300], 1);
        scene.queries[0].fill(0.0);
        let found = scene.attend(Isa::best(), 1, &[(0, 299, 1)]);
        assert_row(kind, &found, &scene.expected(0, 299), "zeros");
    }
}

#[test]
fn what_is_not_a_number_stays_with_those_who_see_it() {
    for kind in KINDS {
        for isa in Isa::available() {
            let shape = shape(kind, 1, 2, 32, Some(40));
            let clean = Scene::new(shape, &[100], 1);
            let mut scene = Scene::new(shape, &[100], 1);
            let layout = shape.layout;
            let slot = layout.slot(&scene.tables[0], 50).unwrap();
            let keys = [0.5; 32];
            let mut broken = [0.5; 32];
            broken[7] = f32::INFINITY;
            let rows = KvRows { keys: &keys, values: &broken, stride: 32 };
            write(&mut Pool::new(1).unwrap(), isa, &layout, &mut scene.cache, &[slot], rows);
            let expected = clean.attend(isa, 1, &[(0, 0, 100)]);
            let found = scene.attend(isa, 1, &[(0, 0, 100)]);
            let q_size = scene.q_size();
            for position in 0..100 {
                let row = &found[position * q_size..(position + 1) * q_size];
                if (50..90).contains(&position) {
                    assert!(row.iter().any(|x| !x.is_finite()), "{kind:?} {isa:?} {position}");
                } else {
                    assert_same_bits(row, &expected[position * q_size..(position + 1) * q_size]);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "blocks for 2 rows at 31")]
fn a_short_block_table_is_refused() {
    let scene = Scene::new(shape(KvKind::F32, 1, 1, 2, None), &[40], 0);
    let segment = AttentionSegment { num_rows: 2, start: 31, blocks: &scene.tables[0][..2] };
    let limits = AttentionLimits { num_rows: 2, num_segments: 1, num_positions: 40 };
    let mut scratch = AttentionScratch::new(&[scene.shape], limits, 1).unwrap();
    attend(
        &mut Pool::new(1).unwrap(),
        Isa::Portable,
        &scene.shape,
        &scene.cache,
        &[segment],
        &[0.0; 4],
        2,
        &mut scratch,
        &mut [0.0; 4],
    );
}
