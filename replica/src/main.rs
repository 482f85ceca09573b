//! The `replica` binary.

use clap::{Parser, Subcommand};
use replica::cli;

#[derive(Parser)]
#[command(name = "replica", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Count the instructions of one message.
    Meter(cli::meter::Arguments),
}

fn main() -> anyhow::Result<()> {
    match CommandLine::parse().command {
        Command::Meter(arguments) => cli::meter::run(arguments),
    }
}
