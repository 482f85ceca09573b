//! The system as native tests set it: counters that step, a caller, a balance, and calls to itself whose outcome a
//! test decides.
//!
//! Every thread has a system of its own, so tests don't meet. A test of an upgrade runs the second life of the canister
//! in a new thread that is given the stable memory of the first: the heap is then really lost.

use super::SelfCall;
use crate::jobs::{self, WorkId};
use candid::Principal;
use ic_stable_structures::{DefaultMemoryImpl, Memory};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// What a call of the canister to itself shall meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The step runs.
    Run,
    /// The step traps: it is rolled back whole, which natively means that it never runs.
    Trap(String),
    /// The canister is stopping, so the step is rejected.
    Stopping,
    CyclesLow,
    NotSent,
    /// The callback traps: the system drops what waits for it, in the cleanup that follows.
    CallbackTraps,
}

/// Something a test does just before a call of the canister to itself.
type BeforeCall = Box<dyn FnMut(&WorkId)>;

struct System {
    instructions: u64,
    instructions_step: u64,
    time_ns: u64,
    caller: Principal,
    controllers: Vec<Principal>,
    balance: u128,
    stopping: bool,
    heap_bytes: u64,
    heap_used_bytes: u64,
    timer_ns: u64,
    outcomes: VecDeque<Outcome>,
    before_call: Option<BeforeCall>,
    self_calls: u64,
    random: u64,
    stable: DefaultMemoryImpl,
}

impl Default for System {
    fn default() -> Self {
        Self {
            instructions: 0,
            instructions_step: 1_000,
            time_ns: 1_700_000_000_000_000_000,
            caller: controller(),
            controllers: vec![controller()],
            balance: 100_000_000_000_000,
            stopping: false,
            heap_bytes: 32 << 20,
            heap_used_bytes: 16 << 20,
            timer_ns: 0,
            outcomes: VecDeque::new(),
            before_call: None,
            self_calls: 0,
            random: 0,
            stable: DefaultMemoryImpl::default(),
        }
    }
}

thread_local! {
    static SYSTEM: RefCell<System> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut System) -> R) -> R {
    SYSTEM.with_borrow_mut(f)
}

/// The controller of the fake canister, who is also the caller until a test says otherwise.
pub fn controller() -> Principal {
    Principal::from_slice(&[1, 1])
}

/// A principal with no rights, one for each number.
pub fn stranger(number: u8) -> Principal {
    Principal::from_slice(&[2, number])
}

pub fn set_caller(caller: Principal) {
    with(|s| s.caller = caller);
}

/// Instructions that each look at the counter adds.
pub fn set_instructions_step(step: u64) {
    with(|s| s.instructions_step = step);
}

/// Begins a message: its instruction counter is 0.
pub fn begin_message() {
    with(|s| s.instructions = 0);
}

pub fn set_balance(balance: u128) {
    with(|s| s.balance = balance);
}

pub fn set_heap_used_bytes(bytes: u64) {
    with(|s| s.heap_used_bytes = bytes);
}

pub fn set_stopping(stopping: bool) {
    with(|s| s.stopping = stopping);
}

/// What the next calls of the canister to itself meet, in order; after them, and without any, steps run.
pub fn set_outcomes(outcomes: impl IntoIterator<Item = Outcome>) {
    with(|s| s.outcomes = outcomes.into_iter().collect());
}

pub fn set_before_call(f: impl FnMut(&WorkId) + 'static) {
    with(|s| s.before_call = Some(Box::new(f)));
}

/// Calls of the canister to itself so far.
pub fn self_calls() -> u64 {
    with(|s| s.self_calls)
}

/// When the timer fires, in nanoseconds since 1970; 0 when it isn't set.
pub fn timer_ns() -> u64 {
    with(|s| s.timer_ns)
}

/// Fires the timer in a message of its own if it is set; tells whether it was.
pub fn fire_timer() -> bool {
    let due = with(|s| std::mem::take(&mut s.timer_ns));
    if due == 0 {
        return false;
    }
    with(|s| s.time_ns = s.time_ns.max(due));
    begin_message();
    block_on(jobs::driver::timer_fired());
    true
}

/// Fires the timer until it isn't set any more.
///
/// # Panics
/// When that takes more than `limit` times.
pub fn run_timers(limit: u32) -> u32 {
    for fired in 0..limit {
        if !fire_timer() {
            return fired;
        }
    }
    panic!("the timer was still set after {limit} messages");
}

/// The bytes of stable memory, for a second life.
pub fn stable_image() -> Vec<u8> {
    let memory = with(|s| s.stable.clone());
    let mut bytes = vec![0; (memory.size() * crate::stable::PAGE_BYTES) as usize];
    memory.read(0, &mut bytes);
    bytes
}

/// Puts bytes into this thread's stable memory, as an upgrade finds them.
pub fn set_stable_image(bytes: &[u8]) {
    let memory = with(|s| s.stable.clone());
    let pages = (bytes.len() as u64).div_ceil(crate::stable::PAGE_BYTES);
    assert!(memory.grow(pages) >= 0, "a vector can grow");
    memory.write(0, bytes);
}

/// Runs `f` as the canister's life after an upgrade from this one: same stable memory, new heap.
pub fn after_upgrade<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let image = stable_image();
    let life = std::thread::spawn(move || {
        set_stable_image(&image);
        crate::lifecycle::post_upgrade(None);
        f()
    });
    match life.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Drives a future whose awaits never wait, as those of the fake don't.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the fake system's calls are answered at once"),
    }
}

/// Drives a future to a call whose callback traps, and drops it as the cleanup does.
pub fn run_to_trapped_callback<F: Future>(future: F) {
    let mut future = pin!(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "no callback trapped");
}

pub mod system {
    //! The same functions as on Wasm.
    use super::*;

    pub fn instructions() -> u64 {
        with(|s| {
            s.instructions += s.instructions_step;
            s.instructions
        })
    }

    pub fn time_ns() -> u64 {
        with(|s| s.time_ns)
    }

    pub fn caller() -> Principal {
        with(|s| s.caller)
    }

    pub fn self_id() -> Principal {
        Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    }

    pub fn is_controller(principal: &Principal) -> bool {
        with(|s| s.controllers.contains(principal))
    }

    pub fn cycle_balance() -> u128 {
        with(|s| s.balance)
    }

    pub fn is_stopping() -> bool {
        with(|s| s.stopping)
    }

    pub fn heap_bytes() -> u64 {
        with(|s| s.heap_bytes)
    }

    pub fn heap_used_bytes() -> u64 {
        with(|s| s.heap_used_bytes)
    }

    pub fn log(message: &str) {
        eprintln!("{message}");
    }

    pub fn stable_memory() -> DefaultMemoryImpl {
        with(|s| s.stable.clone())
    }

    pub fn set_timer(at_ns: u64) {
        with(|s| s.timer_ns = at_ns);
    }

    pub fn trap(message: &str) -> ! {
        panic!("{message}")
    }

    /// Another number each time, as bytes.
    pub async fn random() -> Result<Vec<u8>, String> {
        let number = with(|s| {
            s.random += 1;
            s.random
        });
        Ok(number.to_le_bytes().repeat(4))
    }

    /// Answers at once, by what the test set; a step that runs has a message of its own, and so has the callback.
    pub async fn call_self(work: &WorkId) -> SelfCall {
        if let Some(mut before) = with(|s| s.before_call.take()) {
            before(work);
            with(|s| {
                s.before_call.get_or_insert(before);
            });
        }
        let outcome = with(|s| {
            s.self_calls += 1;
            if s.stopping { Outcome::Stopping } else { s.outcomes.pop_front().unwrap_or(Outcome::Run) }
        });
        let caller = caller();
        begin_message();
        let answer = match outcome {
            Outcome::Run => {
                with(|s| s.caller = self_id());
                jobs::driver::run_step(work);
                SelfCall::Replied
            }
            Outcome::Trap(message) => SelfCall::Rejected { code: 5, message },
            Outcome::Stopping => {
                with(|s| s.stopping = true);
                SelfCall::Rejected { code: 5, message: "IC0509: the canister is stopping".into() }
            }
            Outcome::CallbackTraps => {
                with(|s| s.caller = self_id());
                jobs::driver::run_step(work);
                with(|s| s.caller = caller);
                std::future::pending().await
            }
            Outcome::CyclesLow => SelfCall::CyclesLow,
            Outcome::NotSent => SelfCall::NotSent,
        };
        with(|s| s.caller = caller);
        begin_message();
        answer
    }
}
