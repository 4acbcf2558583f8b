//! `weft`: the command line for people. Asks the control plane's monitoring port and prints what it says.
//!
//! Exit codes are istioctl's: 0, 1 for what went wrong, 64 for a command line that is wrong, 65 for answers that can't
//! be understood.

mod args;
mod fetch;
mod proxy_config;
mod proxy_status;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use args::{Arguments, Command, Output};
use clap::{CommandFactory as _, Parser as _};
use fetch::FetchError;
use serde::Serialize;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 64;
const EXIT_DATA: u8 = 65;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version come this way too, and are no mistakes.
            let is_mistake = error.use_stderr();
            return match error.print() {
                Ok(()) if !is_mistake => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    match run(&arguments).and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {error:#}");
            match error.downcast_ref::<FetchError>() {
                Some(FetchError::Data { .. }) => ExitCode::from(EXIT_DATA),
                _ => ExitCode::from(EXIT_FAILURE),
            }
        }
    }
}

/// What the command prints.
fn run(arguments: &Arguments) -> anyhow::Result<String> {
    match &arguments.command {
        Command::ProxyStatus { proxy, output } => {
            let mut statuses = fetch::proxy_statuses(&arguments.control)?;
            if let Some(proxy) = proxy {
                statuses.retain(|status| status.proxy == *proxy || status.node_id == *proxy);
                anyhow::ensure!(!statuses.is_empty(), "no proxy {proxy:?} is connected");
            }
            render(&statuses, *output, || proxy_status::table_of(&statuses))
        }
        Command::ProxyConfig { section, proxy, output } => {
            let dump = fetch::config_dump(&arguments.control, proxy)?;
            let chosen = proxy_config::choose(&dump, *section);
            render(&chosen, *output, || proxy_config::tables(&dump, *section))
        }
        Command::Version { remote, output } => {
            let control = remote.then(|| fetch::version(&arguments.control)).transpose()?;
            let versions = Versions { client: env!("CARGO_PKG_VERSION").to_owned(), control };
            render(&versions, *output, || versions.text())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "weft", &mut script);
            String::from_utf8(script).context("writing the completion script")
        }
    }
}

fn render(value: &impl Serialize, output: Output, table: impl FnOnce() -> String) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(),
        Output::Json => serde_json::to_string_pretty(value).context("writing JSON")? + "\n",
        Output::Yaml => serde_saphyr::to_string(value).context("writing YAML")?,
    })
}

/// A reader that has seen enough (`weft ... | head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing to standard output"),
    }
}

#[derive(Serialize)]
struct Versions {
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<String>,
}

impl Versions {
    fn text(&self) -> String {
        let control = self.control.iter().map(|version| format!("control plane version: {version}\n"));
        format!("client version: {}\n{}", self.client, control.collect::<String>())
    }
}
