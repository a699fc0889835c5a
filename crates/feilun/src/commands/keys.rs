//! `feilun keys`: who may use the server.

use std::time::Duration;

use clap::ValueEnum;
use feilun_server::NewKey as Secret;
use feilun_store::audit::Actor;
use feilun_store::id::KeyId;
use feilun_store::keys::{Key, NewKey};
use feilun_store::users::Role;
use feilun_store::{Page, Timestamp};
use serde_json::{Value, json};

use crate::commands::Session;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::store::StoreArgs;

/// Make, list and take back the keys of the server
///
/// As soon as there is a key, every request needs one. A key is shown once, when it is made; what
/// is kept is a hash of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  feilun keys create website --role app --requests-per-minute 600
  feilun keys create me --role admin --expires 90d
  feilun keys list
  feilun keys revoke 0192f0c4-6b3e-7c1d-9a55-3f0a1b2c3d4e")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key and print it to stdout, this once
    Create(Create),
    /// List the keys, without their secrets
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key back
    Revoke {
        /// The key's id, as `feilun keys list` shows it
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What to call it
    name: String,
    /// What it may do
    #[arg(long, value_enum, default_value_t = RoleArg::App)]
    role: RoleArg,
    /// When it ends, such as 90d or 12h; without it never
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Most requests in a minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Most tokens in a minute, prompts and answers together
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u32>,
    /// Whether what comes with it may be learnt from; a request may say no, and a no wins
    #[arg(long, value_name = "YES_OR_NO")]
    consent: Option<bool>,
    /// Print the key with its id as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// Everything
    Admin,
    /// Use models, and see what was captured
    Curator,
    /// Use models, and see what is one's own
    Member,
    /// A program that serves others
    App,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Admin => Role::Admin,
            RoleArg::Curator => Role::Curator,
            RoleArg::Member => Role::Member,
            RoleArg::App => Role::App,
        }
    }
}

pub(crate) fn run(args: Args, session: &Session) -> Outcome {
    let (runtime, store) = args.store.open(session)?;
    match args.action {
        Action::Create(create) => {
            let secret = Secret::random()?;
            let key = NewKey {
                id: KeyId::new(),
                hash: secret.hash,
                name: create.name,
                role: create.role.into(),
                user: None,
                consent: create.consent,
                requests_per_minute: create.requests_per_minute,
                tokens_per_minute: create.tokens_per_minute,
                expires_at: create.expires.map(|time| Timestamp::now().plus(time)),
            };
            let id = key.id;
            runtime.block_on(store.create_key(key, Actor::Operator))?;
            if create.json {
                return output::json(&json!({"id": id.to_string(), "key": secret.secret}));
            }
            output::talk(format!("key {id}; it is shown this once:"));
            output::data(secret.secret)
        }
        Action::List { json } => {
            let keys = runtime.block_on(store.list_keys(Page::newest(1000)))?;
            if json {
                let shown: Vec<Value> = keys.iter().map(shown).collect();
                return output::json(&shown);
            }
            if keys.is_empty() {
                output::talk("there is no key; requests from this machine need none");
            }
            keys.iter().try_for_each(|key| {
                let (id, role, state) = (key.id, key.role, state(key));
                output::data(format!("{id}  {role:<8} {state:<8} {}", key.name))
            })
        }
        Action::Revoke { id } => {
            let id: KeyId = id
                .parse()
                .map_err(|error| Failure::usage(error).hint("see the ids: feilun keys list"))?;
            runtime.block_on(store.revoke_key(id, Actor::Operator))?;
            output::talk(format!("key {id} is taken back"));
            Ok(())
        }
    }
}

fn state(key: &Key) -> &'static str {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= Timestamp::now() => "expired",
        _ => "works",
    }
}

fn shown(key: &Key) -> Value {
    let seconds = |time: Timestamp| time.as_micros() / 1_000_000;
    json!({
        "id": key.id.to_string(),
        "name": key.name,
        "role": key.role.as_str(),
        "state": state(key),
        "consent": key.consent,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "created_at": seconds(key.created_at),
        "expires_at": key.expires_at.map(seconds),
    })
}
