//! Jobs: paused, stopped, trapped, cancelled and starved at every step, and always the same bits or a typed error.

use crate::access::METHODS;
use crate::inference::Request;
use crate::jobs::{self, JobId, WorkId, driver, pending};
use crate::limits::{JOBS_FINISHED_MAX, MESSAGE_BUDGET_MIN};
use crate::runtime::fake::{self, Outcome, stranger};
use crate::store::versions;
use crate::testing::{chain_request, infer, life, make_chain, make_long_chain, model, start};
use crate::{lifecycle, settings};
use candid::Nat;
use onnx_canister_interface::{
    CallLimits, Error, InferenceAccess, JobInfo, JobResult, JobState, OutputPage, SettingsPatch,
};
use std::cell::Cell;
use std::panic::catch_unwind;
use std::rc::Rc;

/// Operators of the test model.
const OPERATORS: usize = 7;
/// Nodes that a run of it takes. `a_call_that_gives_up_leaves_a_job_that_goes_on` holds it against what the job itself
/// tells.
const NODES: usize = OPERATORS;

/// Makes every message run a single node: one look at the counter spends the least budget, and each look is beyond what
/// a message may have spent before a node that doesn't fit.
fn slow() {
    let patch = SettingsPatch { message_budget: Some(MESSAGE_BUDGET_MIN), ..Default::default() };
    settings::update(patch).expect("in range");
    fake::set_instructions_step(1_000_000);
}

fn set(patch: SettingsPatch) {
    settings::update(patch).expect("in range");
}

thread_local! {
    /// Calls that loading took.
    static LOAD_CALLS: Cell<u64> = const { Cell::new(0) };
}

fn poll(id: JobId) -> JobInfo {
    jobs::poll(id).expect("it is the caller's")
}

/// The outputs of a job that is done.
fn outputs(id: JobId) -> Vec<OutputPage> {
    match poll(id).state {
        JobState::Done(result) => match *result {
            JobResult::Infer(response) => response.outputs,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Runs `test` with a model that is ready and what it answers, one node a message.
fn with_slow_model(test: impl FnOnce(Vec<OutputPage>) + Send + 'static) {
    life(|| {
        make_long_chain("m", OPERATORS);
        LOAD_CALLS.set(fake::self_calls());
        let expected = infer(chain_request("m")).expect("it fits a message").outputs;
        assert_eq!(fake::self_calls(), LOAD_CALLS.get());
        slow();
        test(expected);
    });
}

#[test]
fn what_fits_a_message_needs_no_call_and_leaves_no_record() {
    life(|| {
        make_long_chain("m", OPERATORS);
        LOAD_CALLS.set(fake::self_calls());
        let response = infer(chain_request("m")).expect("it fits a message");
        assert_eq!((response.job, response.cost.messages), (None, 1));
        let first = response.outputs;
        assert_eq!(first[0].name, "y");
        assert_eq!((first[0].shape.as_slice(), first[0].size_bytes), (&[1, 4][..], 16));
        assert_eq!(fake::self_calls(), LOAD_CALLS.get());
        assert_eq!(jobs::poll(1), Err(Error::JobNotFound { job: 1 }));
        assert_eq!(infer(chain_request("m")).expect("it fits a message").outputs, first);
    });
}

#[test]
fn paused_at_every_node_gives_the_same_bits() {
    with_slow_model(|expected| {
        let response = infer(chain_request("m")).expect("within the call's messages");
        assert_eq!(response.outputs, expected);
        assert_eq!(
            response.cost.messages,
            1 + 2 * NODES as u32,
            "the first prepares the input; each node is a step and the callback that hears of it"
        );
        assert!(response.cost.instructions > response.cost.decode_instructions);
        assert_eq!(response.job, Some(1));
        assert_eq!(poll(1).cost.messages, response.cost.messages);
        assert_eq!((pending::count(), driver::open_calls(), fake::timer_ns()), (0, 0, 0));
    });
}

#[test]
fn stopped_at_every_message_it_begins_again_and_gives_the_same_bits() {
    for runs in 0..NODES {
        with_slow_model(move |expected| {
            let outcomes = vec![Outcome::Run; runs];
            fake::set_outcomes(outcomes.into_iter().chain([Outcome::Stopping]));
            assert_eq!(infer(chain_request("m")), Err(Error::Interrupted { job: 1 }));
            assert_eq!(poll(1).state, JobState::Interrupted);
            assert_eq!(driver::open_calls(), 0, "the canister can stop");
            assert_eq!(versions::delete(&model("m", 1)), Err(Error::Busy { job: 1 }));
            lifecycle::pre_upgrade();
            let after = expected.clone();
            fake::after_upgrade(move || {
                assert_eq!(poll(1).state, JobState::Interrupted);
                fake::run_timers(1_000);
                assert_eq!(outputs(1), after);
            });
            // Started again without an upgrade, it begins again as well.
            fake::set_stopping(false);
            fake::run_timers(1_000);
            assert_eq!(outputs(1), expected);
            assert_eq!(versions::delete(&model("m", 1)), Ok(()));
        });
    }
}

#[test]
fn upgraded_without_a_stop_it_begins_again_and_gives_the_same_bits() {
    for runs in 0..NODES as u32 {
        with_slow_model(move |expected| {
            let id = start(chain_request("m")).expect("it is queued");
            for _ in 0..runs {
                assert!(fake::fire_timer());
            }
            lifecycle::pre_upgrade();
            fake::after_upgrade(move || {
                fake::run_timers(1_000);
                assert_eq!(outputs(id), expected);
            });
        });
    }
}

#[test]
fn an_upgrade_is_refused_while_a_call_is_open() {
    with_slow_model(|_| {
        let refused = Rc::new(Cell::new(0));
        let seen = refused.clone();
        fake::set_before_call(move |_| {
            let panic = catch_unwind(lifecycle::pre_upgrade).expect_err("a call is open");
            let message = panic.downcast_ref::<String>().expect("a sentence");
            assert!(message.contains("1 open call(s)") && message.contains("stop the canister first"), "{message}");
            seen.set(seen.get() + 1);
        });
        infer(chain_request("m")).expect("within the call's messages");
        assert_eq!(refused.get(), NODES);
        lifecycle::pre_upgrade();
    });
}

#[test]
fn a_trap_at_any_step_ends_the_job_and_frees_the_model() {
    for runs in 0..NODES {
        with_slow_model(move |expected| {
            let outcomes = vec![Outcome::Run; runs];
            fake::set_outcomes(outcomes.into_iter().chain([Outcome::Trap("IC0502: trapped".into())]));
            match infer(chain_request("m")) {
                Err(Error::Trapped { place, message }) => {
                    assert!(place.starts_with("job 1"), "{place}");
                    assert_eq!(message, "IC0502: trapped");
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(poll(1).state, JobState::Failed(Error::Trapped { .. })));
            assert_eq!((pending::count(), driver::open_calls()), (0, 0));
            assert_eq!(infer(chain_request("m")).expect("the model is free").outputs, expected);
        });
    }
}

#[test]
fn a_trap_in_a_callback_lets_go_of_the_job_and_the_timer_ends_it() {
    for runs in 0..NODES - 1 {
        with_slow_model(move |expected| {
            let outcomes = vec![Outcome::Run; runs];
            fake::set_outcomes(outcomes.into_iter().chain([Outcome::CallbackTraps]));
            fake::begin_message();
            let request = Request::Infer(chain_request("m"));
            fake::run_to_trapped_callback(jobs::run(fake::controller(), request));
            assert_eq!(driver::open_calls(), 0);
            assert!(!driver::is_driven(&WorkId::Job(1)));
            assert_ne!(fake::timer_ns(), 0, "the timer drives it now");
            fake::run_timers(1_000);
            assert_eq!(outputs(1), expected);
            assert_eq!(versions::delete(&model("m", 1)), Ok(()));
        });
    }
    with_slow_model(|expected| {
        // The same when it is the timer's callback: the timer is set again.
        let id = start(chain_request("m")).expect("it is queued");
        fake::set_outcomes([Outcome::CallbackTraps]);
        fake::begin_message();
        fake::run_to_trapped_callback(driver::timer_fired());
        assert_eq!(driver::open_calls(), 0);
        fake::run_timers(1_000);
        assert_eq!(outputs(id), expected);
    });
}

#[test]
fn a_trap_that_the_timer_meets_ends_the_job_too() {
    with_slow_model(|expected| {
        let trapped = start(chain_request("m")).expect("it is queued");
        let next = start(chain_request("m")).expect("it is queued");
        fake::set_outcomes([Outcome::Run, Outcome::Trap("boom".into())]);
        fake::run_timers(1_000);
        assert!(matches!(poll(trapped).state, JobState::Failed(Error::Trapped { .. })));
        assert_eq!(outputs(next), expected);
    });
}

#[test]
fn a_call_that_gives_up_leaves_a_job_that_goes_on() {
    with_slow_model(|expected| {
        set(SettingsPatch { max_call_messages: Some(3), ..Default::default() });
        assert_eq!(infer(chain_request("m")), Err(Error::StillRunning { job: 1 }));
        assert_eq!(poll(1).state, JobState::Running { nodes_done: 2, nodes_total: NODES as u32 });
        assert_ne!(fake::timer_ns(), 0);
        assert_eq!(fake::run_timers(1_000), NODES as u32 - 2, "it goes on where it was");
        assert_eq!(outputs(1), expected);
    });
}

#[test]
fn cancelled_at_any_step_it_ends() {
    for step in 0..NODES {
        with_slow_model(move |_| {
            let mut calls = 0;
            fake::set_before_call(move |_| {
                if calls == step {
                    assert_eq!(jobs::cancel(1).expect("it is the caller's").state, JobState::Cancelled);
                }
                calls += 1;
            });
            assert_eq!(infer(chain_request("m")), Err(Error::Cancelled { job: 1 }));
            assert_eq!(poll(1).state, JobState::Cancelled);
            assert_eq!(jobs::cancel(1).expect("it stays so").state, JobState::Cancelled);
            assert_eq!(versions::delete(&model("m", 1)), Ok(()));
        });
    }
    life(|| assert_eq!(jobs::cancel(9), Err(Error::JobNotFound { job: 9 })));
}

#[test]
fn while_a_job_runs_its_model_is_held() {
    with_slow_model(|expected| {
        make_chain("other", 2);
        let second_version = {
            let onnx = crate::testing::onnx::chain(2);
            let files: [(&str, &[u8]); 1] = [("model.onnx", &onnx)];
            let manifest = crate::testing::manifest("m", &files, 1_000);
            let version = crate::testing::upload_all(&manifest, &files);
            crate::testing::commit("m", version).expect("good files");
            crate::loading::load(&model("m", version)).expect("it is committed");
            fake::run_timers(1_000);
            version
        };
        let queued = Rc::new(Cell::new(None));
        let queue = queued.clone();
        fake::set_before_call(move |_| {
            let busy = Error::Busy { job: 1 };
            if queue.get().is_none() {
                assert_eq!(versions::delete(&model("m", 1)), Err(busy.clone()));
                assert_eq!(versions::unload(&model("m", 1)), Err(busy.clone()));
                assert_eq!(versions::activate(&model("m", second_version)), Err(busy.clone()));
                assert_eq!(infer(chain_request("m")), Err(busy));
                queue.set(start(chain_request("m")).ok());
            }
        });
        assert_eq!(infer(chain_request("m")).expect("it holds the model").outputs, expected);
        let second = queued.get().expect("it was queued");
        assert_eq!(poll(second).state, JobState::Queued);
        fake::run_timers(1_000);
        assert_eq!(outputs(second), expected);
        assert!(versions::activate(&model("m", second_version)).is_ok());
        assert_eq!(versions::rollback("m"), Ok(1));
    });
}

#[test]
fn a_job_ends_at_its_limits() {
    with_slow_model(|_| {
        let limited = |max_messages, max_instructions| {
            let mut request = chain_request("m");
            request.limits = Some(CallLimits { max_messages, max_instructions });
            infer(request)
        };
        match limited(Some(3), None) {
            Err(Error::JobLimit { job: 1, messages: 3, reason, .. }) => assert!(reason.contains("3 messages")),
            other => panic!("{other:?}"),
        }
        match limited(None, Some(10_000_000)) {
            Err(Error::JobLimit { job: 2, instructions, reason, .. }) => {
                assert!(instructions >= 10_000_000 && reason.contains("10000000 instructions"));
            }
            other => panic!("{other:?}"),
        }
        let place = |result| match result {
            Err(Error::InvalidArgument { place, .. }) => place,
            other => panic!("{other:?}"),
        };
        assert_eq!(place(limited(Some(0), None)), "limits.max_messages");
        assert_eq!(place(limited(None, Some(u64::MAX))), "limits.max_instructions");
        assert_eq!(pending::count(), 0);
    });
}

#[test]
fn a_balance_that_runs_dry_is_a_typed_error_and_keeps_everything() {
    for runs in 0..NODES {
        with_slow_model(move |expected| {
            let mut calls = 0;
            fake::set_before_call(move |_| {
                if calls == runs {
                    fake::set_balance(1_000);
                }
                calls += 1;
            });
            match infer(chain_request("m")) {
                Err(Error::CyclesLow { balance, reserve }) => {
                    assert_eq!(balance, Nat::from(1_000_u32));
                    assert!(reserve > balance);
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(infer(chain_request("m")), Err(Error::CyclesLow { .. })));
            assert!(matches!(start(chain_request("m")), Err(Error::CyclesLow { .. })));
            fake::set_balance(u128::MAX);
            assert_eq!(infer(chain_request("m")).expect("there are cycles again").outputs, expected);
        });
    }
}

#[test]
fn a_call_that_the_network_does_not_take_is_tried_again() {
    with_slow_model(|expected| {
        fake::set_outcomes([Outcome::Run, Outcome::NotSent]);
        assert_eq!(infer(chain_request("m")), Err(Error::StillRunning { job: 1 }));
        fake::set_outcomes([Outcome::NotSent]);
        assert!(fake::fire_timer());
        assert!(fake::timer_ns() > crate::runtime::time_ns(), "it waits before it tries again");
        fake::run_timers(1_000);
        assert_eq!(outputs(1), expected);
        fake::set_outcomes([Outcome::CyclesLow]);
        assert!(matches!(infer(chain_request("m")), Err(Error::CyclesLow { .. })));
    });
}

#[test]
fn a_job_is_its_owner_s_and_the_controllers() {
    with_slow_model(|expected| {
        set(SettingsPatch { inference_access: Some(InferenceAccess::Everyone), ..Default::default() });
        fake::set_caller(stranger(1));
        let id = start(chain_request("m")).expect("everyone may");
        fake::set_caller(stranger(2));
        assert!(matches!(jobs::poll(id), Err(Error::NotAuthorized { .. })));
        assert!(matches!(jobs::cancel(id), Err(Error::NotAuthorized { .. })));
        fake::run_timers(1_000);
        fake::set_caller(stranger(1));
        assert_eq!(outputs(id), expected);
        fake::set_caller(fake::controller());
        assert_eq!(outputs(id), expected);
    });
}

#[test]
fn finished_jobs_are_forgotten_oldest_first() {
    with_slow_model(|_| {
        fake::set_instructions_step(1_000);
        let surplus = 3;
        for _ in 0..JOBS_FINISHED_MAX + surplus {
            start(chain_request("m")).expect("it is queued");
            fake::run_timers(1_000);
        }
        for id in 1..=surplus as u64 {
            assert_eq!(jobs::poll(id), Err(Error::JobNotFound { job: id }));
        }
        for id in surplus as u64 + 1..=(JOBS_FINISHED_MAX + surplus) as u64 {
            assert!(matches!(poll(id).state, JobState::Done(_)));
        }
    });
}

#[test]
fn every_method_that_runs_models_needs_the_right() {
    let methods = ["classify", "classify_query", "infer", "infer_query", "start_classify", "start_infer", "poll"];
    life(move || {
        fake::set_caller(stranger(1));
        for method in methods {
            assert!(METHODS.iter().any(|(name, _)| *name == method));
            assert!(matches!(crate::access::check(method), Err(Error::NotAuthorized { .. })), "{method}");
        }
    });
}
