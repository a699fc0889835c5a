//! `feilun forget`: remove what somebody said.

use feilun_store::audit::Actor;
use feilun_store::forget::Subject;
use serde_json::json;

use crate::commands::Session;
use crate::failure::Outcome;
use crate::output;
use crate::store::StoreArgs;

/// Remove everything that a user said, and what was said of it
///
/// Turns, conversations, feedback and events leave the database, and their bytes its file.
/// Backups made before still hold them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun forget --user customer-4711
  feilun forget --user customer-4711 --json")]
pub(crate) struct Args {
    /// The user: the name of an account, or what applications send as `user`
    #[arg(long, value_name = "NAME")]
    user: String,
    #[command(flatten)]
    store: StoreArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let (runtime, store) = args.store.open(session)?;
    let mut subjects = vec![Subject::EndUser(args.user.clone())];
    if let Some(account) = runtime.block_on(store.user_by_name(&args.user))? {
        subjects.push(Subject::User(account.id));
    }
    let (mut turns, mut conversations, mut feedback, mut events) = (0, 0, 0, 0);
    let mut models = std::collections::BTreeSet::new();
    for subject in subjects {
        let report = runtime.block_on(store.forget(subject, Actor::Operator))?;
        turns += report.turns;
        conversations += report.conversations;
        feedback += report.feedback;
        events += report.events;
        models.extend(report.models.iter().map(ToString::to_string));
    }
    if args.json {
        return output::json(&json!({
            "turns": turns, "conversations": conversations, "feedback": feedback,
            "events": events, "models_that_answered": models,
        }));
    }
    output::data(format!(
        "removed {turns} turns in {conversations} conversations, {feedback} feedback, {events} events"
    ))
}
