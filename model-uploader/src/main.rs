//! `model-uploader`: gets ONNX models into an onnx-canister and answers out of it.

mod cli;

use clap::Parser;
use cli::arguments::Arguments;
use std::process::ExitCode;

const EXIT_FAILED: u8 = 1;
/// The same code that clap exits with.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = cli::output::Output::new(&arguments.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&error.into(), None);
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match runtime.block_on(cli::commands::run(arguments, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error, model_uploader::error::hint(&error));
            let is_usage = error.chain().any(|cause| cause.is::<model_uploader::error::UsageError>());
            ExitCode::from(if is_usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}
