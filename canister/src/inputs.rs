//! Inputs too large for one message: put here in parts, used by name, private to their caller.

use crate::health;
use crate::jobs::lease;
use crate::limits::*;
use crate::stable::{Blob, Kind, directory};
use crate::store::manifest::{check_identifier, invalid};
use crate::tensors;
use candid::Principal;
use onnx_canister_interface::{CHUNK_BYTES_MAX, ElementType, Error, StagedInput};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

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

/// An input as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InputRecord {
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub size_bytes: u64,
    /// Bytes received from the start without a gap.
    pub received_bytes: u64,
    pub blob: Blob,
}

/// A staged input on the heap.
pub struct Staged {
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

/// The key of its record: the owner's length and bytes, then the input's key.
fn map_key(owner: &Principal, key: &str) -> Vec<u8> {
    let mut bytes = vec![owner.as_slice().len() as u8];
    bytes.extend_from_slice(owner.as_slice());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

fn check_key(key: &str) -> Result<(), Error> {
    check_identifier("key", key, INPUT_KEY_CHARS_MAX)
}

fn get(owner: &Principal, key: &str) -> Option<InputRecord> {
    directory::get(Kind::Input, &map_key(owner, key))
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
    // What came before stays as it is: its checksums are made, and a job may have been started with it.
    check_same(&input, part)?;
    let known = (input.received_bytes.min(end) - part.offset_bytes) as usize;
    let new = &part.data[known..];
    if !new.is_empty() {
        input.blob.write_at(input.received_bytes, new);
        input.blob.sum_written(input.received_bytes, end);
        input.received_bytes = end;
    }
    directory::set(Kind::Input, &map_key(owner, &part.key), &input);
    Ok(StagedInput { key: part.key.clone(), size_bytes, received_bytes: input.received_bytes })
}

/// Refuses a part that differs from what has been received.
fn check_same(input: &InputRecord, part: &PutInputBorrowed) -> Result<(), Error> {
    let known = input.received_bytes.saturating_sub(part.offset_bytes).min(part.data.len() as u64) as usize;
    let mut stored = vec![0; known];
    input.blob.read_unchecked(part.offset_bytes, &mut stored);
    match stored.iter().zip(part.data.iter()).position(|(stored, given)| stored != given) {
        Some(at) => {
            let reason = "the input has other bytes from there on: delete it to begin anew";
            Err(invalid("data", format!("byte {}", part.offset_bytes + at as u64), reason))
        }
        None => Ok(()),
    }
}

/// Makes room for a new input, or for one that takes the place of another.
fn reserve(owner: &Principal, part: &PutInputBorrowed, size_bytes: u64) -> Result<InputRecord, Error> {
    health::check_reserve()?;
    remove(owner, &part.key);
    let (mut own_count, mut own_bytes, mut all_bytes) = (0, 0, 0);
    let own_prefix = map_key(owner, "");
    for key in directory::keys(Kind::Input, &[]) {
        let Some(input) = directory::get::<InputRecord>(Kind::Input, &key) else { continue };
        all_bytes += input.size_bytes;
        if key.starts_with(&own_prefix) {
            own_count += 1;
            own_bytes += input.size_bytes;
        }
    }
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
    let blob = Blob::allocate(size_bytes)?;
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
            directory::remove(Kind::Input, &map_key(owner, key));
            input.blob.free();
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
    let data = input.blob.read().map_err(|damage| damage.error(format!("staged input '{key}'")))?;
    Ok(Staged { element_type: input.element_type, shape: input.shape, data })
}
