//! Every limit of the canister, with its unit and the reason for its size, in one place.
//!
//! # Why no message reaches the network's instruction limit
//!
//! An update message may spend [`UPDATE_INSTRUCTIONS_MAX`]. Work is cut into pieces, and what a piece may cost is known
//! before it begins: the engine gives every graph node an upper bound, an image's pixels bound its decoding, hashing
//! and reading go in windows of 1 MiB.
//!
//! * A node begins only if its bound fits what is left of `message_budget`, which settings keep at most
//!   [`MESSAGE_BUDGET_MAX`]; or else in a message in which at most [`FRESH_INSTRUCTIONS_MAX`] were spent before it.
//!   The engine refuses a node whose bound is above [`NODE_INSTRUCTIONS_MAX`] with a typed error.
//! * An image is decoded at the start of a message. Its bytes and pixels bound what that costs (`image_cost`); one
//!   whose bound is above [`IMAGE_INSTRUCTIONS_MAX`] is refused with a typed error. Nodes follow in the same message
//!   only within the budget.
//! * A window of hashing or reading begins below the budget and costs at most [`WINDOW_INSTRUCTIONS_MAX`].
//! * The engine's indivisible phases (typing, optimising a graph) have a message of their own each, unless their graph is
//!   so small that several times what they cost fits what is left of the budget, so that the whole
//!   limit is theirs. Their cost grows with the number of nodes: 18e9 for the largest graph measured (SmolLM2-135M).
//! * What follows the last piece (storing a result, replying) costs at most [`TAIL_INSTRUCTIONS_MAX`].
//!
//! The compile-time assertions below add these up to less than the limit. A query may spend
//! [`QUERY_INSTRUCTIONS_MAX`]; every piece of it, the first too, begins only if its bound fits `query_budget`, and is
//! refused with a typed error otherwise.

use onnx_canister_interface::CHUNK_BYTES_MAX;

/// Instructions the network gives one update message, timer or callback.
pub const UPDATE_INSTRUCTIONS_MAX: u64 = 40_000_000_000;
/// Instructions the network gives one query.
pub const QUERY_INSTRUCTIONS_MAX: u64 = 5_000_000_000;

/// Instructions that a message may have spent when a node begins whose bound does not fit the budget.
pub const FRESH_INSTRUCTIONS_MAX: u64 = 1_000_000_000;
/// Upper bound of a node's instructions beyond which the engine refuses it.
pub const NODE_INSTRUCTIONS_MAX: u64 = 36_000_000_000;
/// Instructions that decoding, resizing and preparing an image may cost: larger images are refused.
pub const IMAGE_INSTRUCTIONS_MAX: u64 = 36_000_000_000;
/// Instructions that a window of hashing or reading may cost: at most 100 a byte, pages included.
pub const WINDOW_INSTRUCTIONS_MAX: u64 = 100 * HASH_WINDOW_BYTES as u64;
/// Instructions kept for what follows the last piece: storing a result, encoding and sending a reply. A reply of
/// 2 MiB costs 50 instructions a byte to send and about 10 to encode; a result of 64 MiB in stable memory about 4 a byte.
pub const TAIL_INSTRUCTIONS_MAX: u64 = 1_000_000_000;
/// Most of the budget that a model is given some of whose nodes are tract's: what these cost is known less well.
pub const TRACT_BUDGET_MAX: u64 = 30_000_000_000;

const _: () = assert!(
    MESSAGE_BUDGET_MAX + WINDOW_INSTRUCTIONS_MAX + TAIL_INSTRUCTIONS_MAX <= UPDATE_INSTRUCTIONS_MAX,
    "a message that ends at its budget"
);
const _: () = assert!(
    FRESH_INSTRUCTIONS_MAX + NODE_INSTRUCTIONS_MAX + TAIL_INSTRUCTIONS_MAX <= UPDATE_INSTRUCTIONS_MAX,
    "a message of one node"
);
const _: () = assert!(
    FRESH_INSTRUCTIONS_MAX + IMAGE_INSTRUCTIONS_MAX + TAIL_INSTRUCTIONS_MAX <= UPDATE_INSTRUCTIONS_MAX,
    "a message of one image"
);

/// Range of the setting `message_budget`. The least makes every message do a single piece of work, as tests do.
pub const MESSAGE_BUDGET_MIN: u64 = 1;
pub const MESSAGE_BUDGET_MAX: u64 = 38_800_000_000;
pub const MESSAGE_BUDGET_DEFAULT: u64 = 20_000_000_000;
/// Range of the setting `query_budget`.
pub const QUERY_BUDGET_MIN: u64 = 1;
pub const QUERY_BUDGET_MAX: u64 = QUERY_INSTRUCTIONS_MAX - QUERY_TAIL_INSTRUCTIONS_MAX;
pub const QUERY_BUDGET_DEFAULT: u64 = 4_500_000_000;
/// Instructions kept in a query for encoding and sending the reply.
pub const QUERY_TAIL_INSTRUCTIONS_MAX: u64 = 300_000_000;
const _: () = assert!(MESSAGE_BUDGET_DEFAULT <= MESSAGE_BUDGET_MAX && QUERY_BUDGET_DEFAULT <= QUERY_BUDGET_MAX);

/// Range of `max_call_messages`: clients stop waiting at 300 s, which 12 messages of 20e9 instructions approach.
pub const CALL_MESSAGES_MAX: u32 = 1_000;
pub const CALL_MESSAGES_DEFAULT: u32 = 12;
/// Messages and instructions of one job in all.
pub const JOB_MESSAGES_MAX: u32 = 1_000_000;
pub const JOB_MESSAGES_DEFAULT: u32 = 10_000;
pub const JOB_INSTRUCTIONS_MAX: u64 = 1_000_000_000_000_000;
pub const JOB_INSTRUCTIONS_DEFAULT: u64 = 2_000_000_000_000;
/// Cycles below which inference is refused, by default: with 100 MiB held, more than two months of storage.
pub const CYCLES_RESERVE_DEFAULT: u128 = 200_000_000_000;

/// Principals that a list in the settings may hold.
pub const PRINCIPALS_MAX: usize = 1_000;

/// Model names and versions in all; `list_models` reads every one of them in one query.
pub const MODEL_VERSIONS_MAX: u64 = 256;
/// Characters of a model's name.
pub const NAME_CHARS_MAX: usize = 64;
/// Files of one model: the ONNX file and its external data.
pub const FILES_MAX: usize = 256;
/// Bytes of a file's name.
pub const FILE_NAME_BYTES_MAX: usize = 512;
/// Bytes of all files of one model: what a 4 GiB heap could at most hold.
pub const MODEL_BYTES_MAX: u64 = 4 << 30;
/// Chunks of one model: their hashes alone are 1.92 MB of the message that carries the manifest.
pub const CHUNKS_MAX: u64 = 60_000;
/// Labels of one model, and the bytes of all of them.
pub const LABELS_MAX: usize = 100_000;
pub const LABELS_BYTES_MAX: usize = 1_500_000;
/// Bytes of a model's description.
pub const DESCRIPTION_BYTES_MAX: usize = 16_384;
/// Pixels along one side of the prepared image.
pub const IMAGE_SIDE_MAX: u32 = 4_096;

/// Steps of decoding that a message's argument may take for each of its bytes, as `candid` counts them: one byte of
/// a field or variant takes about 30 at most, its name included.
pub const DECODING_PER_BYTE: usize = 50;
/// Steps of decoding that may be spent on what an argument has beside what is asked for.
pub const SKIPPING_MAX: usize = 10_000;
/// Characters kept of a decoder's explanation, which can be as long as the argument.
pub const ARGUMENT_ERROR_CHARS_MAX: usize = 400;

/// Most bytes of one stable read or write: an operation that costs a whole 2e9 slice fails on the network.
pub const STABLE_IO_BYTES_MAX: usize = 64 << 20;
/// Bytes of stable memory that a message reads at most for loading a model, but for the last piece. The network lets a message
/// access 2 GiB of it, and blocks at the ends of pieces are counted each time they are read.
pub const LOAD_STABLE_BYTES_MAX: u64 = 1 << 30;
/// Bytes that `commit` hashes between two looks at the instruction counter.
pub const HASH_WINDOW_BYTES: usize = 1 << 20;
/// Stable memory that the network gives a canister at most, in bytes.
pub const STABLE_BYTES_MAX: u64 = 500 << 30;
/// Damages to stable memory that are remembered for `health`.
pub const DAMAGES_MAX: usize = 100;
/// Stable memory kept free for records while files, inputs and results are allocated.
pub const STABLE_HEADROOM_BYTES: u64 = 64 << 20;
const _: () = assert!(CHUNK_BYTES_MAX as usize <= STABLE_IO_BYTES_MAX && HASH_WINDOW_BYTES <= STABLE_IO_BYTES_MAX);

/// Wasm heap in bytes that a 32-bit canister can have.
pub const HEAP_BYTES_MAX: u64 = 4 << 30;
/// Heap kept free for requests and values while models are loaded, in bytes.
pub const HEAP_WORK_BYTES: u64 = 128 << 20;
/// Heap that loading takes at its peak as a multiple of the weights' bytes, in hundredths: the weights in the form that
/// their kernels read, each padded to whole panels.
pub const HEAP_LOAD_PERCENT: u64 = 105;

/// Characters of a staged input's key.
pub const INPUT_KEY_CHARS_MAX: usize = 64;
/// Staged inputs of one caller, and their bytes.
pub const INPUTS_PER_CALLER_MAX: u64 = 32;
pub const INPUTS_BYTES_PER_CALLER_MAX: u64 = 256 << 20;
/// Bytes of staged inputs of all callers.
pub const INPUTS_BYTES_MAX: u64 = 2 << 30;
/// Dimensions of a tensor.
pub const TENSOR_RANK_MAX: usize = 16;
/// Inputs, or chosen outputs, of one request.
pub const REQUEST_TENSORS_MAX: usize = 256;
/// Nodes that `profile` tells of, input shapes of each, and bytes of its name: together they fit a reply.
pub const PROFILE_NODES_MAX: usize = 4_096;
pub const PROFILE_SHAPES_MAX: usize = 8;
pub const PROFILE_NAME_BYTES_MAX: usize = 200;
/// Labels that `classify` returns when the request doesn't say, and at most.
pub const TOP_K_DEFAULT: u32 = 5;
pub const TOP_K_MAX: u32 = 1_000;

/// Tokens that a language model's context may have.
pub const CONTEXT_LENGTH_MAX: u32 = 1 << 17;
/// Bytes of a tokenizer or another file of text: it is parsed in one message, at some hundred instructions a byte.
pub const TEXT_FILE_BYTES_MAX: u64 = 64 << 20;
/// Generation sessions that are kept, of one caller and in all; the one that was used longest ago goes first.
pub const SESSIONS_PER_CALLER_MAX: usize = 32;
pub const SESSIONS_MAX: usize = 256;
/// Sessions whose keys and values stay on the heap between calls, and the bytes of all of them; those of others are
/// computed again when the session goes on.
pub const CACHES_MAX: usize = 16;
pub const CACHES_BYTES_MAX: u64 = 1 << 30;
/// Generations under way at one time, each with its keys and values on the heap; others wait in the queue, and a call that
/// would wait for its text is refused.
pub const GENERATIONS_MAX: usize = 16;
/// Messages of a conversation, and bytes of a prompt's text.
pub const CHAT_MESSAGES_MAX: usize = 1_000;
pub const PROMPT_BYTES_MAX: usize = 1 << 20;

/// Cycles that a message and an instruction cost on a 13-node subnet (mid 2026).
pub const CYCLES_PER_MESSAGE: u64 = 5_000_000;
pub const CYCLES_PER_INSTRUCTION: u64 = 1;

/// Jobs that wait or run at one time.
pub const JOBS_PENDING_MAX: usize = 256;
/// Finished jobs that are remembered; the oldest beyond are forgotten with their results.
pub const JOBS_FINISHED_MAX: usize = 64;
/// Bytes of one job's outputs in stable memory.
pub const JOB_RESULT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of output data in one reply: 2 MiB less what the rest of the reply may take.
pub const REPLY_DATA_BYTES_MAX: u64 = 1_900_000;

/// Nanoseconds after which a continuation that the network refused to queue is tried again.
pub const RETRY_DELAY_NS: u64 = 10_000_000_000;
/// Characters kept of a trap's message.
pub const TRAP_MESSAGE_CHARS_MAX: usize = 1_000;

/// What sending a reply costs beside its bytes (the type table of its Candid, mostly), and per byte (sending 50, encoding and copying the rest), in
/// instructions: added to the counter that `Cost` is read from before the reply exists.
pub const REPLY_INSTRUCTIONS: u64 = 1_510_000;
pub const REPLY_INSTRUCTIONS_PER_BYTE: u64 = 58;
/// What a node of a profile counts as in a reply, in bytes.
pub const PROFILE_NODE_BYTES: u64 = 150;
/// What the reply to `load`, with all that is known of the model, costs beyond [`REPLY_INSTRUCTIONS`], in instructions.
pub const LOAD_REPLY_INSTRUCTIONS: u64 = 690_000;
/// What a message of work costs beyond the counter's last reading in it, in instructions: leaving the executor, and in
/// one that waits for a step making the call.
pub const MESSAGE_END_INSTRUCTIONS: u64 = 13_000;
pub const CALL_END_INSTRUCTIONS: u64 = 28_000;
/// The same of a message of loading, which touches more pages when it puts its work away.
pub const LOAD_MESSAGE_END_INSTRUCTIONS: u64 = 93_000;
/// What storing the record of a job, or of a version that is ready, costs, in instructions: the record has the cost in it.
pub const JOB_END_INSTRUCTIONS: u64 = 570_000;
pub const LOAD_END_INSTRUCTIONS: u64 = 500_000;
/// What the callback costs that hears of a timer's last step, in instructions: it comes when the cost is already stored.
/// Nearly all of it is a first access or write of a dozen pages of 64 KiB; a full heap has more of them.
pub const CALLBACK_INSTRUCTIONS: u64 = 980_000;
