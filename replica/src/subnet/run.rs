//! One message on one canister: prepayment, execution, and what follows from its outcome.

use super::call_context::{CallContextId, Callback};
use super::canister::{Canister, LowMemoryHook};
use super::counters::MessageCost;
use super::errors;
use super::message::{Answer, CallResult, Origin, Output, Payload, Request, Response, Task};
use super::prices;
use super::types::{ErrorCode, Rejection};
use crate::execution::{EntryPoint, Environment, Message, Outcome, SystemInfo};
use candid::Principal;
use std::sync::Arc;

/// What every message of a round sees of its subnet.
#[derive(Clone, Debug)]
pub struct SubnetInfo {
    pub subnet_id: Principal,
    pub root_key_der: Arc<Vec<u8>>,
    pub time_ns: u64,
    pub benchmark: bool,
}

/// What executing something did.
#[derive(Debug, Default)]
pub struct Executed {
    pub output: Output,
    pub instructions: u64,
    pub slices: u32,
    /// Wasm ran; otherwise it was refused before.
    pub ran: bool,
}

impl Executed {
    fn refused(answer: Answer) -> Self {
        Executed { output: Output { requests: Vec::new(), responses: vec![answer] }, ..Executed::default() }
    }

    fn count(&mut self, outcome: &Outcome) {
        self.instructions += outcome.instructions;
        self.slices += outcome.slices;
        self.ran = true;
    }
}

/// A message that brings nothing but its argument.
pub fn plain_message(entry_point: EntryPoint, caller: Principal, argument: Vec<u8>) -> Message {
    Message {
        entry_point,
        caller,
        argument,
        reject: None,
        cycles_available: 0,
        cycles_refunded: 0,
        deadline_ns: 0,
        already_responded: false,
        call_context_instructions: 0,
    }
}

impl Canister {
    /// What the system API shows of this canister.
    pub fn environment(&self, info: &SubnetInfo, message: Message, instruction_limit: Option<u64>) -> Environment {
        let system = SystemInfo {
            canister_id: self.id,
            subnet_id: info.subnet_id,
            root_key: Arc::clone(&info.root_key_der),
            time_ns: info.time_ns,
            controllers: self.settings.controllers.iter().copied().collect(),
            status: self.status.number(),
            canister_version: self.version,
            cycle_balance: self.cycles,
            freezing_limit: self.freezing_limit(),
            call_reservation: prices::call_reservation() + prices::CALL_BASE,
            global_timer_ns: self.global_timer_ns,
            environment_variables: self.settings.environment_variables.clone(),
            data_certificate: None,
            wasm_memory_limit_bytes: self.settings.wasm_memory_limit_bytes,
            log_remaining_bytes: self.settings.log_memory_limit_bytes,
        };
        Environment { system, message, instruction_limit, in_composite_query: false }
    }

    /// Runs a message in replicated mode on the installed module, keeps its log and counts it; charges nothing.
    pub fn run(&mut self, info: &SubnetInfo, message: Message, instruction_limit: Option<u64>) -> Outcome {
        let environment = self.environment(info, message, instruction_limit);
        let outcome = match &mut self.code {
            Some(code) => code.instance.execute(environment),
            None => unreachable!("callers check that a module is installed"),
        };
        self.keep_outcome(info, &outcome);
        outcome
    }

    /// Takes log lines and counters of a replicated message over.
    pub fn keep_outcome(&mut self, info: &SubnetInfo, outcome: &Outcome) {
        let limit_bytes = self.settings.log_memory_limit_bytes;
        for line in &outcome.log.lines {
            self.log.append(info.time_ns, line.clone(), limit_bytes);
        }
        self.counters.instructions += outcome.instructions;
        self.counters.page_charge += outcome.page_charge;
        self.counters.messages += 1;
        self.counters.slices += u64::from(outcome.slices);
        self.counters.pages_dirtied += outcome.pages_dirtied;
        self.last_cost = MessageCost {
            instructions: outcome.instructions,
            page_charge: outcome.page_charge,
            slices: u64::from(outcome.slices),
            pages_dirtied: outcome.pages_dirtied,
            cycles: 0,
        };
    }

    /// Gives back what a message that prepaid `prepaid` instructions did not use.
    pub fn settle_execution(&mut self, prepaid: u64, used: u64) {
        let used = used.min(prepaid);
        self.cycles += prices::execution(prepaid) - prices::execution(used);
        self.counters.cycles.execution += prices::execution(used);
        self.last_cost.cycles = prices::execution(used);
    }

    /// Executes an update call, or a query call in replicated mode.
    pub fn execute_request(&mut self, info: &SubnetInfo, request: Request) -> Executed {
        let entry_point = match self.entry_point(&request.method) {
            Ok(entry_point) => entry_point,
            Err(rejection) => return Executed::refused(refuse(request, rejection)),
        };
        if let Err(missing) = self.withdraw(prices::execution(prices::MESSAGE_INSTRUCTIONS)) {
            let reveal = self.settings.controllers.contains(&request.origin.sender());
            let rejection = errors::out_of_cycles(&self.id, reveal.then_some(missing));
            return Executed::refused(refuse(request, rejection));
        }
        let message = Message {
            cycles_available: request.cycles,
            deadline_ns: request.origin.deadline_ns(),
            ..plain_message(entry_point, request.origin.sender(), request.argument)
        };
        let context = self.calls.open_context(request.origin, request.cycles);
        self.execute_in_new_context(info, context, message)
    }

    /// Executes what the system makes the canister do. A canister that can't prepay it does not do it.
    pub fn execute_task(&mut self, info: &SubnetInfo, task: Task) -> Executed {
        // A timer that fell due before the canister began to stop stays armed for when it starts again.
        if !self.is_running() {
            return Executed::default();
        }
        let (entry_point, export) = match task {
            Task::Heartbeat => (EntryPoint::Heartbeat, "canister_heartbeat"),
            Task::GlobalTimer => {
                // The timer is off once it fired, even when it traps or can't be paid.
                self.global_timer_ns = 0;
                (EntryPoint::GlobalTimer, "canister_global_timer")
            }
            Task::OnLowWasmMemory => {
                self.low_memory_hook = LowMemoryHook::Executed;
                (EntryPoint::OnLowWasmMemory, "canister_on_low_wasm_memory")
            }
        };
        if !self.exports(export) || self.withdraw(prices::execution(prices::MESSAGE_INSTRUCTIONS)).is_err() {
            return Executed::default();
        }
        let message = plain_message(entry_point, Principal::management_canister(), Vec::new());
        let context = self.calls.open_context(Origin::System, 0);
        self.execute_in_new_context(info, context, message)
    }

    /// Runs the first message of a context; its execution is prepaid.
    fn execute_in_new_context(&mut self, info: &SubnetInfo, context: CallContextId, message: Message) -> Executed {
        let mut executed = Executed::default();
        let outcome = self.run(info, message, None);
        executed.count(&outcome);
        self.settle_execution(prices::MESSAGE_INSTRUCTIONS, outcome.instructions);
        executed.output = self.finish_message(info, context, outcome);
        executed
    }

    /// Executes the callback that an answer belongs to.
    pub fn execute_response(&mut self, info: &SubnetInfo, response: Response) -> Executed {
        self.cycles += response.refund;
        // After its deadline a call was answered already.
        let Some(callback) = self.calls.take_callback(response.callback) else { return Executed::default() };
        let transmission = prices::response(response.payload.bytes()).min(callback.prepaid_transmission);
        self.cycles += callback.prepaid_transmission - transmission;
        self.counters.cycles.transmission += transmission;

        let Some(context) = self.calls.context(callback.context).cloned() else { return Executed::default() };
        if context.deleted || self.code.is_none() {
            self.cycles += callback.prepaid_execution;
            let rejection = errors::no_wasm_module(&self.id);
            let output = self.answer_context(callback.context, Some(Err(rejection)));
            return Executed { output, ..Executed::default() };
        }

        let (entry_point, argument, reject) = match response.payload {
            Payload::Reply(reply) => (EntryPoint::ReplyCallback(callback.on_reply), reply, None),
            Payload::Reject { code, message } => {
                (EntryPoint::RejectCallback(callback.on_reject), Vec::new(), Some((code as u32, message)))
            }
        };
        let message = Message {
            entry_point,
            caller: context.origin.sender(),
            argument,
            reject,
            cycles_available: context.cycles_available,
            cycles_refunded: response.refund,
            deadline_ns: context.origin.deadline_ns(),
            already_responded: context.responded,
            call_context_instructions: context.instructions,
        };
        let limit = prices::MESSAGE_INSTRUCTIONS * (100 - prices::CLEANUP_RESERVE_PERCENT) / 100;
        let mut executed = Executed::default();
        let mut outcome = self.run(info, message, Some(limit));
        executed.count(&outcome);
        if let (Err(_), Some(on_cleanup)) = (&outcome.result, callback.on_cleanup) {
            self.add_context_instructions(callback.context, outcome.instructions);
            let cleanup = Message {
                already_responded: true,
                call_context_instructions: context.instructions + outcome.instructions,
                ..plain_message(EntryPoint::Cleanup(on_cleanup), context.origin.sender(), Vec::new())
            };
            let left = prices::MESSAGE_INSTRUCTIONS.saturating_sub(outcome.instructions);
            let cleanup_outcome = self.run(info, cleanup, Some(left));
            executed.count(&cleanup_outcome);
            outcome.instructions = cleanup_outcome.instructions;
            match (&mut outcome.result, cleanup_outcome.result) {
                // What cleanup changed lasts, though its caller is told of the callback's trap.
                (_, Ok(effects)) => self.apply_effects(callback.context, &effects),
                (Err(trap), Err(cleanup_trap)) => {
                    trap.message = format!(
                        "{}\n\ncall_on_cleanup also failed:\n\nError from Canister {}: {}",
                        trap.message, self.id, cleanup_trap.message
                    );
                }
                (Ok(_), Err(_)) => {}
            }
        }
        let used = executed.instructions.min(prices::MESSAGE_INSTRUCTIONS);
        let cost = prices::execution(used).min(callback.prepaid_execution);
        self.cycles += callback.prepaid_execution - cost;
        self.counters.cycles.execution += cost;
        self.last_cost.cycles = cost;
        executed.output = self.finish_message(info, callback.context, outcome);
        executed
    }

    /// How a call to `method` enters the module in replicated mode.
    fn entry_point(&self, method: &str) -> Result<EntryPoint, Rejection> {
        match self.status {
            super::canister::Status::Running => {}
            super::canister::Status::Stopping(_) => return Err(errors::stopping(&self.id)),
            super::canister::Status::Stopped => return Err(errors::stopped(&self.id)),
        }
        let Some(code) = &self.code else { return Err(errors::no_wasm_module(&self.id)) };
        if code.module.has_export(&format!("canister_update {method}")) {
            Ok(EntryPoint::Update(method.to_string()))
        } else if code.module.has_export(&format!("canister_query {method}")) {
            Ok(EntryPoint::Query { method: method.to_string(), replicated: true })
        } else if code.module.has_export(&format!("canister_composite_query {method}")) {
            Err(errors::composite_in_replicated_mode(&self.id, method))
        } else {
            Err(errors::method_not_found(&self.id, "update", method))
        }
    }

    fn add_context_instructions(&mut self, context: CallContextId, instructions: u64) {
        if let Some(context) = self.calls.context_mut(context) {
            context.instructions += instructions;
        }
    }

    /// Applies a message's outcome to its context: effects, calls, answer.
    fn finish_message(&mut self, info: &SubnetInfo, context: CallContextId, outcome: Outcome) -> Output {
        self.add_context_instructions(context, outcome.instructions);
        match outcome.result {
            Err(trap) => {
                let rejection = errors::trapped(&self.id, trap);
                self.answer_context(context, Some(Err(rejection)))
            }
            Ok(mut effects) => {
                self.apply_effects(context, &effects);
                let mut requests = Vec::new();
                for call in std::mem::take(&mut effects.calls) {
                    requests.extend(self.make_call(info, context, call));
                }
                let result: Option<CallResult> = effects.response.map(|response| {
                    response.map_err(|message| Rejection::new(ErrorCode::CanisterRejectedMessage, message))
                });
                let mut output = match result {
                    Some(result) => self.respond(context, result),
                    None => self.answer_context(context, None),
                };
                output.requests = requests;
                output
            }
        }
    }

    /// What a message changes beside memories, calls and its answer.
    fn apply_effects(&mut self, context: CallContextId, effects: &crate::execution::Effects) {
        self.version += 1;
        if let Some(context) = self.calls.context_mut(context) {
            let accepted = effects.cycles_accepted.min(context.cycles_available);
            context.cycles_available -= accepted;
            self.cycles += accepted;
        }
        let burned = effects.cycles_burned.min(self.cycles);
        self.cycles -= burned;
        self.counters.cycles.burned += burned;
        if let Some(data) = &effects.certified_data {
            self.certified_data.clone_from(data);
        }
        if let Some(timer_ns) = effects.global_timer_ns {
            self.global_timer_ns = timer_ns;
        }
        self.check_low_memory();
    }

    /// Readies the low-memory hook when the heap came within the threshold of its limit.
    pub fn check_low_memory(&mut self) {
        const WASM32_HEAP_BYTES: u64 = 4 << 30;
        let limit = match self.settings.wasm_memory_limit_bytes {
            0 => WASM32_HEAP_BYTES,
            limit => limit.min(WASM32_HEAP_BYTES),
        };
        let heap = self.code.as_ref().map_or(0, |code| code.instance.heap_bytes());
        let is_low = limit.saturating_sub(heap) < self.settings.wasm_memory_threshold_bytes;
        self.low_memory_hook = match (is_low, self.low_memory_hook) {
            (false, _) => LowMemoryHook::ConditionNotSatisfied,
            (true, LowMemoryHook::ConditionNotSatisfied) => {
                if self.exports("canister_on_low_wasm_memory") {
                    self.tasks.push_front(Task::OnLowWasmMemory);
                }
                LowMemoryHook::Ready
            }
            (true, hook) => hook,
        };
    }

    /// Sets a call's cycles aside and opens its callback; a call that finds its queue full is answered at once.
    fn make_call(
        &mut self,
        info: &SubnetInfo,
        context: CallContextId,
        call: crate::execution::OutgoingCall,
    ) -> Option<Request> {
        let is_full = self.calls.open_to(&call.callee) >= prices::QUEUE_CAPACITY;
        // The executor let the call pass only if the balance holds these.
        let mut take = |cycles: u128| {
            let taken = cycles.min(self.cycles);
            self.cycles -= taken;
            taken
        };
        let cycles = take(call.cycles);
        let prepaid_transmission = take(prices::response(prices::MAX_RESPONSE_BYTES));
        let prepaid_execution = take(prices::execution(prices::MESSAGE_INSTRUCTIONS));
        if !is_full {
            let bytes = (call.method.len() + call.argument.len()) as u64;
            let fee = take(prices::request(bytes));
            self.counters.cycles.transmission += fee;
        }
        let deadline_ns = call.timeout_s.map_or(0, |timeout_s| {
            let timeout_s = u64::from(timeout_s.min(prices::MAX_CALL_TIMEOUT_S));
            info.time_ns.saturating_add(timeout_s * 1_000_000_000)
        });
        let callback = self.calls.open_callback(Callback {
            context,
            callee: call.callee,
            on_reply: call.on_reply,
            on_reject: call.on_reject,
            on_cleanup: call.on_cleanup,
            prepaid_transmission,
            prepaid_execution,
        });
        if is_full {
            let payload = Payload::from(Err(errors::queue_full(&call.callee)));
            self.responses.push_back(Response { callback, payload, refund: cycles });
            return None;
        }
        Some(Request {
            origin: Origin::Canister { caller: self.id, callback, deadline_ns },
            callee: call.callee,
            method: call.method,
            argument: call.argument,
            cycles,
            expiry_ns: (deadline_ns != 0).then_some(deadline_ns),
        })
    }

    /// Answers the context's caller, unless that happened before.
    fn respond(&mut self, id: CallContextId, result: CallResult) -> Output {
        let mut output = Output::default();
        if let Some(context) = self.calls.context_mut(id) {
            if !context.responded {
                context.responded = true;
                output.responses.push(Answer {
                    to: context.origin.clone(),
                    result,
                    refund: std::mem::take(&mut context.cycles_available),
                });
            }
            if context.open_calls == 0 {
                self.calls.remove_context(id);
            }
        }
        output
    }

    /// After a message without an answer of its own: a context that waits for nothing more is answered with
    /// `failure`, or with the error that it did not reply.
    fn answer_context(&mut self, id: CallContextId, failure: Option<CallResult>) -> Output {
        match self.calls.context(id) {
            Some(context) if context.open_calls == 0 => {
                let result = failure.unwrap_or_else(|| Err(errors::did_not_reply(&self.id)));
                self.respond(id, result)
            }
            _ => Output::default(),
        }
    }
}

/// The answer to a request that is not executed: its cycles go back.
pub fn refuse(request: Request, rejection: Rejection) -> Answer {
    Answer { to: request.origin, result: Err(rejection), refund: request.cycles }
}
