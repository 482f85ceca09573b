//! The message itself: argument, caller, reply, reject.

use super::state::{Kind, MessageState};
use super::{Word, fixed, sized};
use crate::execution::EntryPoint;
use crate::execution::failure::Failure;
use wasmtime::Linker;

const WITH_ARGUMENT: Kind = Kind::INIT
    .or(Kind::UPDATE)
    .or(Kind::REPLY)
    .or(Kind::COMPOSITE_REPLY)
    .or(Kind::REPLICATED_QUERY)
    .or(Kind::INSPECT)
    .or(Kind::QUERY)
    .or(Kind::COMPOSITE_QUERY);
const WITH_RESPONSE: Kind = Kind::UPDATE
    .or(Kind::REPLICATED_QUERY)
    .or(Kind::QUERY)
    .or(Kind::COMPOSITE_QUERY)
    .or(Kind::REPLY)
    .or(Kind::REJECT)
    .or(Kind::COMPOSITE_REPLY)
    .or(Kind::COMPOSITE_REJECT);
const WITH_CALLER: Kind = Kind::ALL.except(Kind::START);

impl MessageState {
    /// The method that inspect_message is asked about.
    fn inspected_method(&self) -> &[u8] {
        match &self.message.entry_point {
            EntryPoint::InspectMessage(method) => method.as_bytes(),
            _ => &[],
        }
    }

    fn reject_message(&self, method: &str) -> Result<&[u8], Failure> {
        self.only_in(method, Kind::REJECT.or(Kind::COMPOSITE_REJECT))?;
        Ok(self.message.reject.as_ref().map_or(&[], |(_, message)| message.as_bytes()))
    }

    fn check_not_responded(&self, text: &str) -> Result<(), Failure> {
        if self.message.already_responded || self.effects.response.is_some() {
            return Err(Failure::Toolchain(text.to_string()));
        }
        Ok(())
    }
}

pub(super) fn link<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    fixed!(linker, "msg_arg_data_size", |state| -> I {
        state.only_in("msg_arg_data_size", WITH_ARGUMENT)?;
        Ok(I::from_usize(state.message.argument.len()))
    });
    sized!(linker, "msg_arg_data_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("msg_arg_data_copy", WITH_ARGUMENT)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_arg_data_copy", "payload", &state.message.argument, range)
    });
    fixed!(linker, "msg_caller_size", |state| -> I {
        state.only_in("msg_caller_size", WITH_CALLER)?;
        Ok(I::from_usize(state.message.caller.as_slice().len()))
    });
    sized!(linker, "msg_caller_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("msg_caller_copy", WITH_CALLER)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_caller_copy", "id", state.message.caller.as_slice(), range)
    });
    // No way in gives a caller signed attributes, so there are none.
    fixed!(linker, "msg_caller_info_data_size", |state| -> I {
        state.only_in("msg_caller_info_data_size", WITH_CALLER)?;
        Ok(I::from_usize(0))
    });
    sized!(linker, "msg_caller_info_data_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("msg_caller_info_data_copy", WITH_CALLER)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_caller_info_data_copy", "data", &[], range)
    });
    fixed!(linker, "msg_caller_info_signer_size", |state| -> I {
        state.only_in("msg_caller_info_signer_size", WITH_CALLER)?;
        Ok(I::from_usize(0))
    });
    sized!(linker, "msg_caller_info_signer_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("msg_caller_info_signer_copy", WITH_CALLER)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_caller_info_signer_copy", "signer", &[], range)
    });
    fixed!(linker, "msg_reject_code", |state| -> u32 {
        let callbacks = Kind::REPLY.or(Kind::REJECT).or(Kind::COMPOSITE_REPLY).or(Kind::COMPOSITE_REJECT);
        state.only_in("msg_reject_code", callbacks)?;
        Ok(state.message.reject.as_ref().map_or(0, |(code, _)| *code))
    });
    fixed!(linker, "msg_reject_msg_size", |state| -> I {
        Ok(I::from_usize(state.reject_message("msg_reject_msg_size")?.len()))
    });
    sized!(linker, "msg_reject_msg_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_reject_msg_copy", "msg", state.reject_message("msg_reject_msg_copy")?, range)
    });
    fixed!(linker, "msg_method_name_size", |state| -> I {
        state.only_in("msg_method_name_size", Kind::INSPECT)?;
        Ok(I::from_usize(state.inspected_method().len()))
    });
    sized!(linker, "msg_method_name_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("msg_method_name_copy", Kind::INSPECT)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("msg_method_name_copy", "payload", state.inspected_method(), range)
    });
    fixed!(linker, "accept_message", |state| -> () {
        state.only_in("accept_message", Kind::INSPECT)?;
        if state.effects.accepted {
            return Err(Failure::Toolchain("ic0.accept_message: the function was already called.".to_string()));
        }
        state.effects.accepted = true;
        Ok(())
    });
    fixed!(linker, "msg_deadline", |state| -> u64 {
        state.only_in("msg_deadline", WITH_RESPONSE)?;
        Ok(state.message.deadline_ns)
    });

    sized!(linker, "msg_reply_data_append", bytes len.to_u64(), |state, source: I, len: I| -> () {
        state.only_in("msg_reply_data_append", WITH_RESPONSE)?;
        state.check_not_responded("ic0.msg_reply_data_append: the call is already replied.")?;
        let (len, limit) = (len.to_u64(), state.max_reply_bytes());
        let total = (state.reply.len() as u64).saturating_add(len);
        if total > limit {
            return Err(Failure::Contract(
                format!(
                    "ic0.msg_reply_data_append: application payload size ({total}) cannot be larger than {limit}."
                ),
                "Consider checking the response size and returning an error if it is too long.",
                "msg_reply_data_append-payload-too-large",
            ));
        }
        let bytes = state.read_heap("msg.reply", source.to_u64(), len)?;
        state.reply.extend_from_slice(&bytes);
        Ok(())
    });
    fixed!(linker, "msg_reply", |state| -> () {
        state.only_in("msg_reply", WITH_RESPONSE)?;
        state.check_not_responded("ic0.msg_reply: the call is already replied")?;
        state.effects.response = Some(Ok(std::mem::take(&mut state.reply)));
        Ok(())
    });
    sized!(linker, "msg_reject", bytes len.to_u64(), |state, source: I, len: I| -> () {
        state.only_in("msg_reject", WITH_RESPONSE)?;
        state.check_not_responded("ic0.msg_reject: the call is already replied")?;
        let (len, limit) = (len.to_u64(), state.max_reply_bytes());
        if len > limit {
            return Err(Failure::Contract(
                format!("ic0.msg_reject: application payload size ({len}) cannot be larger than {limit}."),
                "Try truncating the error messages that are too long.",
                "msg_reject-payload-too-large",
            ));
        }
        let bytes = state.read_heap("ic0.msg_reject", source.to_u64(), len)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::Toolchain("ic0.msg_reject: invalid UTF-8 string provided".to_string()))?;
        state.effects.response = Some(Err(text));
        Ok(())
    });
    Ok(())
}
