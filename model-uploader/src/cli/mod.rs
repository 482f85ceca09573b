//! The program around the library: arguments, commands, what is printed.

pub mod arguments;
pub mod commands;
mod generate_commands;
mod model_commands;
pub mod output;
mod run_commands;
