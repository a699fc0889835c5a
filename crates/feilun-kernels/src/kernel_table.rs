//! Which instruction path multiplies which weights with how many rows.
//!
//! The newest path is not always the fastest one: it depends on how weights are stored and on
//! how many rows share the work of unpacking them. All paths give the same bits, so the choice
//! is free, and [`KernelTable::measure`] makes it with a clock.

use std::time::{Duration, Instant};

use crate::matmul::{Epilogue, Job, Numerics, multiply};
use crate::pack::is_quantized;
use crate::rows::RowTiles;
use crate::{BlockType, Isa, PackedMatrix, Pool};

/// How many rows are multiplied together, as far as kernels tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowClass {
    /// One row: decoding alone.
    One,
    /// Two rows.
    Two,
    /// Three or four.
    UpTo4,
    /// Five to eight.
    UpTo8,
    /// Nine to sixteen: a whole tile of rows.
    UpTo16,
    /// Several tiles of rows: prompts.
    Many,
}

impl RowClass {
    /// All classes, fewest rows first.
    pub const ALL: [RowClass; 6] = [
        RowClass::One,
        RowClass::Two,
        RowClass::UpTo4,
        RowClass::UpTo8,
        RowClass::UpTo16,
        RowClass::Many,
    ];

    /// The class of so many rows.
    ///
    /// ```
    /// use feilun_kernels::RowClass;
    /// assert_eq!(RowClass::of(5), RowClass::of(8));
    /// assert_eq!(RowClass::of(17).name(), "17 or more");
    /// ```
    pub const fn of(num_rows: usize) -> RowClass {
        match num_rows {
            0 | 1 => RowClass::One,
            2 => RowClass::Two,
            3..=4 => RowClass::UpTo4,
            5..=8 => RowClass::UpTo8,
            9..=16 => RowClass::UpTo16,
            _ => RowClass::Many,
        }
    }

    /// The rows that belong to it, in words.
    pub const fn name(self) -> &'static str {
        match self {
            RowClass::One => "1",
            RowClass::Two => "2",
            RowClass::UpTo4 => "3 to 4",
            RowClass::UpTo8 => "5 to 8",
            RowClass::UpTo16 => "9 to 16",
            RowClass::Many => "17 or more",
        }
    }

    /// The class with this name.
    pub fn from_name(name: &str) -> Option<RowClass> {
        RowClass::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Rows to measure it with.
    const fn sample(self) -> usize {
        match self {
            RowClass::One => 1,
            RowClass::Two => 2,
            RowClass::UpTo4 => 4,
            RowClass::UpTo8 => 8,
            RowClass::UpTo16 => 16,
            RowClass::Many => MOST_ROWS,
        }
    }
}

/// A path for each quantized storage type and [`RowClass`], none beyond that of the table itself,
/// which all other work takes. Made of an [`Isa`] it says that path for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTable {
    isa: Isa,
    choices: [[Isa; RowClass::ALL.len()]; BlockType::ALL.len()],
}

impl From<Isa> for KernelTable {
    fn from(isa: Isa) -> KernelTable {
        KernelTable { isa, choices: [[isa; RowClass::ALL.len()]; BlockType::ALL.len()] }
    }
}

impl KernelTable {
    /// The path of all work but quantized products.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The path for a product of so many rows with such weights.
    pub fn path(&self, block_type: BlockType, num_rows: usize) -> Isa {
        self.choices[block_type as usize][RowClass::of(num_rows) as usize]
    }

    /// Chooses a path. Says whether it could: floats have no choice, since their paths may round
    /// differently one day, and a path beyond the table's own may not be there.
    pub fn choose(&mut self, block_type: BlockType, rows: RowClass, path: Isa) -> bool {
        let possible = is_quantized(block_type) && path <= self.isa;
        if possible {
            self.choices[block_type as usize][rows as usize] = path;
        }
        possible
    }

    /// Every choice there is.
    pub fn choices(&self) -> impl Iterator<Item = (BlockType, RowClass, Isa)> {
        let types = BlockType::ALL.into_iter().filter(|&block_type| is_quantized(block_type));
        types.flat_map(|block_type| {
            let paths = self.choices[block_type as usize];
            RowClass::ALL.into_iter().zip(paths).map(move |(rows, path)| (block_type, rows, path))
        })
    }

    /// Measures the paths up to `isa` on this machine, in less than half a second: each choice is
    /// `isa` unless another path is clearly faster. What there is no time or memory to measure
    /// stays with `isa`.
    pub fn measure(pool: &mut Pool, isa: Isa) -> KernelTable {
        let mut table = KernelTable::from(isa);
        // Plain Rust is never faster than a vector path.
        let rivals: Vec<Isa> = Isa::available()
            .into_iter()
            .filter(|&path| path != Isa::Portable && path < isa)
            .collect();
        if rivals.is_empty() {
            return table;
        }
        let deadline = Instant::now() + BUDGET;
        for block_type in MEASURED {
            if measure_type(pool, &mut table, &rivals, block_type, deadline).is_none() {
                break;
            }
        }
        table
    }
}

/// The types in the order in which models have most of them, since time may run out.
const MEASURED: [BlockType; 8] = [
    BlockType::Q4K,
    BlockType::Q6K,
    BlockType::Q8_0,
    BlockType::Q4_0,
    BlockType::Q5K,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
];

/// Time after which no further measurement begins.
const BUDGET: Duration = Duration::from_millis(400);
/// Times that each path is tried; the best counts, since others may use the machine.
const TRIES: usize = 5;
/// How much faster another path must be: what two measurements of one path may differ by.
const CLEARLY_FASTER: f64 = 1.1;
/// Not tried more than twice: a path that takes so many times as long.
const HOPELESS: f64 = 1.5;
const INPUTS: usize = 1024;
const MOST_ROWS: usize = 64;
/// Bytes of weights for up to four rows, beyond most second-level caches: such products live on
/// how a path reads memory.
const FEW_ROWS_BYTES: usize = 6 << 20;
/// Outputs for more rows, whose products live on arithmetic.
const MANY_ROWS_OUTPUTS: usize = 256;

/// `None` when time or memory is short.
fn measure_type(
    pool: &mut Pool,
    table: &mut KernelTable,
    rivals: &[Isa],
    block_type: BlockType,
    deadline: Instant,
) -> Option<()> {
    let row_bytes = block_type.row_bytes(INPUTS)?;
    let few_outputs = FEW_ROWS_BYTES / row_bytes;
    // Zeros: the kernels take the same time whatever the values.
    let stored = vec![0; few_outputs * row_bytes];
    let mut pack = |outputs: usize| {
        let stored = &stored[..outputs * row_bytes];
        PackedMatrix::pack(pool, block_type, outputs, INPUTS, stored, |row| row).ok()
    };
    let (large, small) = (pack(few_outputs)?, pack(MANY_ROWS_OUTPUTS)?);
    let mut rows = RowTiles::new(MOST_ROWS, INPUTS).ok()?;
    let mut out = vec![0.0; (4 * few_outputs).max(MOST_ROWS * MANY_ROWS_OUTPUTS)];
    for class in RowClass::ALL {
        let weights = if class <= RowClass::UpTo4 { &large } else { &small };
        let num_rows = class.sample();
        let forms = Numerics::Native.forms(weights);
        rows.fill(pool, table.isa, forms, num_rows, INPUTS, |_, out| out.fill(1.0));
        let out = &mut out[..num_rows * weights.rows()];
        let mut seconds = |path: Isa| {
            let start = Instant::now();
            let job = Job { weights, bias: None, epilogue: Epilogue::Store, out: &mut *out };
            multiply(pool, path, Numerics::Native, &rows, &mut [job]);
            start.elapsed().as_secs_f64()
        };
        let mut own = f64::INFINITY;
        let mut others = vec![f64::INFINITY; rivals.len()];
        // In turn, so that whoever else uses the machine disturbs all alike.
        for tries in 0..TRIES {
            if Instant::now() >= deadline {
                return None;
            }
            if tries >= 2 && others.iter().all(|best| best / own > HOPELESS) {
                break;
            }
            own = own.min(seconds(table.isa));
            for (&path, best) in rivals.iter().zip(&mut others) {
                if tries < 2 || *best / own <= HOPELESS {
                    *best = best.min(seconds(path));
                }
            }
        }
        let fastest = rivals.iter().zip(others).min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((&path, best)) = fastest
            && best * CLEARLY_FASTER < own
        {
            table.choose(block_type, class, path);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_the_rows_of_its_name() {
        for num_rows in 1..100_usize {
            let class = RowClass::of(num_rows);
            let numbers: Vec<usize> =
                class.name().split(' ').filter_map(|word| word.parse().ok()).collect();
            assert!(numbers[0] <= num_rows, "{num_rows}: {class:?}");
            assert!(class == RowClass::Many || num_rows <= numbers[numbers.len() - 1]);
            assert_eq!(RowClass::from_name(class.name()), Some(class));
            assert_eq!(RowClass::of(class.sample()), class);
        }
    }

    #[test]
    fn only_possible_paths_are_chosen() {
        let mut table = KernelTable::from(Isa::Avx2);
        assert!(!table.choose(BlockType::Q4K, RowClass::One, Isa::Avx512));
        assert!(!table.choose(BlockType::F16, RowClass::One, Isa::Portable));
        assert_eq!(table, KernelTable::from(Isa::Avx2));
        assert!(table.choose(BlockType::Q4K, RowClass::UpTo8, Isa::Portable));
        assert_eq!(table.path(BlockType::Q4K, 5), Isa::Portable);
        assert_eq!(table.path(BlockType::Q4K, 9), Isa::Avx2);
        assert_eq!(table.path(BlockType::Q5K, 5), Isa::Avx2);
        assert_eq!(table.choices().filter(|choice| choice.2 == Isa::Portable).count(), 1);
    }

    #[test]
    fn every_type_with_a_choice_is_measured() {
        for (block_type, _, _) in KernelTable::from(Isa::Portable).choices() {
            assert!(MEASURED.contains(&block_type), "{block_type}");
        }
    }

    #[test]
    fn a_measured_table_stays_within_its_path() {
        let mut pool = Pool::new(2).unwrap();
        for isa in Isa::available() {
            let table = KernelTable::measure(&mut pool, isa);
            assert_eq!(table.isa(), isa);
            assert!(table.choices().all(|(_, _, path)| path <= isa && path.is_available()));
            if isa <= Isa::Avx2 {
                assert_eq!(table, isa.into(), "there is nothing faster than plain Rust to choose");
            }
        }
    }
}
