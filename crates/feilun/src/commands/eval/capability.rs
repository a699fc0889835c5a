//! `feilun eval capability`: a suite made from a seed.

use feilun_eval::capability::{
    CapabilityOptions, Language, PER_SKILL_MAX, capability_header, capability_suite,
};
use feilun_eval::suite::Suite;

use crate::failure::Outcome;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct CapabilityArgs {
    /// Another seed makes another suite of the same difficulty
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Items of each skill in each language
    #[arg(long, value_name = "N", default_value_t = 30,
        value_parser = clap::value_parser!(u16).range(1..=PER_SKILL_MAX as i64))]
    per_skill: u16,
    /// The languages, both where not given
    #[arg(long = "language", value_name = "LANGUAGE")]
    languages: Vec<LanguageName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LanguageName {
    En,
    Zh,
}

/// Prints the suite to stdout.
pub(super) fn run(args: &CapabilityArgs) -> Outcome {
    let is_wanted = |name| args.languages.is_empty() || args.languages.contains(&name);
    let all = [(LanguageName::En, Language::English), (LanguageName::Zh, Language::Chinese)];
    let options = CapabilityOptions {
        seed: args.seed,
        per_skill: usize::from(args.per_skill),
        languages: all
            .into_iter()
            .filter(|(name, _)| is_wanted(*name))
            .map(|pair| pair.1)
            .collect(),
    };
    output::data(suite(&options)?.to_lines().trim_end())
}

/// The suite with these options.
pub(super) fn suite(options: &CapabilityOptions) -> Outcome<Suite> {
    Ok(Suite::new(capability_header(options), capability_suite(options))?)
}
