//! Arguments that borrow the message's bytes, which may be anything.
//!
//! What is not the method's argument is an error that says so. Little has been spent then: what decoding may do for a
//! message is bounded by the message's length, and what it may skip is bounded altogether, as for the other methods.

use crate::limits::{ARGUMENT_ERROR_CHARS_MAX, DECODING_PER_BYTE, SKIPPING_MAX};
use candid::de::IDLDeserialize;
use candid::{CandidType, DecoderConfig};
use onnx_canister_interface::Error;
use serde::Deserialize;

/// Decodes an argument that borrows the message's bytes.
pub fn decode_borrowed<'a, T: CandidType + Deserialize<'a>>(method: &str, bytes: &'a [u8]) -> Result<T, Error> {
    decode_one(bytes).map_err(|reason| Error::InvalidArgument {
        place: method.into(),
        value: format!("{} bytes", bytes.len()),
        reason,
    })
}

fn decode_one<'a, T: CandidType + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let mut config = DecoderConfig::new();
    config.set_decoding_quota(bytes.len().saturating_mul(DECODING_PER_BYTE).saturating_add(SKIPPING_MAX));
    config.set_skipping_quota(SKIPPING_MAX).set_full_error_message(false);
    let decoded = IDLDeserialize::new_with_config(bytes, &config).and_then(|mut arguments| {
        let value = arguments.get_value()?;
        arguments.done()?;
        Ok(value)
    });
    decoded.map_err(|error: candid::Error| {
        let reason: String = error.to_string().chars().take(ARGUMENT_ERROR_CHARS_MAX).collect();
        format!("the argument's {} bytes are not what this method takes in Candid: {reason}", bytes.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx_canister_interface::{Manifest, ModelRef, SettingsPatch};
    use serde::de::DeserializeOwned;

    fn refused<T: CandidType + DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
        let reason = decode_one::<T>(bytes).expect_err("it is no argument");
        assert!(reason.starts_with("the argument's ") && reason.chars().count() <= ARGUMENT_ERROR_CHARS_MAX + 100);
        reason
    }

    #[test]
    fn what_is_no_argument_is_refused_with_a_sentence() {
        let good = candid::encode_one(ModelRef { name: "m".into(), version: Some(1) }).expect("it encodes");
        assert_eq!(decode_one(&good), Ok(ModelRef { name: "m".into(), version: Some(1) }));
        for length in 1..good.len() {
            refused::<ModelRef>(&good[..length]);
        }
        refused::<ModelRef>(&[]);
        refused::<ModelRef>(b"DIDL");
        refused::<ModelRef>(b"not Candid at all");
        refused::<ModelRef>(&[good.as_slice(), b"x"].concat());
        refused::<ModelRef>(&candid::encode_one(7_u32).expect("it encodes"));
        refused::<Manifest>(&good);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        // 0xc0 0xaf is "/" in two bytes, which UTF-8 forbids; 0xed 0xa0 0x80 is half of a surrogate pair.
        for bytes in [&[0xc0, 0xaf][..], &[0xed, 0xa0, 0x80], &[0xff], &[0xf4, 0x90, 0x80, 0x80]] {
            let mut argument = b"DIDL\0\x01\x71".to_vec();
            argument.push(bytes.len() as u8);
            argument.extend(bytes);
            refused::<String>(&argument);
        }
    }

    #[test]
    fn bombs_are_bounded() {
        // vec null of 2^32 - 1 elements in a field that nobody asked for: four bytes a reader would count to for long.
        let bomb = b"DIDL\x02\x6d\x7f\x6c\x01\x00\x00\x01\x01\xff\xff\xff\xff\x0f";
        refused::<SettingsPatch>(bomb);
        // A type that contains itself, and a value nested as deep as the message is long.
        let mut deep = b"DIDL\x01\x6e\x00\x01\x00".to_vec();
        deep.extend([1; 100_000]);
        deep.push(0);
        refused::<SettingsPatch>(&deep);
        refused::<Option<SettingsPatch>>(&deep);
    }
}
