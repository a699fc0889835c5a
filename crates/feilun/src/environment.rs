//! Every environment variable that Feilun reads, and nothing else reads any.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::{Failure, Outcome};

/// What the environment said when the program started. An empty variable counts as unset.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    data_dir: Option<PathBuf>,
    xdg_data_home: Option<PathBuf>,
    home: Option<PathBuf>,
    /// `FEILUN_ISA`: the instruction path to use, by name.
    pub(crate) isa: Option<String>,
    threads: Option<String>,
    /// `FEILUN_DATABASE_URL`: the store, where no `--database` names it.
    pub(crate) database_url: Option<String>,
    hub_endpoint: Option<String>,
    /// `HF_TOKEN`: sent to the hub's own host alone.
    pub(crate) hub_token: Option<String>,
}

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const HUB_ENDPOINT: &str = "https://huggingface.co";

impl Environment {
    pub(crate) fn read() -> Environment {
        let os = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let path = |name| os(name).map(PathBuf::from);
        let text = |name| os(name).map(|value| value.to_string_lossy().into_owned());
        Environment {
            data_dir: path("FEILUN_DATA_DIR"),
            xdg_data_home: path("XDG_DATA_HOME"),
            home: path("HOME"),
            isa: text("FEILUN_ISA"),
            threads: text("FEILUN_THREADS"),
            database_url: text("FEILUN_DATABASE_URL"),
            hub_endpoint: text("HF_ENDPOINT"),
            hub_token: text("HF_TOKEN"),
        }
    }

    /// The data directory where no `--data` was given.
    pub(crate) fn default_data_dir(&self) -> Outcome<PathBuf> {
        let share = || Some(self.home.as_ref()?.join(".local").join("share"));
        self.data_dir
            .clone()
            .or_else(|| Some(self.xdg_data_home.clone().or_else(share)?.join("feilun")))
            .ok_or_else(|| {
                Failure::usage("there is no home directory to keep models in")
                    .hint("give --data DIR, or set FEILUN_DATA_DIR")
            })
    }

    /// The hub's address, without a slash at its end.
    pub(crate) fn hub_endpoint(&self) -> Outcome<&str> {
        let endpoint = self.hub_endpoint.as_deref().unwrap_or(HUB_ENDPOINT).trim_end_matches('/');
        if endpoint.starts_with("https://") || endpoint.starts_with("http://") {
            return Ok(endpoint);
        }
        let message = format!("HF_ENDPOINT is `{endpoint}`, expected an http or https address");
        Err(Failure::usage(message))
    }

    /// `FEILUN_THREADS`, where set.
    pub(crate) fn threads(&self) -> Outcome<Option<usize>> {
        let Some(text) = &self.threads else { return Ok(None) };
        match text.parse() {
            Ok(threads @ 1..=1024) => Ok(Some(threads)),
            _ => Err(Failure::usage(format!(
                "FEILUN_THREADS is `{text}`, expected a number from 1 to 1024"
            ))),
        }
    }
}

/// Whether `NO_COLOR` and `TERM` leave room for colours.
pub(crate) fn allows_colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && std::env::var_os("TERM").is_some_and(|value| value != "dumb")
}
