use half::bf16;

use super::*;
use crate::vector::test_rows::{assert_close, assert_same_bits, values};

/// Everything that comes out of attention, in f64, straight from the formulas.
struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    d_q: Vec<f64>,
    d_k: Vec<f64>,
    d_v: Vec<f64>,
}

fn reference(shape: &PackedShape, documents: &[usize], [q, k, v, d_out]: [&[f64]; 4]) -> Reference {
    let PackedShape { num_heads, num_kv_heads, head_dim, .. } = *shape;
    let (scale, reach) = (f64::from(shape.scale), shape.window.unwrap_or(usize::MAX));
    let mut lse = vec![0.0; q.len() / head_dim];
    let mut out = vec![0.0; q.len()];
    let (mut d_q, mut d_k, mut d_v) = (out.clone(), vec![0.0; k.len()], vec![0.0; k.len()]);
    let mut start = 0;
    for &len in documents {
        for (position, head) in (0..len).flat_map(|p| (0..num_heads).map(move |head| (p, head))) {
            let row = (start + position) * num_heads + head;
            let at = row * head_dim..(row + 1) * head_dim;
            let kv_head = head / (num_heads / num_kv_heads);
            let first = (position + 1).saturating_sub(reach);
            let keys: Vec<std::ops::Range<usize>> = (first..=position)
                .map(|key| ((start + key) * num_kv_heads + kv_head) * head_dim)
                .map(|first| first..first + head_dim)
                .collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let scores: Vec<f64> =
                keys.iter().map(|key| scale * dot(&q[at.clone()], &k[key.clone()])).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            lse[row] = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
            let shares: Vec<f64> = scores.iter().map(|s| (s - lse[row]).exp()).collect();
            for (share, key) in shares.iter().zip(&keys) {
                for i in 0..head_dim {
                    out[at.start + i] += share * v[key.start + i];
                    d_v[key.start + i] += share * d_out[at.start + i];
                }
            }
            let delta = dot(&d_out[at.clone()], &out[at.clone()]);
            for (share, key) in shares.iter().zip(&keys) {
                let d_share = dot(&d_out[at.clone()], &v[key.clone()]);
                let d_score = scale * share * (d_share - delta);
                for i in 0..head_dim {
                    d_q[at.start + i] += d_score * k[key.start + i];
                    d_k[key.start + i] += d_score * q[at.start + i];
                }
            }
        }
        start += len;
    }
    Reference { out, lse, d_q, d_k, d_v }
}

/// The inputs of a call.
#[derive(Clone)]
struct Scene {
    shape: PackedShape,
    documents: Vec<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
}

struct Results {
    out: Vec<f32>,
    lse: Vec<f32>,
    d_q: Vec<f32>,
    d_k: Vec<f32>,
    d_v: Vec<f32>,
}

impl Results {
    fn all(&self) -> [&[f32]; 5] {
        [&self.out, &self.lse, &self.d_q, &self.d_k, &self.d_v]
    }

    #[track_caller]
    fn assert_same(&self, other: &Results) {
        for (found, expected) in self.all().into_iter().zip(other.all()) {
            assert_same_bits(found, expected);
        }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

impl Scene {
    fn new(heads: (usize, usize, usize), window: Option<usize>, documents: &[usize]) -> Scene {
        let (num_heads, num_kv_heads, head_dim) = heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = PackedShape { num_heads, num_kv_heads, head_dim, scale, window };
        let num_tokens: usize = documents.iter().sum();
        let (q_len, k_len) =
            (num_tokens * num_heads * head_dim, num_tokens * num_kv_heads * head_dim);
        Scene {
            shape,
            documents: documents.to_vec(),
            // Large enough that a few keys get most of the weight.
            q: values(q_len, 1, 4.0),
            k: values(k_len, 2, 2.0),
            v: values(k_len, 3, 2.0),
            d_out: values(q_len, 4, 1.0),
        }
    }

    fn reference(&self) -> Reference {
        let (q, k, v, d_out) = (wide(&self.q), wide(&self.k), wide(&self.v), wide(&self.d_out));
        reference(&self.shape, &self.documents, [&q, &k, &v, &d_out])
    }

    fn run(&self, isa: Isa, num_threads: usize, scratch: &mut PackedScratch) -> Results {
        let heads = Heads { q: self.q[..].into(), k: self.k[..].into(), v: self.v[..].into() };
        self.run_with(isa, num_threads, scratch, heads, self.d_out[..].into())
    }

    fn run_with(
        &self,
        isa: Isa,
        num_threads: usize,
        scratch: &mut PackedScratch,
        heads: Heads<'_>,
        d_out: HeadValues<'_>,
    ) -> Results {
        let (shape, documents) = (&self.shape, &self.documents[..]);
        let pool = &mut Pool::new(num_threads).unwrap();
        let nan = |len| vec![f32::NAN; len];
        let (q_len, k_len) = (self.q.len(), self.k.len());
        let (mut out, mut lse) = (nan(q_len), nan(q_len / shape.head_dim));
        let (mut d_q, mut d_k, mut d_v) = (nan(q_len), nan(k_len), nan(k_len));
        forward(pool, isa, shape, documents, heads, scratch, &mut out, &mut lse).unwrap();
        let found = Found { out: out[..].into(), lse: &lse };
        let gradients = HeadGradients { d_q: &mut d_q, d_k: &mut d_k, d_v: &mut d_v };
        backward(pool, isa, shape, documents, heads, found, d_out, scratch, gradients).unwrap();
        Results { out, lse, d_q, d_k, d_v }
    }
}

/// (heads, window, documents) that between them meet every edge: lengths around vectors, blocks
/// of queries and blocks of keys; windows inside a block and over several; odd groups; head
/// dimensions that fill no vector; documents of one and of several strips.
fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for documents in [&[1][..], &[16, 1, 15, 17, 2], &[0, 63, 0, 64, 65, 0], &[130, 97], &[]] {
        for heads in [(1, 1, 16), (3, 1, 64), (4, 2, 18), (6, 3, 80)] {
            for window in [None, Some(1), Some(7), Some(70)] {
                scenes.push(Scene::new(heads, window, documents));
            }
        }
    }
    scenes.push(Scene::new((9, 3, 64), None, &[300]));
    scenes.push(Scene::new((2, 1, 256), Some(100), &[290, 5]));
    scenes.push(Scene::new((2, 2, 128), None, &[260]));
    scenes.push(Scene::new((100, 1, 2), None, &[70]));
    scenes.push(Scene::new((7, 1, 6), Some(300), &[513]));
    scenes
}

#[test]
fn agrees_with_the_formulas_on_every_path_and_number_of_threads() {
    let mut scratch = PackedScratch::default();
    for scene in scenes() {
        let expected = scene.reference();
        let first = scene.run(Isa::Portable, 1, &mut scratch);
        assert_close(&first.out, &expected.out, 1e-5);
        assert_close(&first.lse, &expected.lse, 2e-6);
        assert_close(&first.d_q, &expected.d_q, 2e-5);
        assert_close(&first.d_k, &expected.d_k, 2e-5);
        assert_close(&first.d_v, &expected.d_v, 2e-5);
        for isa in Isa::available() {
            for num_threads in [1, 2] {
                scene.run(isa, num_threads, &mut scratch).assert_same(&first);
            }
        }
    }
}

#[test]
fn the_gradient_agrees_with_differences_of_the_formula() {
    let scene = Scene::new((4, 2, 6), Some(9), &[13, 3]);
    let found = scene.run(Isa::best(), 2, &mut PackedScratch::default());
    let inputs = [wide(&scene.q), wide(&scene.k), wide(&scene.v)];
    let d_out = wide(&scene.d_out);
    let loss = |[q, k, v]: &[Vec<f64>; 3]| -> f64 {
        let found = reference(&scene.shape, &scene.documents, [q, k, v, &d_out]);
        found.out.iter().zip(&d_out).map(|(out, d)| out * d).sum()
    };
    for (which, gradient) in [&found.d_q, &found.d_k, &found.d_v].into_iter().enumerate() {
        for index in 0..gradient.len() {
            let mut moved = inputs.clone();
            moved[which][index] += 1e-4;
            let above = loss(&moved);
            moved[which][index] -= 2e-4;
            let slope = (above - loss(&moved)) / 2e-4;
            let error = (f64::from(gradient[index]) - slope).abs();
            assert!(error < 1e-5, "{which} {index}: {} {slope}", gradient[index]);
        }
    }
}

#[test]
fn a_document_is_the_same_whatever_it_is_packed_with() {
    let documents = [5, 200, 1, 77];
    for window in [None, Some(30)] {
        let packed = Scene::new((4, 1, 20), window, &documents);
        let together = packed.run(Isa::best(), 2, &mut PackedScratch::default());
        let mut start = 0;
        for len in documents {
            let part = |values: &[f32]| {
                let width = values.len() / documents.iter().sum::<usize>();
                values[start * width..(start + len) * width].to_vec()
            };
            let alone = Scene {
                shape: packed.shape,
                documents: vec![len],
                q: part(&packed.q),
                k: part(&packed.k),
                v: part(&packed.v),
                d_out: part(&packed.d_out),
            };
            let alone = alone.run(Isa::best(), 1, &mut PackedScratch::default());
            for (alone, together) in alone.all().into_iter().zip(together.all()) {
                assert_same_bits(alone, &part(together));
            }
            start += len;
        }
    }
}

#[test]
fn bf16_operands_are_widened() {
    let round = |values: &[f32]| values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
    let widen = |values: &[bf16]| values.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let mut scene = Scene::new((4, 2, 18), None, &[70, 9]);
    let (q, k, v) = (round(&scene.q), round(&scene.k), round(&scene.v));
    let d_out = round(&scene.d_out);
    (scene.q, scene.k, scene.v, scene.d_out) = (widen(&q), widen(&k), widen(&v), widen(&d_out));
    let mut scratch = PackedScratch::default();
    let expected = scene.run(Isa::best(), 2, &mut scratch);
    let heads = Heads { q: q[..].into(), k: k[..].into(), v: v[..].into() };
    let found = scene.run_with(Isa::best(), 2, &mut scratch, heads, d_out[..].into());
    found.assert_same(&expected);
}

#[test]
fn large_scores_stay_finite_and_nan_stays_in_its_document() {
    let mut scene = Scene::new((2, 1, 32), None, &[40, 40]);
    scene.q.iter_mut().for_each(|q| *q *= 1e4);
    let mut scratch = PackedScratch::default();
    let found = scene.run(Isa::best(), 2, &mut scratch);
    assert!(found.all().iter().all(|values| values.iter().all(|value| value.is_finite())));
    scene.k[40 * 32] = f32::NAN;
    let broken = scene.run(Isa::best(), 2, &mut scratch);
    for (broken, found) in broken.all().into_iter().zip(found.all()) {
        let half = found.len() / 2;
        assert_same_bits(&broken[..half], &found[..half]);
    }
    assert!(broken.out[40 * 64..].iter().any(|value| value.is_nan()));
    assert!(broken.d_k[40 * 32..].iter().any(|value| value.is_nan()));
}

#[test]
fn a_warm_call_allocates_no_more() {
    let scene = Scene::new((4, 2, 32), None, &[130, 20]);
    let mut scratch = PackedScratch::default();
    scene.run(Isa::best(), 2, &mut scratch);
    let bytes = scratch.bytes();
    scene.run(Isa::best(), 2, &mut scratch);
    assert!(bytes > 0);
    assert_eq!(scratch.bytes(), bytes);
}

#[test]
#[should_panic(expected = "length of q")]
fn documents_that_do_not_fit_the_rows_are_refused() {
    let mut scene = Scene::new((1, 1, 4), None, &[3]);
    scene.documents = vec![2];
    scene.run(Isa::Portable, 1, &mut PackedScratch::default());
}
