//! The project's chores, as commands: `cargo xtask help` lists them.

mod build;
mod canbench;
mod demo;
mod kernels;
mod process;
mod size;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--keep] [--port N]   build everything, start the embedded replica, deploy the canister, upload
                             EfficientNet-Lite0, classify a photo and print what each step cost;
                             --keep leaves the network running until Ctrl-C
  test [FILTER]              build what the tests need and run all of them
  bench [--check] [--quick] [--large] [--shapes [PART]] [--file NAME=MODEL.onnx]
                             measure instructions per load and inference and write benches/RESULTS.md;
                             --check compares with the committed figures instead and fails on a regression;
                             --quick takes the models of the tests only, --large adds a synthetic one of
                             2 GiB, --shapes language models of larger shapes with random weights, --file one that
                             no recipe fetches
  bench-baseline [--file NAME=MODEL.onnx]
                             measure plain tract on the same models and write benches/baseline.json
  canbench [--persist]       run canbench over the canister's steps and compare with benches/canbench_results.yml;
                             --persist writes that file instead
  test-kernels               compare the bodies of all kernels inside Wasm, with simd128 and without, and check
                             what they cost (a part of test)
  bench-kernels [--check] [FILTER] | --write
                             instructions per multiply-accumulate of each kernel whose name contains FILTER;
                             --check fails when one costs more than it may, or not what it estimates itself;
                             --write puts all into benches/KERNELS.md
  build-canister             build target/wasm/onnx-canister.wasm and .wasm.gz, Candid metadata included
  conformance [--update] [--verbose] [FILTER]
                             run the onnx package's backend node cases on the engine and compare with
                             conformance/manifest.txt; --update writes that file, FILTER runs some cases only
  reproducible               build the last commit's canister in a second folder and compare the Wasm
  size                       code bytes of the built canister by crate
  fuzz-seeds [FOLDER...]     files for the fuzzers to begin with, into fuzz/corpus; ONNX files and images of the
                             folders too (see fuzz/README.md)
  lint                       rustfmt and clippy over the whole workspace
  help                       this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.split_first() {
        Some((&"demo", rest)) => demo::demo(rest),
        Some((&"test", rest)) => test::test(rest),
        Some((&"bench", rest)) => test::bench(rest),
        Some((&"bench-baseline", rest)) => test::bench_baseline(rest),
        Some((&"canbench", rest)) => canbench::run_benchmarks(rest),
        Some((&"build-canbench", [])) => canbench::build(),
        Some((&"test-kernels", [])) => kernels::test_alone(),
        Some((&"bench-kernels", rest)) => kernels::bench(rest),
        Some((&"conformance", rest)) => test::conformance(rest),
        Some((&"build-canister", [])) => build::canister().map(|_| ()),
        Some((&"reproducible", [])) => build::check_reproducible(),
        Some((&"size", [])) => size::print_ledger(),
        Some((&"fuzz-seeds", rest)) => test::fuzz_seeds(rest),
        Some((&"lint", [])) => test::lint(),
        Some((&("help" | "--help" | "-h"), _)) | None => {
            print!("{HELP}");
            Ok(())
        }
        Some((other, _)) => Err(format!("no command '{other}', or it takes no such argument\n\n{HELP}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
