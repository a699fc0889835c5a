//! Who is next: a queue for each tenant (namespace), served in turn by what was computed for it.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) with rows of the forward pass as the
//! measure: a tenant is charged for each position that is computed for it the first time,
//! divided by its weight, and the next request comes from the tenant charged least. Whoever
//! comes back after a pause starts where the others are: there is no credit for having been away.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use super::sequence::Sequence;
use crate::kv::prefix::Namespace;
use crate::request::RequestId;

/// A row of a tenant of weight 1.
const ROW: u64 = 1 << 10;
/// Tenants without requests that are remembered, until the others have caught up with them.
const ABSENT_MAX: usize = 1024;

#[derive(Default)]
struct Account {
    waiting: VecDeque<Sequence>,
    num_running: usize,
    /// What was computed, by weight.
    served: u64,
}

impl Account {
    fn is_active(&self) -> bool {
        self.num_running > 0 || !self.waiting.is_empty()
    }
}

/// Requests that wait, and what each tenant has had.
#[derive(Default)]
pub(super) struct FairQueue {
    accounts: HashMap<Namespace, Account>,
    num_waiting: usize,
    /// What the active tenant served least has had; it never falls.
    floor: u64,
}

impl FairQueue {
    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.num_waiting
    }

    /// Tenants with requests that wait, and how many these are.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Namespace, usize)> {
        let counts = self.accounts.iter().map(|(name, account)| (*name, account.waiting.len()));
        counts.filter(|(_, num_waiting)| *num_waiting > 0)
    }

    /// A new request, behind the others of its tenant.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.raise_floor();
        let floor = self.floor;
        let account = self.accounts.entry(sequence.namespace()).or_default();
        if !account.is_active() {
            account.served = account.served.max(floor);
        }
        account.waiting.push_back(sequence);
        self.num_waiting += 1;
    }

    /// A request that has been out already, before the others of its tenant.
    pub(super) fn put_back(&mut self, sequence: Sequence) {
        let account = self.accounts.entry(sequence.namespace()).or_default();
        account.waiting.push_front(sequence);
        self.num_waiting += 1;
    }

    /// The next request: of the tenant served least, of several the one that came first.
    pub(super) fn pop(&mut self) -> Option<Sequence> {
        let next = self.accounts.values_mut().filter(|account| !account.waiting.is_empty());
        let account =
            next.min_by_key(|account| (account.served, account.waiting.front().map(|s| s.id)))?;
        self.num_waiting -= 1;
        account.waiting.pop_front()
    }

    /// Takes a request out, wherever it is.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        let found = self.accounts.iter_mut().find_map(|(name, account)| {
            let index = account.waiting.iter().position(|sequence| sequence.id == id)?;
            Some((*name, account.waiting.remove(index)?))
        });
        let (name, sequence) = found?;
        self.num_waiting -= 1;
        self.forget(name);
        Some(sequence)
    }

    /// A request of this tenant is being computed from now on.
    pub(super) fn start(&mut self, name: Namespace) {
        self.accounts.entry(name).or_default().num_running += 1;
    }

    /// A request of this tenant is not computed any longer.
    pub(super) fn stop(&mut self, name: Namespace) {
        if let Some(account) = self.accounts.get_mut(&name) {
            account.num_running = account.num_running.saturating_sub(1);
        }
        self.forget(name);
    }

    /// Requests of this tenant that are being computed.
    pub(super) fn num_running(&self, name: Namespace) -> usize {
        self.accounts.get(&name).map_or(0, |account| account.num_running)
    }

    /// Rows were computed for this tenant.
    pub(super) fn charge(&mut self, name: Namespace, weight: u32, rows: usize) {
        if let Some(account) = self.accounts.get_mut(&name) {
            let cost = (rows as u64).saturating_mul(ROW) / u64::from(weight.max(1));
            account.served = account.served.saturating_add(cost);
        }
    }

    /// What this tenant has had.
    pub(super) fn served(&self, name: Namespace) -> u64 {
        self.accounts.get(&name).map_or(0, |account| account.served)
    }

    fn raise_floor(&mut self) {
        let active = self.accounts.values().filter(|account| account.is_active());
        if let Some(least) = active.map(|account| account.served).min() {
            self.floor = self.floor.max(least);
        }
    }

    /// Drops the account of a tenant that has no requests and no debt, and, of too many with
    /// debts, those with the least.
    fn forget(&mut self, name: Namespace) {
        if self.accounts.get(&name).is_none_or(Account::is_active) {
            return;
        }
        self.raise_floor();
        if self.served(name) <= self.floor {
            self.accounts.remove(&name);
        }
        if self.accounts.len() > 2 * ABSENT_MAX {
            let absent = self.accounts.iter().filter(|(_, account)| !account.is_active());
            let mut absent: Vec<_> =
                absent.map(|(name, account)| (account.served, *name)).collect();
            absent.sort_unstable_by_key(|entry| Reverse(*entry));
            for (_, name) in absent.drain(absent.len().min(ABSENT_MAX)..) {
                self.accounts.remove(&name);
            }
        }
    }
}

/// Sorts running requests: first the oldest of each tenant, then the second of each, and so on,
/// tenants with weight accordingly; of several the one submitted first. Blocks and places are
/// taken from the end of this order, so a tenant with many requests makes room for one with few,
/// and a request that was displaced never displaces another in return.
pub(super) fn sort_by_rank(running: &mut [Sequence]) {
    running.sort_unstable_by_key(|sequence| sequence.id);
    let mut counts: HashMap<Namespace, usize> = HashMap::new();
    for sequence in &mut *running {
        let count = counts.entry(sequence.namespace()).or_default();
        sequence.rank = rank(*count, sequence.request.weight);
        *count += 1;
    }
    running.sort_unstable_by_key(|sequence| (sequence.rank, sequence.id));
}

/// The rank of a request before which so many of its tenant are computed.
pub(super) fn rank(num_before: usize, weight: u32) -> u64 {
    (num_before as u64).saturating_mul(ROW) / u64::from(weight.max(1))
}
