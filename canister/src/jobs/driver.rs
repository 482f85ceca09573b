//! What drives work that takes more than one message.
//!
//! A step runs in a message of its own, which the canister sends to itself. A trap in a step rolls that message back
//! and comes back as a reject, so the driver sees it, ends the work with an error and frees what it held. There are
//! two drivers, and a piece of work has one of them at a time:
//!
//! ```text
//! a waiting call:   update message -> step -> callback -> step -> callback -> ... -> reply
//! the timer:        timer message  -> step -> callback, which sets the timer again while work is left
//! ```
//!
//! A driver lets go of its work when its future is dropped, however that comes about, and sets the timer then. Heap
//! and timer are lost at an upgrade; `post_upgrade` finds the unfinished work in stable memory and sets the timer, and
//! so does every update that ends with work nobody drives.

use super::{JobId, WorkId, lease, pending};
use crate::limits::{CALL_END_INSTRUCTIONS, MESSAGE_END_INSTRUCTIONS, RETRY_DELAY_NS, TRAP_MESSAGE_CHARS_MAX};
use crate::loading;
use crate::runtime::{self, SelfCall};
use crate::store::{commit, models};
use onnx_canister_interface::Error;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

thread_local! {
    /// Work that a waiting call drives.
    static DRIVEN: RefCell<BTreeSet<WorkId>> = const { RefCell::new(BTreeSet::new()) };
    /// Whether the timer's driver is at work.
    static TIMER_AT_WORK: Cell<bool> = const { Cell::new(false) };
    /// What the timer worked on last: the next in order comes first, so that all work advances.
    static LAST: RefCell<Option<WorkId>> = const { RefCell::new(None) };
    /// Calls of the canister to itself that are open.
    static OPEN_CALLS: Cell<u32> = const { Cell::new(0) };
}

/// The network's reject code for a call that may succeed later (`SYS_TRANSIENT` of the interface specification).
const REJECT_TRANSIENT: u32 = 2;

/// Why a call stopped waiting for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The work has ended; how is in its record.
    Ended,
    /// The call's messages are used up, or the network doesn't take another now; the timer goes on.
    OutOfMessages,
    /// The canister is stopping; the work goes on after it.
    Interrupted,
}

/// What a step came to, as its driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepEnd {
    /// It ran, or it trapped and the work has ended for that.
    Ran,
    /// It didn't run and may later.
    Later,
    Interrupted,
}

/// Calls of the canister to itself that are open.
pub fn open_calls() -> u32 {
    OPEN_CALLS.get()
}

/// Whether a waiting call drives the work.
pub fn is_driven(work: &WorkId) -> bool {
    DRIVEN.with_borrow(|driven| driven.contains(work))
}

/// Runs one step: the body of the hidden update.
pub fn run_step(work: &WorkId) {
    match work {
        WorkId::Commit(key) => {
            if commit::is_pending(key) {
                commit::step(key);
            }
        }
        WorkId::Load(key) => loading::step(key),
        WorkId::Job(id) => super::step(*id),
    }
    // Last of all, so that it counts the whole message.
    charge(work, runtime::instructions());
}

/// Drives work whose first step ran in this message, until it has ended or `messages_max` messages have worked on it.
pub async fn wait(work: &WorkId, messages_max: u32) -> Waited {
    let _driver = CallDriver::begin(work);
    let mut messages = 1;
    loop {
        if !is_pending(work) {
            return Waited::Ended;
        }
        if messages >= messages_max {
            return Waited::OutOfMessages;
        }
        charge(work, runtime::instructions());
        if runtime::is_stopping() {
            interrupt(work);
            return Waited::Interrupted;
        }
        match step_in_own_message(work).await {
            StepEnd::Ran => {
                messages += 1;
                begin_callback(work, CALL_END_INSTRUCTIONS);
            }
            StepEnd::Later => return Waited::OutOfMessages,
            StepEnd::Interrupted => return Waited::Interrupted,
        }
    }
}

/// Drives one step of the work that is next: what the timer does.
pub async fn timer_fired() {
    if TIMER_AT_WORK.get() {
        return;
    }
    let Some(work) = next() else {
        return;
    };
    let mut driver = TimerDriver::begin();
    LAST.with_borrow_mut(|last| *last = Some(work.clone()));
    begin_message(&work, CALL_END_INSTRUCTIONS);
    charge(&work, runtime::instructions());
    match step_in_own_message(&work).await {
        StepEnd::Ran => {
            begin_callback(&work, MESSAGE_END_INSTRUCTIONS);
            // Setting the timer again is a part of what is counted.
            drop(driver);
            charge(&work, runtime::instructions());
        }
        StepEnd::Later | StepEnd::Interrupted => driver.delay_ns = RETRY_DELAY_NS,
    }
}

/// Sets the timer when there is work that nobody drives.
pub fn arm() {
    arm_after(0);
}

fn arm_after(delay_ns: u64) {
    if !TIMER_AT_WORK.get() && next().is_some() {
        runtime::set_timer(runtime::time_ns().saturating_add(delay_ns));
    }
}

async fn step_in_own_message(work: &WorkId) -> StepEnd {
    let outcome = {
        let _open = OpenCall::begin();
        runtime::call_self(work).await
    };
    match outcome {
        SelfCall::Replied => StepEnd::Ran,
        SelfCall::Rejected { .. } | SelfCall::NotSent if runtime::is_stopping() => {
            interrupt(work);
            StepEnd::Interrupted
        }
        SelfCall::NotSent | SelfCall::Rejected { code: REJECT_TRANSIENT, .. } => StepEnd::Later,
        SelfCall::Rejected { message, .. } => {
            let message = message.chars().take(TRAP_MESSAGE_CHARS_MAX).collect();
            fail(work, Error::Trapped { place: describe(work), message });
            StepEnd::Ran
        }
        SelfCall::CyclesLow => match work {
            WorkId::Job(id) => {
                super::fail(*id, &crate::health::cycles_low());
                StepEnd::Ran
            }
            WorkId::Commit(_) | WorkId::Load(_) => StepEnd::Later,
        },
    }
}

fn is_pending(work: &WorkId) -> bool {
    match work {
        WorkId::Commit(key) => commit::is_pending(key),
        WorkId::Load(key) => loading::is_pending(key),
        WorkId::Job(id) => super::is_pending(*id),
    }
}

/// Counts a message that is charged for the work, besides its steps, which count themselves, and what its end costs.
fn begin_message(work: &WorkId, end_instructions: u64) {
    match work {
        WorkId::Commit(_) => {}
        WorkId::Load(key) => loading::begin_message(key, end_instructions),
        WorkId::Job(id) => super::begin_message(*id, end_instructions),
    }
}

/// As [`begin_message`], for the callback after a step.
fn begin_callback(work: &WorkId, end_instructions: u64) {
    match work {
        WorkId::Job(id) => super::begin_callback(*id, end_instructions),
        _ => begin_message(work, end_instructions),
    }
}

fn charge(work: &WorkId, instructions: u64) {
    match work {
        WorkId::Commit(_) => {}
        WorkId::Load(key) => loading::charge(key, instructions),
        WorkId::Job(id) => super::charge(*id, instructions),
    }
}

/// Hashing and loading keep their place by themselves; a job is recorded as interrupted.
fn interrupt(work: &WorkId) {
    if let WorkId::Job(id) = work {
        super::interrupt(*id);
    }
}

fn fail(work: &WorkId, error: Error) {
    match work {
        WorkId::Commit(key) => commit::fail(key, error),
        WorkId::Load(key) => loading::fail(key, &error),
        WorkId::Job(id) => super::fail(*id, &error),
    }
}

fn describe(work: &WorkId) -> String {
    match work {
        WorkId::Commit(key) => format!("committing model '{}' version {}", key.name, key.version),
        WorkId::Load(key) => format!("loading model '{}' version {}", key.name, key.version),
        WorkId::Job(id) => match pending::with(*id, |job| format!("{:?}", job.state)) {
            Some(state) => format!("job {id} ({state})"),
            None => format!("job {id}"),
        },
    }
}

/// The work that the timer should advance next: the one after the last in order, from the beginning after the end.
fn next() -> Option<WorkId> {
    let commits = commit::pending().into_iter().map(WorkId::Commit);
    let loads = loading::pending().into_iter().map(WorkId::Load);
    let jobs = pending::ids().into_iter().filter(|id| can_run(*id)).map(WorkId::Job);
    let work: BTreeSet<WorkId> = commits.chain(loads).chain(jobs).filter(|work| !is_driven(work)).collect();
    let last = LAST.with_borrow(Clone::clone);
    let after = last.and_then(|last| work.iter().find(|work| **work > last).cloned());
    after.or_else(|| work.first().cloned())
}

/// Whether a job can take a step: nothing else holds its model, and that isn't being loaded.
fn can_run(id: JobId) -> bool {
    let Some(key) = pending::with(id, |job| job.key.clone()) else {
        return false;
    };
    let loading = models::record(&key).is_ok_and(|record| record.stage == models::Stage::Loading);
    !loading && lease::may_step(id)
}

/// Holds work for a waiting call; lets go of it when dropped.
struct CallDriver(WorkId);

impl CallDriver {
    fn begin(work: &WorkId) -> Self {
        DRIVEN.with_borrow_mut(|driven| driven.insert(work.clone()));
        Self(work.clone())
    }
}

impl Drop for CallDriver {
    fn drop(&mut self) {
        DRIVEN.with_borrow_mut(|driven| driven.remove(&self.0));
        arm();
    }
}

/// Marks the timer's driver as at work; sets the timer again when dropped.
struct TimerDriver {
    delay_ns: u64,
}

impl TimerDriver {
    fn begin() -> Self {
        TIMER_AT_WORK.set(true);
        Self { delay_ns: 0 }
    }
}

impl Drop for TimerDriver {
    fn drop(&mut self) {
        TIMER_AT_WORK.set(false);
        arm_after(self.delay_ns);
    }
}

/// Counts a call as open whose callback is still to come; also a trap in the callback closes it.
pub struct OpenCall;

impl OpenCall {
    pub fn begin() -> Self {
        OPEN_CALLS.set(OPEN_CALLS.get() + 1);
        Self
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        OPEN_CALLS.set(OPEN_CALLS.get().saturating_sub(1));
    }
}
