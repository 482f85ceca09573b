//! A canister made from text, for the tests of this directory.

use candid::Principal;
use replica::execution::{
    Effects, Engine, EntryPoint, Environment, Instance, InvalidModule, Message, Module, Outcome, StableMemory,
    SystemInfo, Trap,
};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(None).unwrap())
}

pub fn compile(wat: &str) -> Result<Module, InvalidModule> {
    Module::compile(engine(), &wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}\n{wat}")))
}

pub struct Canister {
    pub instance: Instance,
}

/// Cycles the test canisters have.
pub const BALANCE: u128 = 1_000_000_000_000;

pub fn environment(entry_point: EntryPoint) -> Environment {
    Environment {
        system: SystemInfo {
            canister_id: Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 1]),
            subnet_id: Principal::from_slice(&[9; 29]),
            root_key: Arc::new(vec![5; 133]),
            time_ns: 1_700_000_000_000_000_000,
            controllers: vec![Principal::from_slice(&[1, 2, 3])],
            status: 1,
            canister_version: 42,
            cycle_balance: BALANCE,
            freezing_limit: 1_000,
            call_reservation: 500,
            global_timer_ns: 4,
            environment_variables: BTreeMap::new(),
            data_certificate: None,
            wasm_memory_limit_bytes: 0,
            log_remaining_bytes: 4_096,
        },
        message: Message {
            entry_point,
            caller: Principal::anonymous(),
            argument: Vec::new(),
            reject: None,
            cycles_available: 0,
            cycles_refunded: 0,
            deadline_ns: 0,
            already_responded: false,
            call_context_instructions: 0,
        },
        instruction_limit: None,
        in_composite_query: false,
    }
}

pub fn update(method: &str) -> EntryPoint {
    EntryPoint::Update(method.to_string())
}

pub fn query(method: &str) -> EntryPoint {
    EntryPoint::Query { method: method.to_string(), replicated: false }
}

impl Canister {
    pub fn new(wat: &str) -> Canister {
        let module = compile(wat).unwrap_or_else(|error| panic!("{}\n{wat}", error.message));
        let instance = Instance::new(engine(), &module, StableMemory::new().unwrap()).unwrap();
        Canister { instance }
    }

    pub fn run(&mut self, entry_point: EntryPoint) -> Outcome {
        self.instance.execute(environment(entry_point))
    }

    pub fn run_with(&mut self, entry_point: EntryPoint, change: impl FnOnce(&mut Environment)) -> Outcome {
        let mut environment = environment(entry_point);
        change(&mut environment);
        self.instance.execute(environment)
    }

    pub fn update(&mut self, method: &str) -> Outcome {
        self.run(update(method))
    }

    pub fn query(&mut self, method: &str) -> Outcome {
        self.run(query(method))
    }
}

/// What a successful message did.
pub fn effects(outcome: Outcome) -> Effects {
    outcome.result.unwrap_or_else(|trap| panic!("{}: {}", trap.code.to_ic_string(), trap.message))
}

/// The bytes of a reply.
pub fn reply(outcome: Outcome) -> Vec<u8> {
    effects(outcome).response.expect("no response").expect("a reject")
}

/// The reply as a little-endian number.
pub fn reply_u64(outcome: Outcome) -> u64 {
    u64::from_le_bytes(reply(outcome).try_into().expect("8 bytes"))
}

/// Why a message failed.
pub fn trap(outcome: Outcome) -> Trap {
    outcome.result.expect_err("the message succeeded")
}

/// Checks code and a part of the text of a failure.
pub fn assert_trap(outcome: Outcome, code: &str, text: &str) {
    let trap = trap(outcome);
    assert!(
        trap.code.to_ic_string() == code && trap.message.contains(text),
        "expected {code} with {text:?}, got {}: {}",
        trap.code.to_ic_string(),
        trap.message
    );
}
