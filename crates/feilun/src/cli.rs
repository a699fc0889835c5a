//! The command line's grammar. Each command's arguments stand in the command's own file.

use std::path::PathBuf;

use clap::Parser;

use crate::commands::Command;

/// Own your model, own your application, and let every use make it better
///
/// Runs open-weight language models on the CPU. Start with: feilun pull smollm2-135m-instruct
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Environment:
  FEILUN_DATA_DIR      where models and state are kept (as --data)
  FEILUN_DATABASE_URL  what up, keys and forget keep turns in (as --database)
  FEILUN_ISA           instruction path: portable, avx2, avx512 or amx
  FEILUN_THREADS       number of threads to compute with
  HF_ENDPOINT          address of the model hub; HF_TOKEN is sent to it and to nobody else

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 refused by a gate, 130 interrupted")]
pub(crate) struct Cli {
    /// Keep models and state in this directory
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}
