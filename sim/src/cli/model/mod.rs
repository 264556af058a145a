//! `moesim model`: import of architectures, and what they have.

mod info;
mod words;

use super::force::Force;
use super::terminal::{Format, print};
use crate::output::json;
use moesim_core::Result;
use moesim_core::output::AtomicFile;
use moesim_traces::model::{Imported, import_config};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the model file of a Hugging Face config.json
    Import(ImportArgs),
    /// Say what a model has: parameters, FLOP and KV a token, weights by class and by device
    Info(info::InfoArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The configuration; what lies beside it and says how the weights are quantised is read too
    config: PathBuf,
    /// The model's name [default: what the configuration was loaded by, or the name of the file or its folder]
    #[arg(long)]
    name: Option<String>,
    /// Where to write the model file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to print what was read: beside --out on standard output, or else on standard error
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    force: Force,
}

pub(super) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Import(a) => import(a),
        Command::Info(a) => info::run(a),
    }
}

fn import(a: &ImportArgs) -> Result<()> {
    let _claim = a.force.file(a.out.as_deref())?;
    let imported = import_config(&a.config, a.name.as_deref())?;
    let said = said(&imported, a.format)?;
    match &a.out {
        Some(out) => {
            AtomicFile::write(out, imported.text.as_bytes())?;
            print(&said)
        }
        None => {
            eprint!("{said}");
            print(&imported.text)
        }
    }
}

/// What was read, for people or as JSON.
fn said(i: &Imported, format: Format) -> Result<String> {
    let f = i.model.facts();
    if format == Format::Json {
        let value =
            serde_json::json!({ "family": i.family, "model": f, "precision": i.model.precision, "notes": i.notes });
        return Ok(json(&value)? + "\n");
    }
    let p = &i.model.precision;
    let mut text = format!("{}: {}\n", words::plain(&f.name), words::parameters(&f));
    text += &format!("{}\n", words::kv(&f));
    text += &format!(
        "bits: attention {}, experts {}, KV {}, the rest {} to {}\n",
        words::bits(p.attention),
        words::bits(p.experts),
        words::bits(p.kv),
        words::bits([p.router, p.shared, p.dense, p.embedding, p.head].into_iter().fold(f64::INFINITY, f64::min)),
        words::bits([p.router, p.shared, p.dense, p.embedding, p.head].into_iter().fold(0.0, f64::max)),
    );
    i.notes.iter().for_each(|n| text += &format!("note: {}\n", words::plain(n)));
    Ok(text)
}
