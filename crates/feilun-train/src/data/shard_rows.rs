//! Documents of token shards in rows: one after the other, and split where a row ends.
//!
//! A document that goes on in another row begins there with the last token of the row before,
//! which is seen again and not learned again. So every token of a document but its first is
//! learned exactly once in a pass.

use std::ops::Range;

use super::epochs::RowSource;
use super::error::DataError;
use super::ledger::{Ledger, SourceLedger, TokenCounts};
use super::order::{Permutation, Purpose};
use super::plan::PlanOptions;
use super::row::{Origin, PackedRow, Part};
use super::shard::Shard;

#[derive(Debug)]
pub(crate) struct ShardRows {
    shards: Vec<Shard>,
    /// How many documents there are up to the end of each shard.
    ends: Vec<usize>,
    options: PlanOptions,
    pub ledger: Ledger,
}

/// A place in the documents of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// In the order of the pass.
    document: u64,
    /// The token of the document that the next row begins with.
    token: usize,
}

/// Where each row begins.
#[derive(Debug)]
pub(crate) struct Layout {
    order: Permutation,
    starts: Vec<Place>,
}

impl ShardRows {
    pub(crate) fn new(shards: Vec<Shard>, options: PlanOptions) -> Result<ShardRows, DataError> {
        let mut ends = Vec::with_capacity(shards.len());
        let mut ledger = Ledger::default();
        for shard in &shards {
            ends.push(ends.last().copied().unwrap_or(0) + shard.num_documents());
            ledger.sources.push(enter(shard, &options));
        }
        let tokens = ledger.tokens();
        if tokens.trained == 0 {
            let reason = format!(
                "of {} tokens {} are held out, and the others stand alone",
                tokens.total(),
                tokens.held_out
            );
            return Err(DataError::NothingToTrain { reason });
        }
        Ok(ShardRows { shards, ends, options, ledger })
    }

    fn num_documents(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0) as u64
    }

    /// The shard of a document, and its index there.
    fn find(&self, document: usize) -> (&Shard, usize) {
        let shard = self.ends.partition_point(|&end| end <= document);
        let start = shard.checked_sub(1).map_or(0, |before| self.ends[before]);
        (&self.shards[shard], document - start)
    }

    /// Names a document.
    pub(crate) fn describe(&self, document: usize) -> String {
        let (shard, index) = self.find(document);
        format!("{} document {index}", shard.path().display())
    }

    pub(crate) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        self.shards.iter().for_each(|shard| {
            hasher.update(shard.digest().as_bytes());
        });
        hasher.finalize()
    }

    /// Goes through one row from a place on, and leaves the place where the next row begins.
    /// Gives `piece` the documents and the ranges of their tokens; says whether there was any.
    fn walk(
        &self,
        order: &Permutation,
        held_out: bool,
        place: &mut Place,
        mut piece: impl FnMut(usize, Range<usize>) -> Result<(), DataError>,
    ) -> Result<bool, DataError> {
        let mut space = self.options.row_tokens;
        let mut any = false;
        while place.document < self.num_documents() {
            let document = order.get(place.document) as usize;
            let (shard, index) = self.find(document);
            let len = shard.document_len(index);
            let is_ours = self.options.is_held_out(shard.document_hash(index)) == held_out;
            // The last token has nothing to predict.
            if !is_ours || len - place.token.min(len) < 2 {
                *place = Place { document: place.document + 1, token: 0 };
                continue;
            }
            let taken = space.min(self.options.document_tokens_max).min(len - place.token);
            if taken < 2 {
                break;
            }
            piece(document, place.token..place.token + taken)?;
            any = true;
            space -= taken;
            place.token += taken - 1;
        }
        Ok(any)
    }

    fn read(
        &self,
        order: &Permutation,
        held_out: bool,
        place: &mut Place,
    ) -> Result<PackedRow, DataError> {
        let mut row = PackedRow::default();
        let mut tokens = Vec::new();
        let learn = vec![true; self.options.row_tokens];
        self.walk(order, held_out, place, |document, range| {
            let (shard, index) = self.find(document);
            tokens.clear();
            shard.read(index, range, &mut tokens)?;
            let origin = Origin { example: document, part: Part::Whole };
            row.push(&tokens, &learn[..tokens.len()], origin);
            Ok(())
        })?;
        Ok(row)
    }

    /// Rows of held-out documents: a seeded choice if there are more than the limit.
    pub(crate) fn held_out(&self) -> Result<Vec<PackedRow>, DataError> {
        let order = Permutation::new(self.num_documents(), 0, 0, Purpose::Examples);
        let mut rows = Vec::new();
        let mut place = Place::default();
        while rows.len() < self.options.held_out_rows_max {
            let row = self.read(&order, true, &mut place)?;
            if row.tokens.is_empty() {
                break;
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// What becomes of the tokens of a shard.
fn enter(shard: &Shard, options: &PlanOptions) -> SourceLedger {
    let mut source = SourceLedger {
        source: shard.path().display().to_string(),
        digest: shard.digest().to_hex().to_string(),
        num_tokens: shard.num_tokens() as u64,
        ..SourceLedger::default()
    };
    for document in 0..shard.num_documents() {
        let len = shard.document_len(document) as u64;
        let none = TokenCounts::default();
        if options.is_held_out(shard.document_hash(document)) {
            source.examples.held_out += 1;
            source.tokens += TokenCounts { held_out: len, ..none };
        } else if len < 2 {
            source.examples.dropped += 1;
            source.tokens += TokenCounts { dropped: len, ..none };
        } else {
            source.examples.trained += 1;
            source.tokens += TokenCounts { trained: len - 1, masked: 1, ..none };
        }
    }
    source
}

impl RowSource for ShardRows {
    type Layout = Layout;

    fn layout(&self, epoch: u64) -> Layout {
        let seed = self.options.seed;
        let order = Permutation::new(self.num_documents(), seed, epoch, Purpose::Examples);
        let mut starts = Vec::new();
        let mut place = Place::default();
        loop {
            let start = place;
            // Nothing is read here, so nothing can fail.
            if !self.walk(&order, false, &mut place, |_, _| Ok(())).unwrap_or(false) {
                return Layout { order, starts };
            }
            starts.push(start);
        }
    }

    fn num_rows(layout: &Layout) -> u64 {
        layout.starts.len() as u64
    }

    fn row(&self, layout: &Layout, index: u64) -> Result<PackedRow, DataError> {
        let mut place = layout.starts[index as usize];
        self.read(&layout.order, false, &mut place)
    }
}
