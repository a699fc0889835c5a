//! Which part of the data a conversation belongs to, for ever.

use crate::id::ConversationId;
use crate::named::named;

named! {
    /// A part of the data. It is fixed when a conversation's first turn is stored, for the whole
    /// conversation, so that no turn of it is learnt from while another is tested on.
    pub enum Split {
        /// To learn from: eight of ten.
        Train = "train",
        /// To look at while developing: one of ten.
        Dev = "dev",
        /// To decide with. Nothing is ever trained on it: one of ten.
        Sealed = "sealed",
    }
}

/// Of 100 conversations, how many are [`Split::Dev`], and how many are [`Split::Sealed`].
const DEV_PERCENT: u64 = 10;
const SEALED_PERCENT: u64 = 10;

impl Split {
    /// By a hash of the id: the same everywhere, and nothing that a caller can choose, since
    /// finding an id for a split would be possible but ids are the server's.
    pub fn of(conversation: ConversationId) -> Self {
        let hash =
            blake3::derive_key("feilun 2026 split of a conversation", conversation.as_bytes());
        let (first, _) = hash.split_at(8);
        let number = first.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        match number % 100 {
            percent if percent < SEALED_PERCENT => Self::Sealed,
            percent if percent < SEALED_PERCENT + DEV_PERCENT => Self::Dev,
            _ => Self::Train,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_have_their_sizes() {
        let splits: Vec<Split> = (0..20_000_u128)
            .map(|n| Split::of(ConversationId::from_bytes(n.to_be_bytes())))
            .collect();
        let count = |wanted| splits.iter().filter(|&&split| split == wanted).count();
        // Four standard deviations of a binomial are 170.
        assert!(count(Split::Sealed).abs_diff(2000) < 170, "{}", count(Split::Sealed));
        assert!(count(Split::Dev).abs_diff(2000) < 170, "{}", count(Split::Dev));
    }

    #[test]
    fn a_conversation_stays_where_it_is() {
        // Stored rows rely on it: a change here would move conversations between the parts.
        let found: Vec<&str> = (0..12_u8)
            .map(|byte| Split::of(ConversationId::from_bytes([byte; 16])).as_str())
            .collect();
        assert_eq!(found.join(" "), EXPECTED);
    }

    const EXPECTED: &str = "train dev train train train train train train train train train train";
}
