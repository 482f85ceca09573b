//! Arguments, and the help that describes them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use model_uploader::{DEFAULT_CONCURRENCY, LOCAL_NETWORK, RootKey};
use onnx_canister_interface::WeightForm;
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage.

Canister names are looked up in .icp/data/mappings, .icp/cache/mappings, .dfx and canister_ids.json, in this folder and
above. Identities are those of icp and dfx. The address of a network is what `icp network status` says, else what
dfx.json and networks.json say, else http://127.0.0.1:8000 for `local` (4943 in a project that only dfx knows).

Recipes need Python 3 with pip. What they fetch is kept in $ONNX_CANISTER_CACHE, else in onnx-canister in this user's
cache folder.";

/// Gets ONNX models into an onnx-canister, and answers out of it.
#[derive(Parser, Debug)]
#[command(version, about, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Common options")]
pub struct Global {
    /// Canister id, or its name in this project [default: the project's only one]
    #[arg(long, global = true, env = "ICP_CLI_CID", value_name = "ID|NAME")]
    pub canister: Option<String>,
    /// `local`, `ic`, or an environment of this project
    #[arg(long, global = true, env = "ICP_ENVIRONMENT", default_value = LOCAL_NETWORK, value_name = "NAME")]
    pub network: String,
    /// Address of the network, instead of the one that --network has
    #[arg(long, global = true, value_name = "URL")]
    pub replica_url: Option<String>,
    /// Identity of icp or dfx to call as [default: the one selected there, else anonymous]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["pem", "anonymous"])]
    pub identity: Option<String>,
    /// PEM file of the key to call with
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "anonymous")]
    pub pem: Option<PathBuf>,
    /// Call as the anonymous principal
    #[arg(long, global = true)]
    pub anonymous: bool,
    /// The network's root key in DER and hexadecimal, or `fetch` to ask the network for it
    /// [default: mainnet's own on mainnet, else fetch]
    #[arg(long, global = true, value_name = "HEX|fetch")]
    pub root_key: Option<RootKey>,
    /// Chunks in flight at once
    #[arg(long, global = true, value_name = "N", default_value_t = DEFAULT_CONCURRENCY as u16,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// Print one JSON object on standard output, and no progress
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show what an ONNX file holds, and whether the canister can run it
    Inspect {
        /// The ONNX file; external-data files are looked for beside it
        file: PathBuf,
    },
    /// Fetch a model by its recipe and convert it; print where it is
    Fetch {
        /// Name of the recipe; without it, list the recipes
        name: Option<String>,
        #[command(flatten)]
        recipes: RecipesFolder,
    },
    /// Make ONNX and tokenizer files of a GGUF file
    Import {
        /// The GGUF file: Llama, SmolLM or Qwen2, in F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K
        file: PathBuf,
        /// Folder to write to
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Upload a model, load it and make it active; the same command again completes what was interrupted
    ///
    /// The canister is asked what it lacks and only that is sent, so nothing is sent twice, whenever and wherever the
    /// upload was cut off.
    Upload(Upload),
    /// Ask a model for the labels of an image
    Classify {
        /// Name of the model
        model: String,
        /// A PNG or JPEG image, or the input tensor as .npy
        input: PathBuf,
        /// Labels to print, best first
        #[arg(long, value_name = "N", default_value_t = 5)]
        top: u32,
        #[command(flatten)]
        how: How,
    },
    /// Run a model on tensors
    Infer {
        /// Name of the model
        model: String,
        /// An input: NAME=FILE.npy, or NAME=FILE,TYPE,SHAPE for raw little-endian elements,
        /// as in x=x.bin,float32,1x3x224x224
        #[arg(long = "input", short, required = true, value_name = "NAME=FILE")]
        inputs: Vec<String>,
        /// Output to compute; repeat for more [default: all]
        #[arg(long = "output", short, value_name = "NAME")]
        outputs: Vec<String>,
        /// Write each output to this folder as NAME.npy
        #[arg(long, value_name = "DIR")]
        output_dir: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Run a model and show what each operator and node took
    Profile {
        /// Name of the model
        model: String,
        /// A PNG or JPEG image, or the input tensor as .npy; for other models give --input
        #[arg(required_unless_present = "inputs", conflicts_with = "inputs")]
        subject: Option<PathBuf>,
        /// An input, as for infer
        #[arg(long = "input", short, value_name = "NAME=FILE")]
        inputs: Vec<String>,
        /// Nodes to print, the dearest first
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
        /// Version [default: the active one]
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
    /// Let a language model go on with a text, shown as it comes
    Generate(Generate),
    /// Talk with a language model; without a message, one turn for each line of standard input
    Chat(Chat),
    /// List all models and their versions
    List,
    /// Show a model's versions: state, inputs, outputs, sizes
    Status {
        /// Name of the model [default: all]
        model: Option<String>,
    },
    /// Bring a committed version onto the heap
    Load(Version),
    /// Take a version off the heap; its files stay
    Unload(Version),
    /// Make a version the active one
    Activate(Version),
    /// Make the version that was active before the active one again
    Rollback {
        /// Name of the model
        model: String,
    },
    /// Delete a version, files and all
    Delete(Version),
    /// Show the canister's cycles, memory and work
    Health,
}

#[derive(Args, Debug)]
pub struct Version {
    /// Name of the model
    pub model: String,
    /// Version; may be left out where there is only one
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
}

#[derive(Args, Debug)]
pub struct How {
    /// Version [default: the active one]
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// Ask by query: free and quick, limited to 5e9 instructions, and vouched for by one node only
    #[arg(long)]
    pub query: bool,
}

#[derive(Args, Debug)]
pub struct Generate {
    /// Name of the model
    pub model: String,
    /// The text to go on with
    pub prompt: String,
    #[command(flatten)]
    pub sampling: SamplingArguments,
}

#[derive(Args, Debug)]
pub struct Chat {
    /// Name of the model
    pub model: String,
    /// What to say
    pub message: Option<String>,
    /// The system's message, before the first
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Session to go on with
    #[arg(long, value_name = "N", conflicts_with = "system")]
    pub session: Option<u64>,
    #[command(flatten)]
    pub sampling: SamplingArguments,
}

/// How a text is generated; what is left out is the canister's default.
#[derive(Args, Debug)]
pub struct SamplingArguments {
    /// Version [default: the active one]
    #[arg(long, value_name = "N")]
    pub version: Option<u32>,
    /// Tokens at most [default: what the context has room for]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Stop before this text; repeat for more
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// 0 takes the most probable token always [default: 0]
    #[arg(long, value_name = "X")]
    pub temperature: Option<f32>,
    /// Draw from this many tokens
    #[arg(long, value_name = "N")]
    pub top_k: Option<u32>,
    /// Draw from the most probable tokens of this probability together
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Draw from tokens at least this probable relative to the most probable
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Above 1 makes tokens of prompt and text less probable
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// Taken from a token's logit as often as the text has it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Taken from a token's logit if the text has it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// TOKEN=BIAS, added to the token's logit; repeat for more
    #[arg(long, value_name = "TOKEN=BIAS")]
    pub logit_bias: Vec<String>,
    /// Of the draws [default: the canister derives one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Wait in update calls rather than look at a job
    #[arg(long, conflicts_with = "query")]
    pub wait: bool,
    /// Ask by query: free, limited to 5e9 instructions, vouched for by one node only, and nothing is kept of it
    #[arg(long)]
    pub query: bool,
}

#[derive(Args, Debug)]
pub struct RecipesFolder {
    /// Folder of the recipes [default: models, here or above]
    #[arg(long, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum TaskArgument {
    /// One tensor or image in, class scores out
    Classify,
    /// Any tensors in and out
    Infer,
    /// A language model; give its context with --context-length, and tokenizer.json and its like with --external-data
    Generate,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum WeightsArgument {
    /// As the file has them; 4-bit weights stay 4-bit
    Stored,
    /// Float weights quantised to int8: a quarter of the memory, a third of the instructions, other answers
    Int8,
}

impl WeightsArgument {
    pub fn to_interface(self) -> WeightForm {
        match self {
            Self::Stored => WeightForm::Stored,
            Self::Int8 => WeightForm::Int8,
        }
    }
}

#[derive(Args, Debug)]
pub struct Upload {
    /// Name of a recipe; with --onnx, the model's name
    #[arg(required_unless_present = "onnx")]
    pub name: Option<String>,
    #[command(flatten)]
    pub recipes: RecipesFolder,
    /// Upload this ONNX file rather than a recipe's
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,
    /// A file of external data that the ONNX file names; repeat for more
    #[arg(long, value_name = "FILE", requires = "onnx")]
    pub external_data: Vec<PathBuf>,
    /// Name of the model [default: the recipe's name, else the file's]
    #[arg(long = "name", value_name = "NAME", id = "model_name")]
    pub model_name: Option<String>,
    /// What the model does [default: classify with --labels, else infer]
    #[arg(long, value_enum, requires = "onnx")]
    pub task: Option<TaskArgument>,
    /// The outputs of the classifier are probabilities already: apply no softmax
    #[arg(long, requires = "onnx")]
    pub no_softmax: bool,
    /// Tokens that a language model was made for
    #[arg(long, value_name = "N", requires = "onnx")]
    pub context_length: Option<u32>,
    /// Labels, one a line, the first that of class 0
    #[arg(long, value_name = "FILE", requires = "onnx")]
    pub labels: Option<PathBuf>,
    /// TOML file that says how an image becomes the input, as a recipe's [manifest.preprocessing]
    #[arg(long, value_name = "FILE", requires = "onnx")]
    pub preprocessing: Option<PathBuf>,
    /// Free text about the model
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// What weights become when the model is loaded [default: as the file has them, 4-bit ones as int8 if there is room]
    #[arg(long, value_enum)]
    pub weights: Option<WeightsArgument>,
    /// With --weights int8: tell how far the answers to these inputs change; NAME=FILE as for infer, several inputs of one
    /// sample with ; between them; repeat for more samples
    #[arg(long = "sample", value_name = "NAME=FILE[;...]")]
    pub samples: Vec<String>,
    /// Bytes of a chunk
    #[arg(long, value_name = "BYTES", default_value_t = onnx_canister_interface::CHUNK_BYTES_MAX)]
    pub chunk_bytes: u32,
    /// Store and verify only
    #[arg(long)]
    pub no_load: bool,
    /// Load, but leave the active version as it is
    #[arg(long)]
    pub no_activate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() -> Result<(), clap::Error> {
        let args = ["model-uploader", "--network", "ic", "upload", "m", "--concurrency", "8", "--json"];
        let parsed = Arguments::try_parse_from(args)?;
        assert_eq!((parsed.global.network.as_str(), parsed.global.concurrency, parsed.global.json), ("ic", 8, true));
        Ok(())
    }

    #[test]
    fn contradictions_are_refused() {
        for args in [
            vec!["upload"],
            vec!["upload", "m", "--labels", "x"],
            vec!["list", "--anonymous", "--identity", "a"],
            vec!["list", "--pem", "x", "--identity", "a"],
            vec!["list", "--root-key", "xyz"],
            vec!["list", "--concurrency", "0"],
            vec!["infer", "m"],
        ] {
            let all = std::iter::once("model-uploader").chain(args.iter().copied());
            assert!(Arguments::try_parse_from(all).is_err(), "{args:?}");
        }
    }
}
