//! The rotary embeddings of a model's layers, each different one once.

use feilun_kernels::rope::RopeTable;

use crate::ModelConfig;
use crate::config::RopeConfig;
use crate::rope_frequencies::frequencies;

#[derive(Debug)]
pub(crate) struct RopeTables {
    tables: Vec<RopeTable>,
    of_layer: Vec<usize>,
}

impl RopeTables {
    /// Tables without positions yet.
    pub(crate) fn new(config: &ModelConfig) -> RopeTables {
        let mut tables: Vec<RopeTable> = Vec::new();
        let mut configs: Vec<&RopeConfig> = Vec::new();
        let mut of_layer = Vec::new();
        for layer in &config.layers {
            let known = configs.iter().position(|&rope| *rope == layer.rope);
            of_layer.push(known.unwrap_or_else(|| {
                let (inv_freq, factor) = frequencies(&layer.rope, config.head_dim);
                let inv_freq = inv_freq.into_iter().map(|frequency| frequency as f32).collect();
                tables.push(RopeTable::new(inv_freq, factor as f32));
                configs.push(&layer.rope);
                tables.len() - 1
            }));
        }
        RopeTables { tables, of_layer }
    }

    /// Makes sure that positions `0..num_positions` are there.
    pub(crate) fn grow(&mut self, num_positions: usize) {
        for table in &mut self.tables {
            table.grow(num_positions);
        }
    }

    pub(crate) fn of_layer(&self, layer: usize) -> &RopeTable {
        &self.tables[self.of_layer[layer]]
    }
}
