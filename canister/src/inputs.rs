//! Inputs too large for one message: put here in parts, used by name, private to their caller.

use crate::health;
use crate::jobs::lease;
use crate::limits::*;
use crate::memory::{self, Stable};
use crate::record;
use crate::store::blobs::{self, BlobId};
use crate::store::manifest::invalid;
use crate::tensors;
use candid::Principal;
use ic_stable_structures::StableBTreeMap;
use onnx_canister_interface::{CHUNK_BYTES_MAX, ElementType, Error, StagedInput};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use std::cell::RefCell;

/// [`onnx_canister_interface::PutInput`] with its bytes left where the message has them, which saves a copy.
#[derive(candid::CandidType, Deserialize)]
pub struct PutInputBorrowed<'a> {
    pub key: String,
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub offset_bytes: u64,
    #[serde(borrow)]
    pub data: &'a Bytes,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct InputRecord {
    element_type: ElementType,
    shape: Vec<u64>,
    size_bytes: u64,
    /// Bytes received from the start without a gap.
    received_bytes: u64,
    blob: BlobId,
}

/// A staged input on the heap.
pub struct Staged {
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

thread_local! {
    static INPUTS: RefCell<StableBTreeMap<Vec<u8>, Vec<u8>, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::INPUTS)));
}

/// Opens the map.
pub fn open() {
    INPUTS.with_borrow(|_| ());
}

/// The key in the map: the owner's length and bytes, then the input's key.
fn map_key(owner: &Principal, key: &str) -> Vec<u8> {
    let mut bytes = vec![owner.as_slice().len() as u8];
    bytes.extend_from_slice(owner.as_slice());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn check_key(key: &str) -> Result<(), Error> {
    match key.is_empty() || key.chars().count() > INPUT_KEY_CHARS_MAX {
        true => {
            let shown: String = key.chars().take(INPUT_KEY_CHARS_MAX).collect();
            Err(invalid("key", shown, format!("a key has 1 to {INPUT_KEY_CHARS_MAX} characters")))
        }
        false => Ok(()),
    }
}

fn get(owner: &Principal, key: &str) -> Option<InputRecord> {
    let bytes = INPUTS.with_borrow(|inputs| inputs.get(&map_key(owner, key)))?;
    Some(record::decode_own(&format!("staged input '{key}'"), &bytes))
}

fn set(owner: &Principal, key: &str, input: &InputRecord) {
    INPUTS.with_borrow_mut(|inputs| inputs.insert(map_key(owner, key), record::encode(input)));
}

/// Stores a part of an input. The first part reserves the room; a part that names another type or shape begins anew.
pub fn put(owner: &Principal, part: &PutInputBorrowed) -> Result<StagedInput, Error> {
    check_key(&part.key)?;
    if part.data.len() as u64 > u64::from(CHUNK_BYTES_MAX) {
        let reason = format!("a part has at most {CHUNK_BYTES_MAX} bytes");
        return Err(invalid("data", format!("{} bytes", part.data.len()), reason));
    }
    let size_bytes = tensors::size_bytes("shape", part.element_type, &part.shape)?;
    lease::check_input_free(owner, &part.key)?;
    let existing =
        get(owner, &part.key).filter(|input| input.element_type == part.element_type && input.shape == part.shape);
    let received_bytes = existing.as_ref().map_or(0, |input| input.received_bytes);
    if part.offset_bytes > received_bytes {
        let reason = format!("parts come in order: the next begins at {received_bytes}");
        return Err(invalid("offset_bytes", part.offset_bytes, reason));
    }
    let end = part.offset_bytes + part.data.len() as u64;
    if end > size_bytes {
        return Err(Error::TensorLength { name: part.key.clone(), expected_bytes: size_bytes, got_bytes: end });
    }
    let mut input = match existing {
        Some(input) => input,
        None => reserve(owner, part, size_bytes)?,
    };
    blobs::open(input.blob).write_at(part.offset_bytes, part.data);
    input.received_bytes = input.received_bytes.max(end);
    set(owner, &part.key, &input);
    Ok(StagedInput { key: part.key.clone(), size_bytes, received_bytes: input.received_bytes })
}

/// Makes room for a new input, or for one that takes the place of another.
fn reserve(owner: &Principal, part: &PutInputBorrowed, size_bytes: u64) -> Result<InputRecord, Error> {
    health::check_reserve()?;
    remove(owner, &part.key);
    let (mut own_count, mut own_bytes, mut all_bytes) = (0, 0, 0);
    let own_prefix = map_key(owner, "");
    INPUTS.with_borrow(|inputs| {
        for entry in inputs.iter() {
            let input: InputRecord = record::decode_own("a staged input", &entry.value());
            all_bytes += input.size_bytes;
            if entry.key().starts_with(&own_prefix) {
                own_count += 1;
                own_bytes += input.size_bytes;
            }
        }
    });
    let refuse = |reason: String| Err(invalid("shape", format!("{size_bytes} bytes"), reason));
    if own_count >= INPUTS_PER_CALLER_MAX {
        return refuse(format!("a caller has at most {INPUTS_PER_CALLER_MAX} staged inputs: delete one"));
    }
    if own_bytes + size_bytes > INPUTS_BYTES_PER_CALLER_MAX {
        return refuse(format!("a caller's staged inputs have at most {INPUTS_BYTES_PER_CALLER_MAX} bytes"));
    }
    if all_bytes + size_bytes > INPUTS_BYTES_MAX {
        return refuse(format!("all staged inputs have at most {INPUTS_BYTES_MAX} bytes"));
    }
    let blob = blobs::allocate(size_bytes)?.id();
    let (element_type, shape) = (part.element_type, part.shape.clone());
    Ok(InputRecord { element_type, shape, size_bytes, received_bytes: 0, blob })
}

/// Deletes a staged input, unless a job is to use it.
pub fn delete(owner: &Principal, key: &str) -> Result<(), Error> {
    check_key(key)?;
    lease::check_input_free(owner, key)?;
    match remove(owner, key) {
        true => Ok(()),
        false => Err(Error::InputNotFound { key: key.to_string() }),
    }
}

fn remove(owner: &Principal, key: &str) -> bool {
    match get(owner, key) {
        Some(input) => {
            blobs::free(input.blob);
            INPUTS.with_borrow_mut(|inputs| inputs.remove(&map_key(owner, key)));
            true
        }
        None => false,
    }
}

/// Checks that an input is there and complete.
pub fn check_complete(owner: &Principal, key: &str) -> Result<(), Error> {
    complete(owner, key).map(|_| ())
}

fn complete(owner: &Principal, key: &str) -> Result<InputRecord, Error> {
    let input = get(owner, key).ok_or_else(|| Error::InputNotFound { key: key.to_string() })?;
    match input.received_bytes == input.size_bytes {
        true => Ok(input),
        false => Err(Error::TensorLength {
            name: key.to_string(),
            expected_bytes: input.size_bytes,
            got_bytes: input.received_bytes,
        }),
    }
}

/// Brings a complete input to the heap.
pub fn read(owner: &Principal, key: &str) -> Result<Staged, Error> {
    let input = complete(owner, key)?;
    Ok(Staged { element_type: input.element_type, shape: input.shape, data: blobs::open(input.blob).read() })
}
