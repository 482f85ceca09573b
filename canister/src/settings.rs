//! What a controller can set, and the ranges.

use crate::limits::*;
use crate::stable::{Kind, directory};
use crate::store::manifest::invalid;
use candid::{Nat, Principal};
use onnx_canister_interface::{Error, HeapPolicy, InferenceAccess, Settings, SettingsPatch};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// The settings as they are kept: the interface's, with the reserve in a fixed width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub message_budget: u64,
    pub query_budget: u64,
    pub max_call_messages: u32,
    pub max_job_messages: u32,
    pub max_job_instructions: u64,
    pub cycles_reserve: u128,
    pub inference_access: InferenceAccess,
    pub uploaders: Vec<Principal>,
    #[serde(default = "heap_policy_default")]
    pub heap_policy: HeapPolicy,
}

/// What settings stand for that were stored before there was a choice.
fn heap_policy_default() -> HeapPolicy {
    HeapPolicy::Refuse
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            message_budget: MESSAGE_BUDGET_DEFAULT,
            query_budget: QUERY_BUDGET_DEFAULT,
            max_call_messages: CALL_MESSAGES_DEFAULT,
            max_job_messages: JOB_MESSAGES_DEFAULT,
            max_job_instructions: JOB_INSTRUCTIONS_DEFAULT,
            cycles_reserve: CYCLES_RESERVE_DEFAULT,
            inference_access: InferenceAccess::Controllers,
            uploaders: Vec::new(),
            heap_policy: heap_policy_default(),
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Stored>>> = const { RefCell::new(None) };
}

/// The settings now.
pub fn get() -> Rc<Stored> {
    CURRENT.with_borrow_mut(|current| {
        let read = || Rc::new(directory::get(Kind::Settings, &[]).unwrap_or_default());
        current.get_or_insert_with(read).clone()
    })
}

/// The settings as callers see them.
pub fn shown() -> Settings {
    let stored = get();
    Settings {
        message_budget: stored.message_budget,
        query_budget: stored.query_budget,
        max_call_messages: stored.max_call_messages,
        max_job_messages: stored.max_job_messages,
        max_job_instructions: stored.max_job_instructions,
        cycles_reserve: Nat::from(stored.cycles_reserve),
        inference_access: stored.inference_access.clone(),
        uploaders: stored.uploaders.clone(),
        heap_policy: stored.heap_policy,
    }
}

/// Changes the settings: all that the patch names, or nothing when one is out of its range.
pub fn update(patch: SettingsPatch) -> Result<Settings, Error> {
    let mut settings = Stored::clone(&get());
    if let Some(budget) = patch.message_budget {
        settings.message_budget = in_range("message_budget", budget, MESSAGE_BUDGET_MIN, MESSAGE_BUDGET_MAX)?;
    }
    if let Some(budget) = patch.query_budget {
        settings.query_budget = in_range("query_budget", budget, QUERY_BUDGET_MIN, QUERY_BUDGET_MAX)?;
    }
    if let Some(messages) = patch.max_call_messages {
        settings.max_call_messages = in_range("max_call_messages", messages, 1, CALL_MESSAGES_MAX)?;
    }
    if let Some(messages) = patch.max_job_messages {
        settings.max_job_messages = in_range("max_job_messages", messages, 1, JOB_MESSAGES_MAX)?;
    }
    if let Some(instructions) = patch.max_job_instructions {
        settings.max_job_instructions = in_range("max_job_instructions", instructions, 1, JOB_INSTRUCTIONS_MAX)?;
    }
    if let Some(reserve) = patch.cycles_reserve {
        let cycles = u128::try_from(reserve.0.clone());
        settings.cycles_reserve =
            cycles.map_err(|_| invalid("cycles_reserve", &reserve, format!("at most {}", u128::MAX)))?;
    }
    if let Some(access) = patch.inference_access {
        if let InferenceAccess::Principals(principals) = &access {
            check_principals("inference_access.principals", principals)?;
        }
        settings.inference_access = access;
    }
    if let Some(uploaders) = patch.uploaders {
        check_principals("uploaders", &uploaders)?;
        if uploaders.contains(&Principal::anonymous()) {
            let reason = "everyone can be anonymous: name principals";
            return Err(invalid("uploaders", Principal::anonymous(), reason));
        }
        settings.uploaders = uploaders;
    }
    if let Some(policy) = patch.heap_policy {
        settings.heap_policy = policy;
    }
    directory::set(Kind::Settings, &[], &settings);
    CURRENT.with_borrow_mut(|current| *current = Some(Rc::new(settings)));
    Ok(shown())
}

fn in_range<T: PartialOrd + ToString + Copy>(place: &str, value: T, least: T, most: T) -> Result<T, Error> {
    match value < least || value > most {
        true => Err(invalid(place, value, format!("{} to {}", least.to_string(), most.to_string()))),
        false => Ok(value),
    }
}

fn check_principals(place: &str, principals: &[Principal]) -> Result<(), Error> {
    match principals.len() > PRINCIPALS_MAX {
        true => Err(invalid(place, principals.len(), format!("at most {PRINCIPALS_MAX} principals"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake;

    #[test]
    fn a_patch_changes_what_it_names_and_outlives_an_upgrade() {
        let shown_before = shown();
        let patch = SettingsPatch {
            message_budget: Some(MESSAGE_BUDGET_MAX),
            cycles_reserve: Some(Nat::from(u128::MAX)),
            inference_access: Some(InferenceAccess::Principals(vec![fake::stranger(1)])),
            uploaders: Some(vec![fake::stranger(2)]),
            ..SettingsPatch::default()
        };
        let changed = update(patch).expect("all in range");
        assert_eq!(changed.message_budget, MESSAGE_BUDGET_MAX);
        assert_eq!(changed.query_budget, shown_before.query_budget);
        assert_eq!(fake::after_upgrade(shown), changed);
    }

    #[test]
    fn out_of_range_is_refused_and_nothing_is_changed() {
        let before = shown();
        let none = SettingsPatch::default;
        let many = || vec![fake::stranger(1); PRINCIPALS_MAX + 1];
        let cases = [
            ("message_budget", SettingsPatch { message_budget: Some(MESSAGE_BUDGET_MIN - 1), ..none() }),
            ("message_budget", SettingsPatch { message_budget: Some(MESSAGE_BUDGET_MAX + 1), ..none() }),
            ("query_budget", SettingsPatch { query_budget: Some(QUERY_BUDGET_MAX + 1), ..none() }),
            ("max_call_messages", SettingsPatch { max_call_messages: Some(0), ..none() }),
            ("max_job_messages", SettingsPatch { max_job_messages: Some(0), ..none() }),
            ("max_job_instructions", SettingsPatch { max_job_instructions: Some(0), ..none() }),
            (
                "cycles_reserve",
                SettingsPatch { cycles_reserve: Some(Nat::from(u128::MAX) + Nat::from(1_u8)), ..none() },
            ),
            (
                "inference_access.principals",
                SettingsPatch { inference_access: Some(InferenceAccess::Principals(many())), ..none() },
            ),
            ("uploaders", SettingsPatch { uploaders: Some(many()), ..none() }),
            ("uploaders", SettingsPatch { uploaders: Some(vec![Principal::anonymous()]), ..none() }),
        ];
        for (expected, patch) in cases {
            let patch = SettingsPatch { max_call_messages: patch.max_call_messages.or(Some(7)), ..patch };
            match update(patch) {
                Err(Error::InvalidArgument { place, .. }) => assert_eq!(place, expected),
                other => panic!("{expected}: {other:?}"),
            }
            assert_eq!(shown(), before);
        }
    }
}
