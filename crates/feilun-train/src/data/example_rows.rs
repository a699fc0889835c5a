//! Whole examples in rows: best-fit decreasing over windows of the seeded order.

use super::epochs::RowSource;
use super::error::DataError;
use super::example::Shape;
use super::examples::{Examples, Record};
use super::fit::best_fit;
use super::ledger::{Ledger, SourceLedger, TokenCounts};
use super::order::{Permutation, Purpose};
use super::plan::{LongExamples, PlanOptions};
use super::render::Document;
use super::row::{Origin, PackedRow, Part};

/// How many examples are packed together. Larger windows fill rows hardly better.
const WINDOW: usize = 8192;
/// How many answers are tried to find one to another prompt.
const NUM_TRIES: u64 = 64;

/// Examples that are used, cut to the length of rows.
#[derive(Debug)]
pub(crate) struct ExampleRows {
    pub examples: Examples,
    options: PlanOptions,
    train: Vec<Unit>,
    held_out: Vec<Unit>,
    pub ledger: Ledger,
}

/// What goes into a row as a whole: a document, or both of a pair.
#[derive(Clone, Copy, Debug)]
struct Unit {
    example: u32,
    /// Tokens of each document after cropping.
    lens: [u32; 2],
}

impl Unit {
    fn len(&self) -> usize {
        self.lens[0] as usize + self.lens[1] as usize
    }
}

/// Which examples each row holds.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Indices into the units, row after row.
    units: Vec<u32>,
    /// How many there are up to the end of each row.
    ends: Vec<u32>,
}

impl ExampleRows {
    pub(crate) fn new(examples: Examples, options: PlanOptions) -> Result<ExampleRows, DataError> {
        let sources = examples.files().map(|(path, digest, bad_lines)| {
            let mut source = SourceLedger {
                source: path.display().to_string(),
                digest: digest.to_hex().to_string(),
                ..SourceLedger::default()
            };
            source.examples.bad_lines = bad_lines;
            source
        });
        let ledger = Ledger { sources: sources.collect() };
        let (train, held_out) = (Vec::new(), Vec::new());
        let mut rows = ExampleRows { examples, options, train, held_out, ledger };
        if options.long_examples == LongExamples::Refuse {
            rows.refuse_long()?;
        }
        for example in 0..rows.examples.len() {
            rows.enter(example)?;
        }
        if rows.train.is_empty() {
            let reason = format!(
                "of {} examples {} are held out and {} dropped",
                rows.examples.len(),
                rows.held_out.len(),
                rows.ledger.sources.iter().map(|s| s.examples.dropped).sum::<u64>()
            );
            return Err(DataError::NothingToTrain { reason });
        }
        let alone = rows.train.len() == 1 && rows.examples.shape() == Shape::Answers;
        if alone {
            let reason = "KTO compares answers, and there is only one".into();
            return Err(DataError::NothingToTrain { reason });
        }
        Ok(rows)
    }

    /// Counts the examples that are too long for a row.
    fn refuse_long(&self) -> Result<(), DataError> {
        let records = self.examples.records();
        let long = records.iter().enumerate().filter(|(_, r)| self.fitted(r) != r.lens);
        let found = long.clone().count();
        let total_len = |record: &Record| record.lens[0] as usize + record.lens[1] as usize;
        let Some((example, longest)) = long.max_by_key(|(_, record)| total_len(record)) else {
            return Ok(());
        };
        let (path, line) = self.examples.location(example);
        Err(DataError::TooLong {
            found,
            total: records.len(),
            limit: self.options.document_tokens_max.min(self.options.row_tokens),
            longest: total_len(longest),
            path: path.to_owned(),
            line,
        })
    }

    /// The lengths that the documents of an example may have.
    fn fitted(&self, record: &Record) -> [u32; 2] {
        let row = self.options.row_tokens as u32;
        let limit = self.options.document_tokens_max.min(self.options.row_tokens) as u32;
        let lens = record.lens.map(|len| len.min(limit));
        // A pair stays together, so that its loss is known when its row is.
        match lens[0] + lens[1] > row {
            true => lens.map(|len| len.min(row / 2)),
            false => lens,
        }
    }

    /// Decides what becomes of an example, and enters it in the ledger.
    fn enter(&mut self, example: usize) -> Result<(), DataError> {
        let record = self.examples.records()[example];
        let total: u64 = record.lens.iter().map(|&len| u64::from(len)).sum();
        let source = record.file as usize;
        self.ledger.sources[source].num_tokens += total;
        let lens = self.fitted(&record);
        let is_long = lens != record.lens;
        let learned = match is_long {
            false => Some(record.learned),
            true if self.options.long_examples == LongExamples::Drop => None,
            true => self.learned_of_cropped(example, lens)?,
        };
        let source = &mut self.ledger.sources[source];
        let Some(learned) = learned else {
            source.examples.dropped += 1;
            source.tokens.dropped += total;
            return Ok(());
        };
        let unit = Unit { example: example as u32, lens };
        if self.options.is_held_out(record.prompt) {
            source.examples.held_out += 1;
            source.tokens.held_out += total;
            self.held_out.push(unit);
            return Ok(());
        }
        let trained: u64 = learned.iter().map(|&count| u64::from(count)).sum();
        source.examples.trained += 1;
        source.examples.cropped += u64::from(is_long);
        source.tokens += TokenCounts {
            trained,
            masked: unit.len() as u64 - trained,
            cropped: total - unit.len() as u64,
            ..TokenCounts::default()
        };
        self.train.push(unit);
        Ok(())
    }

    /// How much of a cropped example is learned; `None` if of a document nothing is.
    fn learned_of_cropped(
        &self,
        example: usize,
        lens: [u32; 2],
    ) -> Result<Option<[u32; 2]>, DataError> {
        let mut learned = [0; 2];
        for (index, mut document) in self.examples.render(example)?.into_iter().enumerate() {
            document.crop(lens[index] as usize);
            learned[index] = document.num_learned() as u32;
            if learned[index] == 0 {
                return Ok(None);
            }
        }
        Ok(Some(learned))
    }

    /// Rows of held-out examples: a seeded choice if there are more than the limit.
    pub(crate) fn held_out(&self) -> Result<Vec<PackedRow>, DataError> {
        let num_units = self.held_out.len() as u64;
        let order = Permutation::new(num_units, 0, 0, Purpose::Examples);
        let mut space = self.options.held_out_rows_max.saturating_mul(self.options.row_tokens);
        let chosen: Vec<Unit> = (0..num_units)
            .map(|place| self.held_out[order.get(place) as usize])
            .take_while(|unit| {
                let fits = unit.len() <= space;
                space = space.saturating_sub(unit.len());
                fits
            })
            .collect();
        let lens: Vec<usize> = chosen.iter().map(Unit::len).collect();
        let packed = best_fit(&lens, self.options.row_tokens);
        packed.iter().map(|row| self.pack(row.iter().map(|&index| chosen[index]))).collect()
    }

    fn pack(&self, units: impl Iterator<Item = Unit>) -> Result<PackedRow, DataError> {
        let mut row = PackedRow::default();
        for unit in units {
            let example = unit.example as usize;
            for (document, len) in self.examples.render(example)?.iter_mut().zip(unit.lens) {
                document.crop(len as usize);
                push(&mut row, document, example);
            }
        }
        Ok(row)
    }

    /// For rows of answers: further rows with the same prompts and other answers, from which the
    /// reference point of KTO is measured. Which answer stands against which prompt never changes
    /// in a run, so what the reference says of it can be computed once.
    pub(crate) fn mismatched(&self, rows: &[PackedRow]) -> Result<Vec<PackedRow>, DataError> {
        if self.examples.shape() != Shape::Answers {
            return Ok(Vec::new());
        }
        let limit = self.options.row_tokens.min(self.options.document_tokens_max);
        let mut documents = Vec::new();
        for origin in rows.iter().flat_map(|row| &row.origins) {
            let other = self.partner(origin.example);
            for mut document in self.examples.render_mismatched(origin.example, other)? {
                document.crop(limit);
                // A prompt that fills the row leaves nothing to measure.
                if document.num_learned() > 0 {
                    documents.push((document, origin.example));
                }
            }
        }
        let lens: Vec<usize> = documents.iter().map(|(doc, _)| doc.tokens.len()).collect();
        let pack = |indices: &Vec<usize>| {
            let mut row = PackedRow::default();
            for &index in indices {
                let (document, example) = &documents[index];
                push(&mut row, document, *example);
            }
            row
        };
        Ok(best_fit(&lens, self.options.row_tokens).iter().map(pack).collect())
    }

    /// Whose answer stands against the prompt of an example: the next one in a seeded order that
    /// answers another prompt.
    fn partner(&self, example: usize) -> usize {
        let units = match self.train.binary_search_by_key(&(example as u32), |unit| unit.example) {
            Ok(_) => &self.train,
            Err(_) => &self.held_out,
        };
        let num_units = units.len() as u64;
        let index = units.partition_point(|unit| (unit.example as usize) < example) as u64;
        let order = Permutation::new(num_units, self.options.seed, 0, Purpose::Mismatches);
        let place = order.position(index);
        let at = |step: u64| units[order.get((place + step) % num_units) as usize].example as usize;
        let prompt = |example: usize| self.examples.records()[example].prompt;
        let mut candidates = (1..=NUM_TRIES.min(num_units)).map(at);
        // Where all prompts are equal, another answer to the same prompt has to do.
        candidates.find(|&other| prompt(other) != prompt(example)).unwrap_or_else(|| at(1))
    }
}

fn push(row: &mut PackedRow, document: &Document, example: usize) {
    row.push(&document.tokens, &document.learn, Origin { example, part: document.part });
}

impl RowSource for ExampleRows {
    type Layout = Layout;

    fn layout(&self, epoch: u64) -> Layout {
        let num_units = self.train.len();
        let order = Permutation::new(num_units as u64, self.options.seed, epoch, Purpose::Examples);
        let mut layout = Layout { units: Vec::with_capacity(num_units), ends: Vec::new() };
        for start in (0..num_units).step_by(WINDOW) {
            let window: Vec<u32> = (start..num_units.min(start + WINDOW))
                .map(|place| order.get(place as u64) as u32)
                .collect();
            let lens: Vec<usize> = window.iter().map(|&u| self.train[u as usize].len()).collect();
            for row in best_fit(&lens, self.options.row_tokens) {
                layout.units.extend(row.iter().map(|&index| window[index]));
                layout.ends.push(layout.units.len() as u32);
            }
        }
        layout
    }

    fn num_rows(layout: &Layout) -> u64 {
        layout.ends.len() as u64
    }

    fn row(&self, layout: &Layout, index: u64) -> Result<PackedRow, DataError> {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| layout.ends[before]) as usize;
        let units = &layout.units[start..layout.ends[index] as usize];
        self.pack(units.iter().map(|&unit| self.train[unit as usize]))
    }
}

/// What a document is called in messages.
pub(crate) fn part_name(part: Part) -> &'static str {
    match part {
        Part::Whole | Part::Desirable | Part::Undesirable => "",
        Part::Chosen => " (chosen)",
        Part::Rejected => " (rejected)",
        Part::Mismatched => " (with another answer)",
    }
}
