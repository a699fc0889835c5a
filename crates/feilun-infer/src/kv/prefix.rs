//! A tree of the full blocks that are in the KV cache, so that sequences that begin alike share
//! them.
//!
//! The key is typed and compared in full, never by a hash alone: tokens under another namespace,
//! adapter or batch mode are another tree. (Serving engines that hashed it served one tenant's
//! KV to another, or let one measure another's prompts.)
//!
//! A node stays when its last sequence ends, until its block is needed. Then the namespace that
//! keeps most for nobody gives one, its least recently used leaf, so that what is left is always
//! a set of whole prefixes, and nobody's prefixes can crowd out those of others who keep less.

use std::collections::{BTreeSet, HashMap};

use feilun_model::{BatchMode, BlockId, KV_BLOCK_TOKENS};

/// Whose prompts may share: callers under different namespaces never see each other's blocks,
/// not even by timing. The server derives it from the key of the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub [u8; 32]);

/// The content digest of a LoRA adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterDigest(pub [u8; 32]);

/// What two sequences must have in common, besides their tokens, to share blocks of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixKey {
    /// Whose.
    pub namespace: Namespace,
    /// Keys and values differ under an adapter.
    pub adapter: Option<AdapterDigest>,
    /// An exact request must not see blocks that a fast kernel filled.
    pub mode: BatchMode,
}

/// The tokens of one full block.
pub type BlockTokens = [u32; KV_BLOCK_TOKENS];

/// A node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// Where a node hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Parent {
    Root(RootKey),
    Node(NodeId),
}

/// [`PrefixKey`] in a form that can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RootKey {
    namespace: Namespace,
    adapter: Option<AdapterDigest>,
    exact: bool,
}

impl From<&PrefixKey> for RootKey {
    fn from(key: &PrefixKey) -> RootKey {
        RootKey {
            namespace: key.namespace,
            adapter: key.adapter,
            exact: key.mode == BatchMode::Exact,
        }
    }
}

#[derive(Debug)]
struct Node {
    namespace: Namespace,
    parent: Parent,
    tokens: BlockTokens,
    block: BlockId,
    num_children: u32,
    last_used: u64,
}

/// What a namespace keeps that no sequence uses.
#[derive(Debug, Default)]
struct Idle {
    num_nodes: usize,
    /// Least recently used first.
    leaves: BTreeSet<(u64, NodeId)>,
}

/// The tree. It holds each of its blocks once; who else does is the [pool](super::blocks)'s
/// business, and [`super::KvCache`] keeps the two in step.
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: HashMap<NodeId, Node>,
    /// Every edge, by where it starts and its tokens.
    edges: HashMap<(Parent, BlockTokens), NodeId>,
    /// Namespaces that keep something idle.
    idle: HashMap<Namespace, Idle>,
    /// The same by how much it is.
    idle_by_size: BTreeSet<(usize, Namespace)>,
    next_id: u32,
    clock: u64,
}

impl PrefixTree {
    /// The child of `parent` (of the root, if `None`) that holds these tokens.
    pub fn find(
        &self,
        key: &PrefixKey,
        parent: Option<NodeId>,
        tokens: &BlockTokens,
    ) -> Option<NodeId> {
        self.edges.get(&(parent_of(key, parent), *tokens)).copied()
    }

    /// Hangs a block under `parent`. There must be no such child yet.
    pub fn insert(
        &mut self,
        key: &PrefixKey,
        parent: Option<NodeId>,
        tokens: &BlockTokens,
        block: BlockId,
    ) -> NodeId {
        let id = self.fresh_id();
        let edge = (parent_of(key, parent), *tokens);
        if let Some(node) = parent.and_then(|p| self.nodes.get_mut(&p)) {
            node.num_children += 1;
        }
        let node = Node {
            namespace: key.namespace,
            parent: edge.0,
            tokens: edge.1,
            block,
            num_children: 0,
            last_used: self.clock,
        };
        self.nodes.insert(id, node);
        let replaced = self.edges.insert(edge, id);
        assert!(replaced.is_none(), "a prefix was inserted twice");
        id
    }

    /// The block of a node.
    pub fn block(&self, id: NodeId) -> Option<BlockId> {
        self.nodes.get(&id).map(|node| node.block)
    }

    /// Nodes, and so blocks, in the tree.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the tree has no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Nodes of a namespace that no sequence uses.
    pub fn num_idle_of(&self, namespace: &Namespace) -> usize {
        self.idle.get(namespace).map_or(0, |idle| idle.num_nodes)
    }

    /// Notes that a sequence has begun to use a node that was idle.
    pub fn set_used(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let (namespace, entry) = (node.namespace, (node.last_used, id));
        self.change_idle(namespace, |idle| {
            idle.num_nodes -= 1;
            idle.leaves.remove(&entry);
        });
    }

    /// Notes that the last sequence that used a node has let go of it.
    pub fn set_idle(&mut self, id: NodeId) {
        self.clock += 1;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.last_used = self.clock;
        let (namespace, is_leaf, entry) =
            (node.namespace, node.num_children == 0, (node.last_used, id));
        self.change_idle(namespace, |idle| {
            idle.num_nodes += 1;
            if is_leaf {
                idle.leaves.insert(entry);
            }
        });
    }

    /// Changes what is idle in a namespace, and its place among the others.
    fn change_idle(&mut self, namespace: Namespace, change: impl FnOnce(&mut Idle)) {
        let idle = self.idle.entry(namespace).or_default();
        self.idle_by_size.remove(&(idle.num_nodes, namespace));
        change(idle);
        let num_nodes = idle.num_nodes;
        if num_nodes > 0 {
            self.idle_by_size.insert((num_nodes, namespace));
        } else {
            self.idle.remove(&namespace);
        }
    }

    /// Takes a leaf that no sequence uses out of the tree and returns its block: of the namespace
    /// with most idle nodes the least recently used. `is_idle` says of a block whether no
    /// sequence uses it.
    pub fn evict(&mut self, is_idle: impl Fn(BlockId) -> bool) -> Option<BlockId> {
        let (_, namespace) = *self.idle_by_size.last()?;
        let &(_, id) = self.idle.get(&namespace)?.leaves.first()?;
        self.set_used(id);
        let node = self.nodes.remove(&id)?;
        self.edges.remove(&(node.parent, node.tokens));
        if let Parent::Node(parent_id) = node.parent
            && let Some(parent) = self.nodes.get_mut(&parent_id)
        {
            parent.num_children -= 1;
            if parent.num_children == 0 && is_idle(parent.block) {
                let entry = (parent.last_used, parent_id);
                self.change_idle(namespace, |idle| {
                    idle.leaves.insert(entry);
                });
            }
        }
        Some(node.block)
    }

    fn fresh_id(&mut self) -> NodeId {
        // Ids wrap after four billion blocks; one that is still alive is passed over.
        loop {
            let id = NodeId(self.next_id);
            self.next_id = self.next_id.wrapping_add(1);
            if !self.nodes.contains_key(&id) {
                return id;
            }
        }
    }
}

fn parent_of(key: &PrefixKey, parent: Option<NodeId>) -> Parent {
    parent.map_or_else(|| Parent::Root(key.into()), Parent::Node)
}
