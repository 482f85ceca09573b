//! The state machine with real canisters, written in the text format.

mod calls;
mod cycles;
mod install;
mod lifecycle;
mod persistence;
mod queries;
mod rounds;
mod snapshots;
mod system_canisters;

use super::errors;
use super::message::CallResult;
use super::*;
use candid::utils::ArgumentEncoder;
use ic_management_canister_types as ic00;

/// The canister that does one thing a method.
const CANISTER_WAT: &str = include_str!("canister.wat");
const START_NS: u64 = 1_700_000_000_000_000_000;
const T: u128 = 1_000_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn wasm() -> Vec<u8> {
    wat::parse_str(CANISTER_WAT).expect("the test canister's text is valid")
}

/// A subnet and a caller of it.
struct Net {
    subnet: Subnet,
    sender: Principal,
    next_message: u64,
}

impl Net {
    fn new() -> Self {
        Self::with_seed(7)
    }

    fn with_seed(seed: u8) -> Self {
        let config = SubnetConfig {
            seed: [seed; 32],
            cache_dir: None,
            start_time_ns: START_NS,
            benchmark: false,
            system_canisters: true,
            state_dir: None,
        };
        let subnet = Subnet::new(config).expect("a subnet starts");
        Net { subnet, sender: Principal::anonymous(), next_message: 0 }
    }

    /// A net with one canister of [`CANISTER_WAT`].
    fn with_canister() -> (Self, Principal) {
        let mut net = Self::new();
        let id = net.create_installed();
        (net, id)
    }

    fn create_installed(&mut self) -> Principal {
        let id = self.create(100 * T, None);
        self.install(id, ic00::CanisterInstallMode::Install, wasm(), vec![]).expect("the canister installs");
        id
    }

    fn create(&mut self, cycles: u128, settings: Option<ic00::CanisterSettings>) -> Principal {
        let args = ic00::ProvisionalCreateCanisterWithCyclesArgs {
            amount: Some(cycles.into()),
            settings,
            ..Default::default()
        };
        let reply = self.manage("provisional_create_canister_with_cycles", (args,)).expect("a canister is made");
        candid::decode_one::<ic00::CanisterIdRecord>(&reply).expect("its id is told").canister_id
    }

    fn install(&mut self, id: Principal, mode: ic00::CanisterInstallMode, wasm: Vec<u8>, arg: Vec<u8>) -> CallResult {
        let args =
            ic00::InstallCodeArgs { mode, canister_id: id, wasm_module: wasm, arg, sender_canister_version: None };
        let result = self.manage("install_code", (args,));
        self.settle();
        result
    }

    fn install_wat(&mut self, wat: &str) -> Principal {
        let id = self.create(100 * T, None);
        let wasm = wat::parse_str(wat).expect("the text is valid");
        self.install(id, ic00::CanisterInstallMode::Install, wasm, vec![]).expect("the canister installs");
        id
    }

    fn manage(&mut self, method: &str, args: impl ArgumentEncoder) -> CallResult {
        let argument = candid::encode_args(args).expect("arguments encode");
        self.call(Principal::management_canister(), method, argument)
    }

    fn about(&mut self, method: &str, canister_id: Principal) -> CallResult {
        self.manage(method, (ic00::CanisterIdRecord { canister_id },))
    }

    fn update_settings(&mut self, canister_id: Principal, settings: ic00::CanisterSettings) -> CallResult {
        self.manage(
            "update_settings",
            (ic00::UpdateSettingsArgs { canister_id, settings, sender_canister_version: None },),
        )
    }

    fn status(&mut self, id: Principal) -> ic00::CanisterStatusResult {
        let reply = self.about("canister_status", id).expect("the status is told");
        candid::decode_one(&reply).expect("the status decodes")
    }

    /// Submits a message and returns its id.
    fn submit(&mut self, id: Principal, method: &str, argument: Vec<u8>) -> Result<RequestId, Rejection> {
        self.next_message += 1;
        let mut message = [0; 32];
        message[..8].copy_from_slice(&self.next_message.to_be_bytes());
        self.subnet.submit(Ingress {
            id: message,
            sender: self.sender,
            canister_id: id,
            method: method.to_string(),
            argument,
            expiry_ns: self.subnet.time_ns() + 300 * SECOND_NS,
        })?;
        Ok(message)
    }

    /// The answer to a message, if it is there.
    fn answer(&self, message: &RequestId) -> Option<CallResult> {
        match &self.subnet.ingress_status(message)?.state {
            IngressState::Replied(reply) => Some(Ok(reply.clone())),
            IngressState::Rejected(rejection) => Some(Err(rejection.clone())),
            IngressState::Received | IngressState::Processing | IngressState::Done => None,
        }
    }

    /// Runs rounds until the message is answered.
    fn wait(&mut self, message: &RequestId) -> CallResult {
        for _ in 0..1000 {
            if let Some(answer) = self.answer(message) {
                return answer;
            }
            self.subnet.execute_round();
        }
        panic!("no answer within 1000 rounds")
    }

    fn call(&mut self, id: Principal, method: &str, argument: Vec<u8>) -> CallResult {
        let message = self.submit(id, method, argument)?;
        self.wait(&message)
    }

    fn query(&mut self, id: Principal, method: &str, argument: Vec<u8>) -> CallResult {
        self.subnet.query(QueryCall { sender: self.sender, canister_id: id, method: method.to_string(), argument })
    }

    /// Runs rounds until nothing waits and no canister is busy.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let summary = self.subnet.execute_round();
            let is_busy = self.subnet.canisters.keys().any(|id| self.subnet.is_busy(id));
            if summary.idle && !is_busy {
                return;
            }
        }
        panic!("not idle within 1000 rounds")
    }

    fn advance(&mut self, duration_ns: u64) {
        self.subnet.set_time_ns(self.subnet.time_ns() + duration_ns);
    }

    fn counter(&mut self, id: Principal) -> u64 {
        number(self.query(id, "get", vec![]))
    }

    /// The eight-byte words of the canister's memory: counter, cleanups, timers, heartbeats, refund (low, high).
    fn words(&mut self, id: Principal) -> Vec<u64> {
        let bytes = self.query(id, "counters", vec![]).expect("the query answers");
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
    }

    /// Keeps a canister from executing anything, as a message of many slices does.
    fn hold(&mut self, id: &Principal) {
        self.subnet.canisters.get_mut(id).expect("it exists").busy_until_round = u64::MAX;
    }

    fn release(&mut self, id: &Principal) {
        self.subnet.canisters.get_mut(id).expect("it exists").busy_until_round = 0;
    }

    fn canister(&self, id: &Principal) -> &Canister {
        &self.subnet.canisters[id]
    }

    fn cycles(&self, id: &Principal) -> u128 {
        self.subnet.cycles(id).expect("the canister exists")
    }
}

/// A reply of eight bytes as a number.
fn number(result: CallResult) -> u64 {
    u64::from_le_bytes(result.expect("a reply").try_into().expect("eight bytes"))
}

/// The argument of the test canister's `call` methods.
fn call_argument(cycles: u64, callee: &Principal, method: &str, payload: &[u8]) -> Vec<u8> {
    let callee = callee.as_slice();
    let mut argument = cycles.to_le_bytes().to_vec();
    argument.push(callee.len() as u8);
    argument.extend(callee);
    argument.push(method.len() as u8);
    argument.extend(method.as_bytes());
    argument.extend(payload);
    argument
}

/// The reject code and message that the test canister's reject callback replied.
fn rejected(result: CallResult) -> (u32, String) {
    let reply = result.expect("a reply");
    let (code, message) = reply.split_at(4);
    let code = u32::from_le_bytes(code.try_into().expect("four bytes"));
    (code, String::from_utf8(message.to_vec()).expect("text"))
}

fn error_code(result: CallResult) -> ErrorCode {
    result.expect_err("a rejection").error_code
}
