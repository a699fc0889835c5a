//! Rows of several passes over the data as one sequence, any place of which is found directly.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::DataError;
use super::order::{Permutation, Purpose};
use super::row::PackedRow;

/// Something that can be laid out in rows, anew for each pass.
pub(crate) trait RowSource {
    /// Which row holds what, in one pass.
    type Layout;

    /// A pure function of the pass.
    fn layout(&self, epoch: u64) -> Self::Layout;

    /// At least one: sources that are empty are refused before.
    fn num_rows(layout: &Self::Layout) -> u64;

    fn row(&self, layout: &Self::Layout, index: u64) -> Result<PackedRow, DataError>;
}

/// Passes over a source, each in an order of its own.
#[derive(Debug)]
pub(crate) struct Epochs<S: RowSource> {
    pub source: S,
    seed: u64,
    cache: Mutex<Cache<S::Layout>>,
}

/// What would otherwise be computed at every step; it changes no result.
#[derive(Debug)]
struct Cache<L> {
    /// How many rows there are up to the end of each epoch.
    ends: Vec<u64>,
    /// The layout of the epoch that was used last.
    last: Option<(u64, Arc<L>)>,
}

impl<S: RowSource> Epochs<S> {
    pub(crate) fn new(source: S, seed: u64) -> Epochs<S> {
        Epochs { source, seed, cache: Mutex::new(Cache { ends: Vec::new(), last: None }) }
    }

    /// How many rows there are in the first epochs.
    pub(crate) fn num_rows(&self, num_epochs: u64) -> u64 {
        let Some(last) = num_epochs.checked_sub(1) else { return 0 };
        while self.known_epochs() <= last {
            self.layout(self.known_epochs());
        }
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).ends[last as usize]
    }

    /// The row at a place of the sequence.
    pub(crate) fn row(&self, place: u64) -> Result<PackedRow, DataError> {
        let (epoch, start) = self.epoch_of(place);
        let layout = self.layout(epoch);
        let num_rows = S::num_rows(&layout);
        let order = Permutation::new(num_rows, self.seed, epoch, Purpose::Rows);
        self.source.row(&layout, order.get(place - start))
    }

    /// The epoch of a place, and where the epoch begins.
    pub(crate) fn epoch_of(&self, place: u64) -> (u64, u64) {
        while self.num_rows(self.known_epochs()) <= place {
            self.layout(self.known_epochs());
        }
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = cache.ends.partition_point(|&end| end <= place);
        (epoch as u64, epoch.checked_sub(1).map_or(0, |before| cache.ends[before]))
    }

    fn known_epochs(&self) -> u64 {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).ends.len() as u64
    }

    fn layout(&self, epoch: u64) -> Arc<S::Layout> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layout)) = cache.last.as_ref().filter(|(last, _)| *last == epoch) {
            return layout.clone();
        }
        let layout = Arc::new(self.source.layout(epoch));
        if epoch == cache.ends.len() as u64 {
            let end = cache.ends.last().copied().unwrap_or(0) + S::num_rows(&layout);
            cache.ends.push(end);
        }
        cache.last = Some((epoch, layout.clone()));
        layout
    }
}
