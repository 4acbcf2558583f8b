//! `weft`: the command line for people. Asks the control plane's monitoring port and prints what it says.
//!
//! Exit codes are istioctl's: 0, 1 for what went wrong, 64 for a command line that is wrong, 65 for files and answers that
//! can't be understood, 79 for an analysis that found something.

mod analysis;
mod args;
mod dump;
mod fetch;
mod filter;
mod proxy_config;
mod proxy_status;
mod secrets;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use args::{Arguments, Command, Output, Section, Source};
use clap::{CommandFactory as _, Parser as _};
use dump::{Dump, DumpError};
use fetch::{Control, FetchError};
use serde::Serialize;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 64;
const EXIT_DATA: u8 = 65;
const EXIT_FINDINGS: u8 = 79;

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
    match run(&arguments).and_then(|Answer { text, exit }| print(&text).map(|()| exit)) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("weft: {error:#}");
            let is_data = matches!(error.downcast_ref(), Some(FetchError::Data { .. }))
                || matches!(error.downcast_ref(), Some(DumpError::Json { .. } | DumpError::Form { .. }));
            ExitCode::from(if is_data { EXIT_DATA } else { EXIT_FAILURE })
        }
    }
}

/// What a command prints and how it exits.
struct Answer {
    text: String,
    exit: ExitCode,
}

fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let mut exit = ExitCode::SUCCESS;
    let control = Control::new(&arguments.control, arguments.token_file.as_deref())?;
    let text = match &arguments.command {
        Command::ProxyStatus { proxy, output } => {
            let mut statuses = control.proxy_statuses()?;
            if let Some(proxy) = proxy {
                statuses.retain(|status| status.proxy == *proxy || status.node_id == *proxy);
                anyhow::ensure!(!statuses.is_empty(), "no proxy {proxy:?} is connected");
            }
            render(&statuses, *output, || proxy_status::table_of(&statuses))?
        }
        Command::ProxyConfig { section } => proxy_config(section, &control)?,
        Command::Analyze { output } => {
            let problems = control.problems()?;
            if !problems.is_empty() {
                exit = ExitCode::from(EXIT_FINDINGS);
            }
            render(&problems, *output, || analysis::table_of(&problems))?
        }
        Command::Version { remote, short, output } => {
            let control = remote.then(|| control.version()).transpose()?;
            let versions = Versions { client: env!("CARGO_PKG_VERSION").to_owned(), control };
            render(&versions, *output, || if *short { versions.numbers() } else { versions.text() })?
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "weft", &mut script);
            String::from_utf8(script).context("writing the completion script")?
        }
    };
    Ok(Answer { text, exit })
}

fn proxy_config(section: &Section, control: &Control) -> anyhow::Result<String> {
    let Source { node, file, output } = section.source();
    let dump = match (file, node) {
        (Some(file), _) => Dump::read(file)?,
        (None, Some(node)) => Dump::of_control_plane(control.config_dump(node)?),
        (None, None) => anyhow::bail!("a proxy or a file is needed"),
    };
    let chosen = proxy_config::select(dump, section);
    render(&proxy_config::bodies(&chosen, section), *output, || proxy_config::tables(&chosen, section))
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

    fn numbers(&self) -> String {
        std::iter::once(&self.client).chain(&self.control).map(|version| format!("{version}\n")).collect()
    }
}
