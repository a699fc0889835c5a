//! Which blocks of the KV cache are in use, and by how many.

use feilun_model::BlockId;

/// Blocks with a count of holders each: sequences, and the prefix tree. A block with no holder
/// is free.
#[derive(Debug)]
pub struct BlockPool {
    holders: Vec<u32>,
    /// Free blocks; the last is handed out next, while it may still be in a processor cache.
    free: Vec<BlockId>,
}

impl BlockPool {
    /// A pool of the blocks `0..num_blocks`, all free.
    pub fn new(num_blocks: usize) -> BlockPool {
        let num_blocks = u32::try_from(num_blocks).unwrap_or(u32::MAX);
        BlockPool {
            holders: vec![0; num_blocks as usize],
            free: (0..num_blocks).rev().map(BlockId).collect(),
        }
    }

    /// Blocks in all.
    pub fn num_blocks(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// A free block, with the caller as its one holder.
    pub fn take(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.holders[block.0 as usize] = 1;
        Some(block)
    }

    /// Adds a holder to a block that has one already.
    pub fn hold(&mut self, block: BlockId) {
        let holders = &mut self.holders[block.0 as usize];
        assert!(*holders > 0, "block {} is free and cannot be shared", block.0);
        *holders += 1;
    }

    /// Takes a holder away and returns how many are left; at none the block is free.
    pub fn release(&mut self, block: BlockId) -> u32 {
        let holders = &mut self.holders[block.0 as usize];
        assert!(*holders > 0, "block {} is free and cannot be released", block.0);
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
        *holders
    }

    /// How many hold this block.
    pub fn num_holders(&self, block: BlockId) -> u32 {
        self.holders[block.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_free_when_its_last_holder_lets_go() {
        let mut pool = BlockPool::new(2);
        let (a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert_ne!(a, b);
        assert_eq!(pool.take(), None);
        pool.hold(a);
        assert_eq!(pool.release(a), 1);
        assert_eq!(pool.num_free(), 0);
        assert_eq!(pool.release(a), 0);
        assert_eq!(pool.take(), Some(a));
    }

    #[test]
    #[should_panic(expected = "is free")]
    fn releasing_twice_is_a_bug() {
        let mut pool = BlockPool::new(1);
        let block = pool.take().unwrap();
        pool.release(block);
        pool.release(block);
    }
}
