//! The `replica` binary: a network of its own (`start`), an instruction meter (`meter`), and without a command the
//! server that the `pocket-ic` crate starts, or the network launcher that `icp network start` runs.

use clap::{Parser, Subcommand};
use replica::cli;

#[derive(Parser)]
#[command(name = "pocket-ic-server", bin_name = "replica", version = cli::pocketic::version())]
#[command(about = "An embedded Internet Computer replica. Without a command it is a PocketIC server, or with \
                   --interface-version a network launcher of icp.")]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: cli::pocketic::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Start a network that ic-agent, icp, dfx and browsers can talk to.
    Start(cli::start::Arguments),
    /// Count the instructions of one message.
    Meter(cli::meter::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if cli::launcher::is_wanted(&arguments) {
        return cli::launcher::run(arguments);
    }
    let CommandLine { command, server } = CommandLine::parse();
    match command {
        Some(Command::Start(arguments)) => cli::start::run(arguments),
        Some(Command::Meter(arguments)) => cli::meter::run(arguments),
        None => cli::pocketic::run(server),
    }
}
