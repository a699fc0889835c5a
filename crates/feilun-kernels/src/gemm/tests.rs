//! Each path against a plain product in f64, over awkward shapes.

use half::bf16;

use super::*;
use crate::test_support::{Random, matmul_paths, random_rows};
use crate::{BlockType, PackedMatrix};

/// One below, at and above the sides of tiles, panels and blocks.
const SHAPES: [(usize, usize, usize); 17] = [
    (1, 1, 1),
    (1, 16, 2),
    (2, 3, 0),
    (7, 47, 3),
    (8, 48, 15),
    (9, 49, 16),
    (15, 16, 17),
    (16, 15, 31),
    (17, 33, 32),
    (33, 31, 33),
    (31, 100, 64),
    (100, 17, 65),
    (40, 257, 100),
    (257, 40, 129),
    (1, 33, 641),
    (33, 1, 1300),
    (17, 18, 2700),
];

/// Values, and the same ones rounded.
type Both = (Vec<f32>, Vec<bf16>);

fn values(len: usize, random: &mut Random) -> Both {
    let floats = random.floats(len);
    let halves = floats.iter().map(|&value| bf16::from_f32(value)).collect();
    (floats, halves)
}

struct Case {
    shape: (usize, usize, usize),
    a: Both,
    b: Both,
    transposed: (bool, bool),
    /// Whether the operand is given as bf16.
    halves: (bool, bool),
    precision: Precision,
    write: Write,
    start: Both,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize), variant: usize) -> Case {
        let bit = |index: usize| variant >> index & 1 == 1;
        let mut random = Random((m * 1000 + n * 100 + k * 10 + variant) as u64);
        Case {
            shape: (m, n, k),
            a: values(m * k, &mut random),
            b: values(k * n, &mut random),
            transposed: (bit(0), bit(1)),
            halves: (bit(2), bit(3)),
            precision: if bit(4) { Precision::Bf16 } else { Precision::F32 },
            write: if bit(5) { Write::Add } else { Write::Store },
            start: values(m * n, &mut random),
        }
    }

    fn a(&self) -> Matrix<'_> {
        let (m, _, k) = self.shape;
        matrix(&self.a, self.halves.0, (m, k), self.transposed.0)
    }

    fn b(&self) -> Matrix<'_> {
        let (_, n, k) = self.shape;
        matrix(&self.b, self.halves.1, (k, n), self.transposed.1)
    }

    fn f32(&self, isa: Isa, pool: &mut Pool, scratch: &mut GemmScratch) -> Vec<f32> {
        let mut c = self.start.0.clone();
        let (a, b, out) = (self.a(), self.b(), Output::F32(&mut c));
        gemm(pool, isa, self.precision, scratch, a, b, out, self.write);
        c
    }

    fn bf16(&self, isa: Isa, pool: &mut Pool, scratch: &mut GemmScratch) -> Vec<bf16> {
        let mut c = self.start.1.clone();
        let (a, b, out) = (self.a(), self.b(), Output::Bf16(&mut c));
        gemm(pool, isa, self.precision, scratch, a, b, out, self.write);
        c
    }

    /// In f64, with the sum of the magnitudes.
    fn expected(&self, start: &[f32]) -> Vec<(f64, f64)> {
        let (m, n, k) = self.shape;
        let value = |values: &Both, halves: bool, index: usize| {
            let rounded = halves || self.precision == Precision::Bf16;
            f64::from(if rounded { values.1[index].to_f32() } else { values.0[index] })
        };
        let mut out = Vec::new();
        for row in 0..m {
            for col in 0..n {
                let begin = f64::from(start[row * n + col]);
                let begin = if self.write == Write::Add { begin } else { 0.0 };
                let (mut sum, mut size) = (begin, begin.abs());
                for i in 0..k {
                    let a = if self.transposed.0 { i * m + row } else { row * k + i };
                    let b = if self.transposed.1 { col * k + i } else { i * n + col };
                    let term = value(&self.a, self.halves.0, a) * value(&self.b, self.halves.1, b);
                    sum += term;
                    size += term.abs();
                }
                out.push((sum, size));
            }
        }
        out
    }
}

fn matrix(
    values: &Both,
    halves: bool,
    (rows, cols): (usize, usize),
    transposed: bool,
) -> Matrix<'_> {
    let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
    let matrix = if halves {
        Matrix::new(&values.1[..], rows, cols)
    } else {
        Matrix::new(&values.0[..], rows, cols)
    };
    if transposed { matrix.transposed() } else { matrix }
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[(f64, f64)], tolerance: f64, label: &str) {
    for (i, (&found, &(sum, size))) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - sum).abs();
        assert!(error <= tolerance * size, "{label}, {i}: {found} instead of {sum} of {size}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The paths of a case: the emulated tiles, which are slow, take every fifth one.
fn paths(variant: usize) -> Vec<Isa> {
    let mut paths = matmul_paths();
    paths.retain(|isa| isa.is_available() || variant % 5 == 1);
    paths
}

fn pools() -> [Pool; 2] {
    [1, 2].map(|num_threads| Pool::new(num_threads).unwrap())
}

#[test]
fn every_path_computes_the_product() {
    let (mut scratch, [mut alone, mut both]) = (GemmScratch::new(), pools());
    for shape in SHAPES {
        for variant in 0..64 {
            let case = Case::new(shape, variant);
            let expected = case.expected(&case.start.0);
            let portable = case.f32(Isa::Portable, &mut alone, &mut scratch);
            for isa in paths(variant) {
                let label = format!("{shape:?} {variant:06b} {isa:?}");
                let one = case.f32(isa, &mut alone, &mut scratch);
                assert_close(&one, &expected, 2e-6, &label);
                let two = case.f32(isa, &mut both, &mut scratch);
                assert_eq!(bits(&one), bits(&two), "{label}: threads");
                if case.precision == Precision::F32 {
                    assert_eq!(bits(&one), bits(&portable), "{label}: paths");
                }
            }
        }
    }
}

#[test]
fn a_bf16_result_is_rounded_once() {
    let (mut scratch, [mut alone, mut both]) = (GemmScratch::new(), pools());
    for shape in SHAPES {
        for variant in 0..64 {
            let case = Case::new(shape, variant);
            let start: Vec<f32> = case.start.1.iter().map(|value| value.to_f32()).collect();
            let expected = case.expected(&start);
            for isa in paths(variant) {
                let label = format!("{shape:?} {variant:06b} {isa:?}");
                let one = case.bf16(isa, &mut alone, &mut scratch);
                assert_eq!(one, case.bf16(isa, &mut both, &mut scratch), "{label}: threads");
                let one: Vec<f32> = one.iter().map(|value| value.to_f32()).collect();
                // Half a unit in the last of 8 places, of the sum alone.
                for (i, (&found, &(sum, size))) in one.iter().zip(&expected).enumerate() {
                    let error = (f64::from(found) - sum).abs();
                    let limit = sum.abs() / 256.0 + 2e-6 * size;
                    assert!(error <= limit, "{label}, {i}: {found} instead of {sum}");
                }
                if case.write == Write::Store {
                    let sums = case.f32(isa, &mut alone, &mut scratch);
                    let rounded: Vec<f32> =
                        sums.iter().map(|&sum| bf16::from_f32(sum).to_f32()).collect();
                    assert_eq!(bits(&one), bits(&rounded), "{label}: rounding");
                }
            }
        }
    }
}

#[test]
fn frozen_weights_are_operands() {
    let (mut scratch, [_, mut pool]) = (GemmScratch::new(), pools());
    let mut random = Random(3);
    for block_type in BlockType::ALL {
        for (rows, cols) in [(1, 256), (33, 768), (700, 256)] {
            let stored = random_rows(block_type, rows, cols, &mut random);
            let weights =
                PackedMatrix::pack(&mut pool, block_type, rows, cols, &stored, |row| row).unwrap();
            let mut dense = vec![0.0; rows * cols];
            for (row, out) in dense.chunks_exact_mut(cols).enumerate() {
                weights.row(row, out);
            }
            let x = random.floats(17 * rows.max(cols));
            for (variant, isa) in (0..8).flat_map(|i| paths(i).into_iter().map(move |isa| (i, isa)))
            {
                let bit = |index: usize| variant >> index & 1 == 1;
                let precision = if bit(0) { Precision::Bf16 } else { Precision::F32 };
                let (transposed, is_left) = (bit(1), bit(2));
                let mut product = |w: Matrix<'_>| {
                    let w = if transposed { w.transposed() } else { w };
                    let (a, b) = if is_left {
                        (w, Matrix::new(&x[..w.cols() * 17], w.cols(), 17))
                    } else {
                        (Matrix::new(&x[..w.rows() * 17], 17, w.rows()), w)
                    };
                    let mut c = vec![f32::NAN; a.rows() * b.cols()];
                    let out = Output::F32(&mut c);
                    gemm(&mut pool, isa, precision, &mut scratch, a, b, out, Write::Store);
                    bits(&c)
                };
                let expected = product(Matrix::new(&dense[..], rows, cols));
                let found = product(Matrix::packed(&weights));
                assert!(expected == found, "{block_type} {rows}x{cols} {isa:?} {variant:03b}");
            }
        }
    }
}

/// What is not a number must reach the results that depend on it, and no others.
#[test]
fn nan_and_infinity_pass() {
    let (m, n, k) = (19, 35, 37);
    let (mut scratch, [mut pool, _]) = (GemmScratch::new(), pools());
    let b = vec![1.0; k * n];
    for isa in matmul_paths() {
        for precision in [Precision::F32, Precision::Bf16] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)] {
                for transposed in [false, true] {
                    let mut a = vec![1.0; m * k];
                    a[if transposed { 36 * m + 18 } else { 18 * k + 36 }] = bad;
                    let a = if transposed {
                        Matrix::new(&a[..], k, m).transposed()
                    } else {
                        Matrix::new(&a[..], m, k)
                    };
                    let mut c = vec![0.0; m * n];
                    let (b, out) = (Matrix::new(&b[..], k, n), Output::F32(&mut c));
                    gemm(&mut pool, isa, precision, &mut scratch, a, b, out, Write::Store);
                    for (i, &c) in c.iter().enumerate() {
                        let label = format!("{isa:?} {precision:?} {bad} {i}");
                        match (i / n, bad.is_nan()) {
                            (18, true) => assert!(c.is_nan(), "{label}: {c}"),
                            (18, false) => assert_eq!(c, bad, "{label}"),
                            _ => assert_eq!(c, k as f32, "{label}"),
                        }
                    }
                }
            }
        }
    }
}

/// Parts of rows and columns that are packed one after the other.
#[test]
fn large_results_come_in_parts() {
    let (mut scratch, [_, mut pool]) = (GemmScratch::new(), pools());
    for shape in [(2100, 20, 40), (20, 2200, 40), (2049, 2050, 3)] {
        for variant in [0, 0b11, 0b10000, 0b110011] {
            let case = Case::new(shape, variant);
            let expected = case.expected(&case.start.0);
            for isa in Isa::available() {
                let found = case.f32(isa, &mut pool, &mut scratch);
                assert_close(&found, &expected, 2e-6, &format!("{shape:?} {variant:b} {isa:?}"));
            }
        }
    }
}

#[test]
fn a_warm_call_keeps_its_scratch() {
    let (mut scratch, [mut pool, _]) = (GemmScratch::new(), pools());
    Case::new((100, 100, 700), 0b10000).bf16(Isa::best(), &mut pool, &mut scratch);
    let held = |scratch: &GemmScratch| (scratch.bytes(), scratch.a.as_ref().map(|a| a.as_ptr()));
    let before = held(&scratch);
    assert!(before.0 > 0);
    Case::new((50, 100, 700), 0b10011).bf16(Isa::best(), &mut pool, &mut scratch);
    assert_eq!(held(&scratch), before);
}

#[test]
#[should_panic(expected = "columns of a, rows of b")]
fn shapes_that_do_not_fit_are_refused() {
    let values = [0.0; 6];
    gemm(
        &mut Pool::new(1).unwrap(),
        Isa::Portable,
        Precision::F32,
        &mut GemmScratch::new(),
        Matrix::new(&values[..], 2, 3),
        Matrix::new(&values[..], 2, 3),
        Output::F32(&mut [0.0; 6]),
        Write::Store,
    );
}
