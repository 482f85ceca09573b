//! Who may call what.

use crate::runtime;
use crate::settings;
use candid::Principal;
use onnx_canister_interface::{Error, InferenceAccess};

/// What a method needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Nothing: anyone may look.
    Look,
    /// To run models, as the settings say. Controllers and uploaders always may.
    Infer,
    /// To upload and manage models: controllers and the uploaders they name.
    Write,
    /// To change settings: controllers.
    Control,
}

/// Every public method and its right; the endpoints and the ingress filter both read it.
pub const METHODS: &[(&str, Right)] = &[
    ("begin_upload", Right::Write),
    ("put_chunk", Right::Write),
    ("missing_chunks", Right::Look),
    ("commit", Right::Write),
    ("load", Right::Write),
    ("unload", Right::Write),
    ("activate", Right::Write),
    ("rollback", Right::Write),
    ("delete_model", Right::Write),
    ("list_models", Right::Look),
    ("model_info", Right::Look),
    ("classify", Right::Infer),
    ("classify_query", Right::Infer),
    ("infer", Right::Infer),
    ("infer_query", Right::Infer),
    ("profile", Right::Infer),
    ("generate", Right::Infer),
    ("generate_query", Right::Infer),
    ("start_generation", Right::Infer),
    ("delete_session", Right::Infer),
    ("put_input", Right::Infer),
    ("delete_input", Right::Infer),
    ("start_classify", Right::Infer),
    ("start_infer", Right::Infer),
    ("poll", Right::Infer),
    ("cancel", Right::Infer),
    ("read_output", Right::Infer),
    ("get_settings", Right::Look),
    ("update_settings", Right::Control),
    ("health", Right::Look),
    ("http_request", Right::Look),
];

impl Right {
    fn describe(self) -> &'static str {
        match self {
            Self::Look => "nothing",
            Self::Infer => "the right to infer (setting inference_access)",
            Self::Write => "a controller or an uploader (setting uploaders)",
            Self::Control => "a controller",
        }
    }
}

fn has(caller: &Principal, right: Right) -> bool {
    if right == Right::Look || runtime::is_controller(caller) {
        return true;
    }
    let settings = settings::get();
    let uploader = settings.uploaders.contains(caller);
    match right {
        Right::Look => true,
        Right::Control => false,
        Right::Write => uploader,
        Right::Infer => {
            uploader
                || match &settings.inference_access {
                    InferenceAccess::Controllers => false,
                    InferenceAccess::Principals(principals) => principals.contains(caller),
                    InferenceAccess::Everyone => true,
                }
        }
    }
}

/// Checks that the caller may call `method`, and gives the caller.
pub fn check(method: &str) -> Result<Principal, Error> {
    let caller = runtime::caller();
    // A method that the table lacks would be a controller's; a test holds the table against the service.
    let right = METHODS.iter().find(|(name, _)| *name == method).map_or(Right::Control, |(_, right)| *right);
    match has(&caller, right) {
        true => Ok(caller),
        false => Err(Error::NotAuthorized { caller, needs: right.describe().to_string() }),
    }
}

/// Checks that the caller may see what belongs to `owner`: its owner or a controller.
pub fn check_owner(owner: &Principal) -> Result<(), Error> {
    let caller = runtime::caller();
    match caller == *owner || runtime::is_controller(&caller) {
        true => Ok(()),
        false => Err(Error::NotAuthorized { caller, needs: "the job's owner or a controller".to_string() }),
    }
}

/// Whether an ingress message may enter. It keeps strangers from spending the canister's cycles; what a caller may do
/// is decided by [`check`] in the method itself, since calls by canisters and queries don't pass here. A method that
/// anyone may call as a query is for those with some right when it comes as an update, which costs cycles.
pub fn accepts_ingress(method: &str) -> bool {
    match METHODS.iter().find(|(name, _)| *name == method) {
        Some((_, Right::Look)) => has(&runtime::caller(), Right::Infer),
        Some((_, right)) => has(&runtime::caller(), *right),
        None => false,
    }
}

/// Lets only the canister itself in: the guard of the hidden step.
pub fn only_self() -> Result<(), String> {
    match runtime::caller() == runtime::self_id() {
        true => Ok(()),
        false => Err("only the canister itself may call this".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{self, controller, stranger};
    use onnx_canister_interface::SettingsPatch;

    fn rights_of(caller: Principal) -> Vec<Right> {
        let all = [Right::Look, Right::Infer, Right::Write, Right::Control];
        all.into_iter().filter(|right| has(&caller, *right)).collect()
    }

    #[test]
    fn rights_follow_the_settings() {
        assert_eq!(rights_of(controller()), [Right::Look, Right::Infer, Right::Write, Right::Control]);
        assert_eq!(rights_of(stranger(1)), [Right::Look]);
        let set = |access, uploaders| {
            let patch = SettingsPatch {
                inference_access: Some(access),
                uploaders: Some(uploaders),
                ..SettingsPatch::default()
            };
            settings::update(patch).expect("in range");
        };
        set(InferenceAccess::Principals(vec![stranger(1)]), vec![stranger(2)]);
        assert_eq!(rights_of(stranger(1)), [Right::Look, Right::Infer]);
        assert_eq!(rights_of(stranger(2)), [Right::Look, Right::Infer, Right::Write]);
        assert_eq!(rights_of(stranger(3)), [Right::Look]);
        set(InferenceAccess::Everyone, vec![]);
        assert_eq!(rights_of(Principal::anonymous()), [Right::Look, Right::Infer]);
    }

    #[test]
    fn a_refusal_names_the_caller_and_what_is_needed() {
        fake::set_caller(stranger(7));
        match check("put_chunk") {
            Err(Error::NotAuthorized { caller, needs }) => {
                assert_eq!(caller, stranger(7));
                assert!(needs.contains("uploader"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(check("list_models"), Ok(stranger(7)));
        assert!(check("no such method").is_err());
        assert!(only_self().is_err());
        fake::set_caller(runtime::self_id());
        assert_eq!(only_self(), Ok(()));
    }

    #[test]
    fn the_filter_lets_nothing_in_that_the_method_would_refuse() {
        for caller in [controller(), stranger(1)] {
            fake::set_caller(caller);
            for (method, _) in METHODS {
                assert!(!accepts_ingress(method) || check(method).is_ok(), "{method}");
            }
            assert!(!accepts_ingress(runtime::STEP_METHOD));
        }
        assert!(!accepts_ingress("list_models"), "a stranger looks by query");
        fake::set_caller(controller());
        assert!(accepts_ingress("list_models"));
    }
}
