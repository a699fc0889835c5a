//! The bookkeeping of the paged KV cache: who holds which block, and who may share it.
//!
//! It knows tokens and block numbers, not keys and values. Two rules make sharing safe, and
//! everything else follows:
//!
//! - a block that is in the [prefix tree](prefix) is full, and nobody writes to it again;
//! - a sequence writes only to blocks of which it is the one holder.

pub mod blocks;
pub mod prefix;

use blocks::BlockPool;
use feilun_model::{BlockId, KV_BLOCK_TOKENS};
use prefix::{BlockTokens, Namespace, NodeId, PrefixKey, PrefixTree};

/// The blocks of one sequence: first those that are in the prefix tree, then its own.
#[derive(Debug)]
pub struct BlockTable {
    key: PrefixKey,
    shared: Vec<NodeId>,
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// A table without blocks.
    pub fn new(key: PrefixKey) -> BlockTable {
        BlockTable { key, shared: Vec::new(), blocks: Vec::new() }
    }

    /// What it may share, and with whom.
    pub fn key(&self) -> &PrefixKey {
        &self.key
    }

    /// The blocks, in order of positions.
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Positions that are in shared blocks.
    pub fn num_shared_positions(&self) -> usize {
        self.shared.len() * KV_BLOCK_TOKENS
    }
}

/// All blocks of one model's KV cache.
#[derive(Debug)]
pub struct KvCache {
    pool: BlockPool,
    tree: PrefixTree,
    /// Blocks that the tree alone holds, all of which can be evicted: a sequence that uses a
    /// node uses its ancestors too, so that idle nodes form whole subtrees.
    num_idle: usize,
    /// Whether prefixes are shared and kept at all.
    sharing: bool,
}

impl KvCache {
    /// A cache of `num_blocks` blocks, all free. Without `sharing` each sequence computes its
    /// own.
    pub fn new(num_blocks: usize, sharing: bool) -> KvCache {
        KvCache {
            pool: BlockPool::new(num_blocks),
            tree: PrefixTree::default(),
            num_idle: 0,
            sharing,
        }
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.pool.num_blocks()
    }

    /// Blocks that a sequence could have now: free ones, and those kept for nobody in particular.
    pub fn num_available(&self) -> usize {
        self.pool.num_free() + self.num_idle
    }

    /// Whether prefixes are shared.
    pub fn is_sharing(&self) -> bool {
        self.sharing
    }

    /// Blocks that hold prefixes which no sequence uses.
    pub fn num_idle(&self) -> usize {
        self.num_idle
    }

    /// Of these, blocks of one namespace.
    pub fn num_idle_of(&self, namespace: &Namespace) -> usize {
        self.tree.num_idle_of(namespace)
    }

    /// Extends a table that has nothing but shared blocks by what the tree holds of `tokens`,
    /// but never to the last token, since its logits are wanted. Returns the positions that the
    /// table covers.
    pub fn share(&mut self, table: &mut BlockTable, tokens: &[u32]) -> usize {
        if !self.sharing || table.blocks.len() > table.shared.len() {
            return table.num_shared_positions();
        }
        let shareable = tokens.len().saturating_sub(1) / KV_BLOCK_TOKENS;
        while table.shared.len() < shareable {
            let Some(block_tokens) = nth_block(tokens, table.shared.len()) else { break };
            let parent = table.shared.last().copied();
            let Some(node) = self.tree.find(&table.key, parent, block_tokens) else { break };
            let Some(block) = self.tree.block(node) else { break };
            self.hold(node, block);
            table.shared.push(node);
            table.blocks.push(block);
        }
        table.num_shared_positions()
    }

    /// Gives a table blocks of its own until it covers `positions`. False, and nothing changed,
    /// if there are not enough.
    #[must_use]
    pub fn reserve(&mut self, table: &mut BlockTable, positions: usize) -> bool {
        let missing = positions.div_ceil(KV_BLOCK_TOKENS).saturating_sub(table.blocks.len());
        if missing > self.num_available() {
            return false;
        }
        for _ in 0..missing {
            let Some(block) = self.take() else { return false };
            table.blocks.push(block);
        }
        true
    }

    /// Shares the blocks that are full, now that the positions of `tokens` (from the first) are
    /// computed. Where another sequence was faster, its block takes the place of ours.
    pub fn publish(&mut self, table: &mut BlockTable, tokens: &[u32]) {
        if !self.sharing {
            return;
        }
        while let Some(block_tokens) = nth_block(tokens, table.shared.len()) {
            let index = table.shared.len();
            let Some(&own) = table.blocks.get(index) else { return };
            let parent = table.shared.last().copied();
            let node = match self.tree.find(&table.key, parent, block_tokens) {
                Some(node) => {
                    let Some(block) = self.tree.block(node) else { return };
                    self.hold(node, block);
                    self.pool.release(own);
                    table.blocks[index] = block;
                    node
                }
                None => {
                    self.pool.hold(own);
                    self.tree.insert(&table.key, parent, block_tokens, own)
                }
            };
            table.shared.push(node);
        }
    }

    /// Gives up all blocks of a table. Shared ones stay in the tree until they are needed.
    pub fn release(&mut self, table: &mut BlockTable) {
        for block in table.blocks.drain(table.shared.len()..) {
            self.pool.release(block);
        }
        // From the last, so that of a prefix nobody uses the end is evicted first.
        for node in table.shared.drain(..).rev() {
            let Some(block) = table.blocks.pop() else { continue };
            if self.pool.release(block) == 1 {
                self.num_idle += 1;
                self.tree.set_idle(node);
            }
        }
    }

    fn hold(&mut self, node: NodeId, block: BlockId) {
        if self.pool.num_holders(block) == 1 {
            self.num_idle -= 1;
            self.tree.set_used(node);
        }
        self.pool.hold(block);
    }

    fn take(&mut self) -> Option<BlockId> {
        if self.pool.num_free() == 0 {
            let pool = &self.pool;
            let evicted = self.tree.evict(|block| pool.num_holders(block) == 1)?;
            self.num_idle -= 1;
            self.pool.release(evicted);
        }
        self.pool.take()
    }
}

/// The tokens of the `index`-th block, if they fill it.
fn nth_block(tokens: &[u32], index: usize) -> Option<&BlockTokens> {
    let start = index.checked_mul(KV_BLOCK_TOKENS)?;
    tokens.get(start..)?.first_chunk()
}

#[cfg(test)]
mod tests;
