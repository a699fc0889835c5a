//! Random lives of sequences against a naive model: what each block really holds.

use std::collections::{HashMap, HashSet};

use feilun_model::BatchMode;
use prefix::{AdapterDigest, Namespace};
use proptest::prelude::*;

use super::*;

fn key(tenant: u8) -> PrefixKey {
    PrefixKey { namespace: Namespace([tenant; 32]), adapter: None, mode: BatchMode::Fast }
}

/// A cache beside which the content of every block is kept, as a forward pass would write it.
struct Model {
    cache: KvCache,
    contents: HashMap<BlockId, (PrefixKey, Vec<u32>)>,
    live: Vec<(BlockTable, Vec<u32>)>,
}

impl Model {
    fn new(num_blocks: usize) -> Model {
        Model { cache: KvCache::new(num_blocks, true), contents: HashMap::new(), live: Vec::new() }
    }

    /// Starts a sequence and computes its tokens; false if it does not fit.
    fn admit(&mut self, key: PrefixKey, tokens: Vec<u32>) -> Option<usize> {
        let mut table = BlockTable::new(key);
        let cached = self.cache.share(&mut table, &tokens);
        assert!(cached < tokens.len(), "nothing is left to compute");
        if !self.cache.reserve(&mut table, tokens.len()) {
            self.cache.release(&mut table);
            return None;
        }
        self.live.push((table, Vec::new()));
        let last = self.live.len() - 1;
        self.live[last].1 = tokens[..cached].to_vec();
        self.write(last, &tokens[cached..]);
        Some(cached)
    }

    fn extend(&mut self, index: usize, tokens: &[u32]) -> bool {
        let (table, computed) = &mut self.live[index];
        if !self.cache.reserve(table, computed.len() + tokens.len()) {
            return false;
        }
        self.write(index, tokens);
        true
    }

    fn write(&mut self, index: usize, tokens: &[u32]) {
        let (table, computed) = &mut self.live[index];
        for &token in tokens {
            let block = table.blocks()[computed.len() / KV_BLOCK_TOKENS];
            assert_eq!(self.cache.pool.num_holders(block), 1, "a shared block is written to");
            let content = self.contents.entry(block).or_insert((table.key, Vec::new()));
            if computed.len().is_multiple_of(KV_BLOCK_TOKENS) {
                *content = (table.key, Vec::new());
            }
            content.1.push(token);
            computed.push(token);
        }
        self.cache.publish(table, computed);
    }

    fn finish(&mut self, index: usize) {
        let (mut table, _) = self.live.swap_remove(index);
        self.cache.release(&mut table);
        assert!(table.blocks().is_empty());
    }

    fn check(&self) {
        let mut in_use = HashSet::new();
        for (table, tokens) in &self.live {
            assert_eq!(table.blocks().len(), tokens.len().div_ceil(KV_BLOCK_TOKENS));
            for (block, expected) in table.blocks().iter().zip(tokens.chunks(KV_BLOCK_TOKENS)) {
                let (key, found) = &self.contents[block];
                assert_eq!((key, found.as_slice()), (&table.key, expected), "wrong content");
                in_use.insert(*block);
            }
        }
        assert_eq!(self.cache.num_available(), self.cache.num_blocks() - in_use.len());
        assert_eq!(self.cache.tree.len(), self.cache.num_idle() + self.used_nodes().len());
    }

    fn used_nodes(&self) -> HashSet<NodeId> {
        self.live.iter().flat_map(|(table, _)| table.shared.iter().copied()).collect()
    }
}

/// Sequences over few prefixes, so that they meet: whole blocks of one repeated token.
fn tokens() -> impl Strategy<Value = Vec<u32>> {
    (prop::collection::vec(0u32..2, 0..5), 1usize..20).prop_map(|(blocks, tail)| {
        let whole = blocks.iter().flat_map(|&t| std::iter::repeat_n(t, KV_BLOCK_TOKENS));
        whole.chain(std::iter::repeat_n(7, tail)).collect()
    })
}

#[derive(Clone, Debug)]
enum Act {
    Admit(u8, Vec<u32>),
    Extend(usize, usize),
    Finish(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..2, tokens()).prop_map(|(tenant, tokens)| Act::Admit(tenant, tokens)),
        2 => (any::<usize>(), 1usize..40).prop_map(|(i, n)| Act::Extend(i, n)),
        2 => any::<usize>().prop_map(Act::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn blocks_hold_what_their_sequences_computed(
        num_blocks in 1usize..16,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut model = Model::new(num_blocks);
        for act in acts {
            match act {
                Act::Admit(tenant, tokens) => {
                    let needed = tokens.len().div_ceil(KV_BLOCK_TOKENS);
                    let fits = needed <= model.cache.num_available();
                    let admitted = model.admit(key(tenant), tokens).is_some();
                    // Sharing may make it fit where it would not alone, never the reverse.
                    prop_assert!(admitted || !fits);
                }
                Act::Extend(index, count) if !model.live.is_empty() => {
                    let index = index % model.live.len();
                    model.extend(index, &vec![7; count]);
                }
                Act::Finish(index) if !model.live.is_empty() => {
                    model.finish(index % model.live.len());
                }
                _ => {}
            }
            model.check();
        }
        while !model.live.is_empty() {
            model.finish(0);
        }
        prop_assert_eq!(model.cache.num_available(), num_blocks);
    }
}

#[test]
fn a_prefix_is_reused_while_its_owner_lives_and_after() {
    let mut model = Model::new(10);
    let prompt: Vec<u32> = (0..40).collect();
    assert_eq!(model.admit(key(0), prompt.clone()), Some(0));
    assert_eq!(model.admit(key(0), prompt.clone()), Some(32));
    // Two full blocks shared, and a partial one each.
    assert_eq!(model.cache.num_available(), 10 - 4);
    model.finish(0);
    model.finish(0);
    assert_eq!((model.cache.num_available(), model.cache.num_idle()), (10, 2));
    assert_eq!(model.admit(key(0), prompt), Some(32));
}

#[test]
fn one_token_is_always_left_to_compute() {
    let mut model = Model::new(10);
    let prompt: Vec<u32> = (0..32).collect();
    assert_eq!(model.admit(key(0), prompt.clone()), Some(0));
    assert_eq!(model.admit(key(0), prompt), Some(16));
}

#[test]
fn nothing_is_shared_between_keys() {
    let mut model = Model::new(20);
    let prompt: Vec<u32> = (0..33).collect();
    let digest = Some(AdapterDigest([1; 32]));
    let keys = [
        key(0),
        key(1),
        PrefixKey { adapter: digest, ..key(0) },
        PrefixKey { mode: BatchMode::Exact, ..key(0) },
    ];
    for key in keys {
        assert_eq!(model.admit(key, prompt.clone()), Some(0));
        assert_eq!(model.admit(key, prompt.clone()), Some(32));
    }
}

#[test]
fn the_least_recently_used_end_is_evicted_first() {
    let mut model = Model::new(4);
    let old: Vec<u32> = (0..33).collect();
    let new: Vec<u32> = (100..133).collect();
    assert!(model.admit(key(0), old.clone()).is_some());
    model.finish(0);
    // Needs three blocks, two are free: the second block of the old prefix goes.
    assert!(model.admit(key(0), new).is_some());
    model.finish(0);
    assert_eq!(model.admit(key(0), old), Some(16));
}

#[test]
fn whoever_keeps_most_gives_first() {
    let mut model = Model::new(12);
    let prompt = |tenant: u32, blocks: u32| {
        (0..blocks * 16 + 1).map(|i| tenant * 1000 + i).collect::<Vec<_>>()
    };
    let keep = |model: &mut Model, tenant: u8, tokens: Vec<u32>| {
        assert!(model.admit(key(tenant), tokens).is_some());
        model.finish(0);
    };
    keep(&mut model, 0, prompt(0, 2));
    keep(&mut model, 1, prompt(1, 5));
    let idle = |model: &Model, tenant: u8| model.cache.num_idle_of(&key(tenant).namespace);
    assert_eq!((idle(&model, 0), idle(&model, 1)), (2, 5));
    // Nine blocks, of which five are free. The older two of the first tenant stay.
    keep(&mut model, 1, prompt(2, 8));
    assert_eq!((idle(&model, 0), idle(&model, 1)), (2, 9));
    assert_eq!(model.admit(key(0), prompt(0, 2)), Some(32));
}

#[test]
fn without_sharing_every_sequence_has_its_own() {
    let mut cache = KvCache::new(4, false);
    let prompt: Vec<u32> = (0..20).collect();
    let mut a = BlockTable::new(key(0));
    assert!(cache.reserve(&mut a, 20));
    cache.publish(&mut a, &prompt);
    let mut b = BlockTable::new(key(0));
    assert_eq!(cache.share(&mut b, &prompt), 0);
    cache.release(&mut a);
    assert_eq!((cache.num_available(), cache.num_idle()), (4, 0));
}
