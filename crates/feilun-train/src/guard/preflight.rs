//! What is wrong with a run can often be seen before its first step.

/// What is known about a run before it starts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Examples that are trained on.
    pub num_examples: usize,
    /// Tokens with a loss among them.
    pub num_learned_tokens: u64,
    /// Examples that do not fit into the context, unless the caller has cropped or dropped them.
    pub num_too_long: usize,
    /// Tokens of the longest example.
    pub longest_example: usize,
    /// Tokens that the model can see.
    pub context_length: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The learning rates that have ever been useful: lowest and highest.
    pub learning_rates: (f64, f64),
    /// The digest of the base that an adapter to go on with was made for, if there is one.
    pub adapter_base: Option<String>,
    /// The digest of the base.
    pub base: String,
    /// What the run will take.
    pub needed_bytes: u64,
    /// What the machine has left.
    pub available_bytes: u64,
}

/// AdamW: below, bf16 weights never move; above, every known run diverges.
pub const ADAMW_LEARNING_RATES: (f64, f64) = (1e-8, 1e-1);

/// Why a run is not started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum PreflightError {
    #[error("the data has no examples, expected at least 1")]
    NoExamples,
    #[error(
        "none of the {num_examples} examples has a token that is learned: check roles and masks"
    )]
    NothingLearned { num_examples: usize },
    #[error(
        "{found} of {num_examples} examples are longer than the context: the longest has \
         {longest} tokens, expected at most {expected}; crop or drop them, or take a model with a \
         longer context"
    )]
    TooLong { found: usize, num_examples: usize, longest: usize, expected: usize },
    #[error("the learning rate is {found}, expected {} to {}", .expected.0, .expected.1)]
    LearningRate { found: f64, expected: (f64, f64) },
    #[error("the adapter was made for base {found}, expected {expected}")]
    AdapterBase { found: String, expected: String },
    #[error(
        "the run needs {} MiB of memory, {} MiB are available; take smaller rows, LoRA, or a \
         smaller model", .needed >> 20, .available >> 20
    )]
    Memory { needed: u64, available: u64 },
}

/// Everything that is wrong, so that it can be mended at once.
pub fn check(facts: &Facts) -> Vec<PreflightError> {
    let mut errors = Vec::new();
    let num_examples = facts.num_examples;
    if num_examples == 0 {
        errors.push(PreflightError::NoExamples);
    } else if facts.num_learned_tokens == 0 {
        errors.push(PreflightError::NothingLearned { num_examples });
    }
    if facts.num_too_long > 0 {
        errors.push(PreflightError::TooLong {
            found: facts.num_too_long,
            num_examples,
            longest: facts.longest_example,
            expected: facts.context_length,
        });
    }
    let (found, expected) = (facts.learning_rate, facts.learning_rates);
    // Written so that NaN is refused.
    if !(expected.0..=expected.1).contains(&found) {
        errors.push(PreflightError::LearningRate { found, expected });
    }
    if let Some(found) = &facts.adapter_base
        && *found != facts.base
    {
        let (found, expected) = (found.clone(), facts.base.clone());
        errors.push(PreflightError::AdapterBase { found, expected });
    }
    if facts.needed_bytes > facts.available_bytes {
        let (needed, available) = (facts.needed_bytes, facts.available_bytes);
        errors.push(PreflightError::Memory { needed, available });
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            num_examples: 10,
            num_learned_tokens: 500,
            num_too_long: 0,
            longest_example: 90,
            context_length: 128,
            learning_rate: 3e-4,
            learning_rates: ADAMW_LEARNING_RATES,
            adapter_base: None,
            base: "b1".into(),
            needed_bytes: 3 << 30,
            available_bytes: 4 << 30,
        }
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Facts), expected: &str) {
        let mut facts = good();
        change(&mut facts);
        let errors: Vec<String> = check(&facts).iter().map(ToString::to_string).collect();
        assert_eq!(errors, [expected]);
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(check(&good()), []);
        let facts = Facts { adapter_base: Some("b1".into()), ..good() };
        assert_eq!(check(&facts), []);
    }

    #[test]
    fn each_fault_is_named() {
        refused(|f| f.num_examples = 0, "the data has no examples, expected at least 1");
        refused(
            |f| f.num_learned_tokens = 0,
            "none of the 10 examples has a token that is learned: check roles and masks",
        );
        refused(
            |f| (f.num_too_long, f.longest_example) = (3, 900),
            "3 of 10 examples are longer than the context: the longest has 900 tokens, expected \
             at most 128; crop or drop them, or take a model with a longer context",
        );
        for rate in [-3e-4, 0.0, 3.0] {
            let expected = format!("the learning rate is {rate}, expected 0.00000001 to 0.1");
            refused(|f| f.learning_rate = rate, &expected);
        }
        refused(
            |f| f.learning_rate = f64::NAN,
            "the learning rate is NaN, expected 0.00000001 to 0.1",
        );
        refused(
            |f| f.adapter_base = Some("b2".into()),
            "the adapter was made for base b2, expected b1",
        );
        refused(
            |f| f.needed_bytes = 5 << 30,
            "the run needs 5120 MiB of memory, 4096 MiB are available; take smaller rows, LoRA, \
             or a smaller model",
        );
    }

    #[test]
    fn all_faults_come_at_once() {
        let facts = Facts { num_examples: 0, learning_rate: -1.0, available_bytes: 0, ..good() };
        assert_eq!(check(&facts).len(), 3);
    }
}
