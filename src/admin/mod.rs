//! The commands: what an operator types, and what becomes of it.
//!
//! What the user typed is one type, what the program needs is another: nothing past this folder knows of arguments.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use self::failure::Failure;
use self::output::Output;
use self::place::Place;
use crate::config::Config;
use crate::listener;

mod account;
mod adjust;
mod apply;
mod arguments;
mod catch_up;
mod connect;
mod demo;
mod elsewhere;
mod explain;
mod failure;
mod flush;
mod grant;
mod history;
mod key;
mod lease;
mod migrate;
mod output;
mod owner;
mod place;
mod quarantined;
mod rebuild;
mod secret;
mod serve;
mod show;
mod usage;
mod verify;
mod withdraw;

pub use secret::KeySecret;

const EXAMPLES: &str = "\
Try it, with nothing to configure:
  tollgate demo

Set it up:
  tollgate check --config tollgate.toml
  tollgate migrate --config tollgate.toml
  tollgate apply --config tollgate.toml catalog.toml --dry-run
  tollgate apply --config tollgate.toml catalog.toml
  tollgate account create acme --plan project
  tollgate key create acme --name backend
  tollgate grant acme 50 --source-ref invoice-17
  tollgate serve --config tollgate.toml

Look after it:
  tollgate account show acme
  tollgate account set acme --suspend
  tollgate key list acme
  tollgate explain acme
  tollgate usage acme --by day
  tollgate withdraw acme 17 refund --source-ref refund-9
  tollgate adjust acme 2.5 --reason \"the outage of May\" --source-ref ticket-7
  tollgate verify
  tollgate flush
  tollgate flush --quarantined
  tollgate rebuild

Exit codes: 0 done, 1 a check failed, 2 wrong usage or configuration, 3 a dependency is away.";

/// The money layer for AI and tool calls: reserve before forwarding, settle what was used, lose nothing.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Options {
    /// The configuration [default: tollgate.toml in this folder].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON, one value a line; amounts are whole nanos, billionths of a credit.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All in one process, nothing to configure: prints calls that are ready to paste.
    Demo(demo::Arguments),
    /// Run the sidecar until SIGTERM or Ctrl-C; calls in flight may then end.
    #[command(after_help = serve::EXAMPLES)]
    Serve,
    /// Look over the configuration: what is wrong, with file, line and key. Nothing is connected to.
    Check,
    /// Create or upgrade the ledger's schema and its prices; repeatable, and safe when many start at once.
    Migrate(migrate::Arguments),
    /// Put a catalogue of plans, prices and markup into the ledger, and print what that changes; repeatable.
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::Arguments),
    /// Make, show, list and set accounts.
    #[command(subcommand)]
    Account(account::Command),
    /// Make, list and revoke keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Grant credit to an account.
    #[command(after_help = grant::EXAMPLES)]
    Grant(grant::Arguments),
    /// Take credit out of a lot again: a void, or a refund.
    #[command(after_help = withdraw::EXAMPLES)]
    Withdraw(withdraw::Arguments),
    /// Give or take credit by hand, beside all grants.
    #[command(after_help = adjust::EXAMPLES)]
    Adjust(adjust::Arguments),
    /// Drain the store's outbox to the ledger. Sidecars do that by themselves: this is for when none is running.
    Flush(flush::Arguments),
    /// List an account's usage, a record a line, or sum it up.
    #[command(after_help = usage::EXAMPLES)]
    Usage(usage::Arguments),
    /// Explain an account: every limit, lot and open reservation, and all that is still on its way. Or a reservation: its
    /// record, price and postings. Nothing is changed.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Arguments),
    /// Audit the ledger against itself and the store against the ledger: one line a drift, and exit code 1 if there is
    /// one. Nothing is changed.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Arguments),
    /// Make the store again from the ledger: a new epoch, in which every account is loaded anew.
    Rebuild(rebuild::Arguments),
    #[command(hide = true)]
    Prices(NotBuilt),
}

/// A command that is promised for later. It takes anything, so that the answer is this one and no other.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct NotBuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// A command, with the text of the file that it names.
struct Typed {
    command: Command,
    file: Option<String>,
}

/// How long the end waits for work that cannot be cut off.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs what this process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.options.json);
    // A sidecar's calls run here, on the first of their threads (`proxy::serve`).
    let runtime = match cli.command {
        Command::Serve | Command::Demo(_) => listener::runtime(),
        _ => Builder::new_multi_thread().enable_all().build(),
    };
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli, &output));
            // A name that is being looked up, or whatever else blocks, keeps nobody for ever.
            runtime.shutdown_timeout(LAST_WORK);
            outcome
        }
        Err(error) => Err(Failure::Process(error)),
    };
    ExitCode::from(outcome.unwrap_or_else(|failure| failure.report(&output)))
}

/// Runs a command to its exit code: in this process, or in the one that owns the file it speaks of (rule 29).
async fn run(cli: Cli, output: &Output) -> Result<u8, Failure> {
    let config = cli.options.config.as_deref();
    match cli.command {
        Command::Demo(_) if config.is_some() => {
            let message = "`tollgate demo` brings its own configuration: leave --config away, or use `tollgate serve`";
            return Err(Failure::Usage(message.into()));
        }
        Command::Demo(arguments) => demo::run(arguments, output).await?,
        Command::Serve => return serve::run(config, output).await,
        Command::Check => serve::check(config, output)?,
        command => {
            if let Command::Rebuild(arguments) = &command {
                arguments.confirmed()?;
            }
            let typed = Typed {
                file: command.read_file()?,
                command,
            };
            return elsewhere::run(Config::load(config)?, typed, output).await;
        }
    }
    Ok(0)
}

/// Runs a command on what its process has.
async fn run_at(place: &Place, typed: Typed, output: &Output) -> Result<(), Failure> {
    match typed.command {
        Command::Demo(_) | Command::Serve | Command::Check => Err(Failure::Usage(
            "this command is for a process of its own".into(),
        )),
        Command::Migrate(arguments) => migrate::run(place, &arguments, output).await,
        Command::Apply(arguments) => {
            let text = typed.file.ok_or_else(|| {
                Failure::Usage(format!(
                    "{}: its text was not sent along: ask with `tollgate apply` itself",
                    arguments.catalog.display()
                ))
            })?;
            apply::run(place, &arguments, &text, output).await
        }
        Command::Account(command) => account::run(place, command, output).await,
        Command::Key(command) => key::run(place, command, output).await,
        Command::Grant(arguments) => grant::run(place, arguments, output).await,
        Command::Withdraw(arguments) => withdraw::run(place, arguments, output).await,
        Command::Adjust(arguments) => adjust::run(place, arguments, output).await,
        Command::Flush(arguments) => flush::run(place, &arguments, output).await,
        Command::Verify(arguments) => verify::run(place, &arguments, output).await,
        Command::Prices(_) => Err(Failure::not_built("prices")),
        Command::Usage(arguments) => usage::run(place, &arguments, output).await,
        Command::Explain(arguments) => explain::run(place, &arguments, output).await,
        Command::Rebuild(arguments) => rebuild::run(place, &arguments, output).await,
    }
}

impl Command {
    /// The file that it names is read where it was typed, whichever process runs it.
    fn read_file(&self) -> Result<Option<String>, Failure> {
        let Self::Apply(arguments) = self else {
            return Ok(None);
        };
        let file = &arguments.catalog;
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::Usage(format!("{}: cannot be read: {error}", file.display()))
        })?;
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
