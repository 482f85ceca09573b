//! Query calls: outside of consensus, on the current state, leaving nothing behind.

use super::Subnet;
use super::canister::Status;
use super::errors;
use super::message::{CallResult, Payload};
use super::prices;
use super::run::plain_message;
use super::types::{ErrorCode, QueryCall, Rejection};
use crate::execution::{EntryPoint, Environment, Message, OutgoingCall};
use candid::Principal;
use std::collections::VecDeque;

/// The budget of a composite query's call graph.
struct CallGraph {
    instructions_left: u64,
    /// Canisters that a query call is open in: each at most once.
    stack: Vec<Principal>,
}

impl Subnet {
    /// A query call, composite ones and those of the management canister included.
    pub fn query(&mut self, call: QueryCall) -> Result<Vec<u8>, Rejection> {
        if call.canister_id == Principal::management_canister() {
            return self.query_management(&call);
        }
        if self.is_system_canister(&call.canister_id) {
            return self.query_system(&call);
        }
        let id = call.canister_id;
        self.check_queryable(&id)?;
        let Some(canister) = self.canisters.get(&id) else { return Err(errors::canister_not_found(&id)) };
        if canister.exports(&format!("canister_query {}", call.method)) {
            let environment = self.query_environment(&id, &call)?;
            let Some(code) = self.canisters.get_mut(&id).and_then(|canister| canister.code.as_mut()) else {
                return Err(errors::no_wasm_module(&id));
            };
            return match code.instance.execute(environment).result {
                Ok(effects) => answer_of(&id, effects.response),
                Err(trap) => Err(errors::trapped(&id, trap)),
            };
        }
        if canister.exports(&format!("canister_composite_query {}", call.method)) {
            let mut graph = CallGraph { instructions_left: self.query_instructions(), stack: Vec::new() };
            return self.composite_query(&mut graph, call);
        }
        Err(errors::method_not_found(&id, "query", &call.method))
    }

    fn query_instructions(&self) -> u64 {
        if self.info.benchmark { prices::BENCHMARK_QUERY_INSTRUCTIONS } else { prices::QUERY_INSTRUCTIONS }
    }

    /// The canister exists, runs, has a module and is not frozen.
    fn check_queryable(&self, id: &Principal) -> Result<(), Rejection> {
        let canister = self.canisters.get(id).ok_or_else(|| errors::canister_not_found(id))?;
        match canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(errors::stopping(id)),
            Status::Stopped => return Err(errors::stopped_query(id)),
        }
        if canister.code.is_none() {
            return Err(errors::no_wasm_module(id));
        }
        if canister.cycles < canister.freezing_limit() {
            return Err(errors::frozen_query(id));
        }
        Ok(())
    }

    fn query_environment(&mut self, id: &Principal, call: &QueryCall) -> Result<Environment, Rejection> {
        let info = self.info.clone();
        let limit = self.query_instructions();
        let canister = self.canisters.get(id).ok_or_else(|| errors::canister_not_found(id))?;
        let entry_point = EntryPoint::Query { method: call.method.clone(), replicated: false };
        let message = plain_message(entry_point, call.sender, call.argument.clone());
        let mut environment = canister.environment(&info, message, Some(limit));
        if canister.code.as_ref().is_some_and(|code| code.wants_certificate) {
            let path = vec![b"canister".to_vec(), id.as_slice().to_vec(), b"certified_data".to_vec()];
            environment.system.data_certificate = Some(self.certificate(&[path]));
        }
        Ok(environment)
    }

    /// Runs a query method and the queries that it calls, depth first; every heap is as before afterwards.
    fn composite_query(&mut self, graph: &mut CallGraph, call: QueryCall) -> CallResult {
        let id = call.canister_id;
        if graph.stack.contains(&id) {
            let message = format!("Canister {id} has an open query call in this call graph already: loops are refused");
            return Err(Rejection::new(ErrorCode::QueryCallGraphLoopDetected, message));
        }
        if graph.stack.len() >= prices::QUERY_CALL_DEPTH {
            let message =
                format!("Composite query calls exceeded the maximum call depth ({}).", prices::QUERY_CALL_DEPTH);
            return Err(Rejection::new(ErrorCode::QueryCallGraphTooDeep, message));
        }
        self.check_queryable(&id)?;
        let Some(canister) = self.canisters.get_mut(&id) else { return Err(errors::canister_not_found(&id)) };
        let entry_point = if canister.exports(&format!("canister_query {}", call.method)) {
            EntryPoint::Query { method: call.method, replicated: false }
        } else if canister.exports(&format!("canister_composite_query {}", call.method)) {
            EntryPoint::CompositeQuery(call.method)
        } else {
            return Err(errors::method_not_found(&id, "query", &call.method));
        };
        if let Some(code) = &mut canister.code {
            code.instance.checkpoint();
        }
        graph.stack.push(id);
        let result = self.composite_call(graph, &id, plain_message(entry_point, call.sender, call.argument));
        graph.stack.pop();
        if let Some(code) = self.canisters.get_mut(&id).and_then(|canister| canister.code.as_mut()) {
            code.instance.rollback_to_checkpoint();
        }
        result
    }

    /// The messages of one call of a composite query: the method, then a callback for each call it makes.
    fn composite_call(&mut self, graph: &mut CallGraph, id: &Principal, first: Message) -> CallResult {
        let caller = first.caller;
        let mut instructions = 0;
        let mut response = None;
        let mut open: VecDeque<OutgoingCall> = VecDeque::new();
        let mut next = Some((first, None));
        loop {
            let (message, on_cleanup) = match next.take() {
                Some(next) => next,
                None => match open.pop_front() {
                    Some(call) if response.is_none() => {
                        (self.composite_callback(graph, id, &call, caller, instructions), call.on_cleanup)
                    }
                    _ => return answer_of(id, response),
                },
            };
            let outcome = self.run_in_graph(graph, id, message)?;
            instructions += outcome.instructions;
            match outcome.result {
                Ok(effects) => {
                    open.extend(effects.calls);
                    response = response.or(effects.response);
                }
                Err(trap) => {
                    if let Some(on_cleanup) = on_cleanup {
                        let entry_point = EntryPoint::Cleanup(on_cleanup);
                        // What cleanup does is rolled back with the rest; only its instructions count.
                        self.run_in_graph(graph, id, plain_message(entry_point, caller, Vec::new()))?;
                    }
                    if open.is_empty() {
                        return Err(errors::trapped(id, trap));
                    }
                }
            }
        }
    }

    /// Makes one call and turns its answer into the message of the callback.
    fn composite_callback(
        &mut self,
        graph: &mut CallGraph,
        id: &Principal,
        call: &OutgoingCall,
        caller: Principal,
        instructions: u64,
    ) -> Message {
        graph.instructions_left = graph.instructions_left.saturating_sub(prices::QUERY_CALL_OVERHEAD_INSTRUCTIONS);
        let query = QueryCall {
            sender: *id,
            canister_id: call.callee,
            method: call.method.clone(),
            argument: call.argument.clone(),
        };
        let (entry_point, argument, reject) = match Payload::from(self.composite_query(graph, query)) {
            Payload::Reply(reply) => (EntryPoint::ReplyCallback(call.on_reply), reply, None),
            Payload::Reject { code, message } => {
                (EntryPoint::RejectCallback(call.on_reject), Vec::new(), Some((code as u32, message)))
            }
        };
        Message { reject, call_context_instructions: instructions, ..plain_message(entry_point, caller, argument) }
    }

    /// Runs one message within the graph's budget.
    fn run_in_graph(
        &mut self,
        graph: &mut CallGraph,
        id: &Principal,
        message: Message,
    ) -> Result<crate::execution::Outcome, Rejection> {
        if graph.instructions_left == 0 {
            let message = format!(
                "Composite query calls exceeded the instruction limit of {} for the whole call graph.",
                self.query_instructions()
            );
            return Err(Rejection::new(ErrorCode::QueryCallGraphTotalInstructionLimitExceeded, message));
        }
        let info = self.info.clone();
        let Some(canister) = self.canisters.get_mut(id) else { return Err(errors::canister_not_found(id)) };
        let mut environment = canister.environment(&info, message, Some(graph.instructions_left));
        environment.in_composite_query = true;
        let Some(code) = &mut canister.code else { return Err(errors::no_wasm_module(id)) };
        let outcome = code.instance.execute(environment);
        graph.instructions_left = graph.instructions_left.saturating_sub(outcome.instructions);
        Ok(outcome)
    }
}

/// The answer that a query's messages gave.
fn answer_of(id: &Principal, response: Option<Result<Vec<u8>, String>>) -> CallResult {
    match response {
        Some(Ok(reply)) => Ok(reply),
        Some(Err(message)) => Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message)),
        None => Err(errors::did_not_reply(id)),
    }
}
