//! Rounds: what is executed when.

use super::Subnet;
use super::canister::{Canister, Status};
use super::errors;
use super::message::{Answer, Origin, Output, Request, Response, Task};
use super::prices;
use super::run::{Executed, refuse};
use super::types::{ErrorCode, Rejection};
use candid::Principal;
use std::collections::BTreeMap;

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundSummary {
    /// Messages executed, callbacks and timers included.
    pub messages: u64,
    pub instructions: u64,
    /// Nothing but heartbeats was executed and nothing waits, timers and deadlines in the future apart.
    pub idle: bool,
}

/// What a canister takes from its queues next.
enum Work {
    Task(Task),
    Response(Response),
    Request(Request),
}

impl Canister {
    /// Tasks go first, then answers, then ingress messages and requests in turn.
    fn next_work(&mut self) -> Option<Work> {
        if let Some(task) = self.tasks.pop_front() {
            return Some(Work::Task(task));
        }
        if let Some(response) = self.responses.pop_front() {
            return Some(Work::Response(response));
        }
        self.request_turn = !self.request_turn;
        let request = if self.request_turn {
            self.requests.pop_front().or_else(|| self.ingress.pop_front())
        } else {
            self.ingress.pop_front().or_else(|| self.requests.pop_front())
        };
        request.map(Work::Request)
    }
}

impl Subnet {
    /// Executes one round: what fell due by time, then messages until none is left or every canister that has some
    /// used up its share. A message of several slices runs at once and keeps its canister busy for as many rounds.
    pub fn execute_round(&mut self) -> RoundSummary {
        self.round += 1;
        self.info.time_ns += 1;
        self.prune_history();
        self.expire_calls();
        self.charge_for_time();
        self.schedule_tasks();

        let mut summary = RoundSummary::default();
        let mut heartbeats = 0;
        let mut used: BTreeMap<Principal, u64> = BTreeMap::new();
        loop {
            let before = summary.messages;
            let managed = self.execute_system(&mut summary) | self.execute_management(&mut summary);
            let ids: Vec<Principal> = self.canisters.keys().copied().collect();
            let mut moved = managed;
            for id in ids {
                let used = used.entry(id).or_default();
                while *used <= prices::ROUND_INSTRUCTIONS - prices::SLICE_INSTRUCTIONS && !self.is_busy(&id) {
                    let Some(canister) = self.canisters.get_mut(&id) else { break };
                    let Some(work) = canister.next_work() else { break };
                    moved = true;
                    heartbeats += u64::from(matches!(work, Work::Task(Task::Heartbeat)));
                    let executed = self.execute_work(&id, work);
                    *used += executed.instructions + prices::ROUND_MESSAGE_OVERHEAD_INSTRUCTIONS;
                    summary.messages += u64::from(executed.ran);
                    summary.instructions += executed.instructions;
                    self.deliver(executed.output);
                    self.finish_stop(&id);
                }
            }
            if !moved && summary.messages == before {
                break;
            }
        }
        let waits = !self.management.is_empty()
            || !self.system_requests.is_empty()
            || self.canisters.values().any(Canister::has_work);
        summary.idle = !waits && summary.messages <= heartbeats;
        summary
    }

    /// The earliest time at which something falls due by itself: a global timer of a running canister, the deadline
    /// of a best-effort call or of a stop.
    pub fn next_timer_ns(&self) -> Option<u64> {
        let timers = self.canisters.values().filter_map(|canister| {
            let is_armed =
                canister.global_timer_ns != 0 && canister.is_running() && canister.exports("canister_global_timer");
            is_armed.then_some(canister.global_timer_ns)
        });
        let stops = self.canisters.values().filter_map(|canister| match &canister.status {
            Status::Stopping(requests) => requests.iter().map(|request| request.deadline_ns).min(),
            Status::Running | Status::Stopped => None,
        });
        let deadline = self.deadlines.first().map(|(deadline_ns, ..)| *deadline_ns);
        timers.chain(stops).chain(deadline).min()
    }

    /// A message of several slices still occupies the canister.
    pub(super) fn is_busy(&self, id: &Principal) -> bool {
        self.canisters.get(id).is_some_and(|canister| canister.busy_until_round > self.round)
    }

    /// Occupies the canister for the rounds that a message of so many slices takes.
    pub(super) fn occupy(&mut self, id: &Principal, slices: u32) {
        if let Some(canister) = self.canisters.get_mut(id)
            && slices > 1
        {
            canister.busy_until_round = self.round + u64::from(slices) - 1;
        }
    }

    /// Due timers and heartbeats of running canisters.
    fn schedule_tasks(&mut self) {
        for canister in self.canisters.values_mut() {
            if !canister.is_running() || canister.code.is_none() {
                continue;
            }
            let is_due = canister.global_timer_ns != 0 && canister.global_timer_ns <= self.info.time_ns;
            for (is_due, task, export) in
                [(is_due, Task::GlobalTimer, "canister_global_timer"), (true, Task::Heartbeat, "canister_heartbeat")]
            {
                if is_due && canister.exports(export) && !canister.tasks.contains(&task) {
                    canister.tasks.push_back(task);
                }
            }
        }
    }

    fn execute_work(&mut self, id: &Principal, work: Work) -> Executed {
        let info = self.info.clone();
        let Some(canister) = self.canisters.get_mut(id) else { return Executed::default() };
        let mut origin = None;
        let executed = match work {
            Work::Task(task) => canister.execute_task(&info, task),
            Work::Response(response) => canister.execute_response(&info, response),
            Work::Request(request) if request.expiry_ns.is_some_and(|expiry_ns| expiry_ns < info.time_ns) => {
                let rejection = match request.origin {
                    Origin::Ingress { .. } => errors::ingress_timeout(&request.method),
                    Origin::Canister { .. } | Origin::System => errors::deadline_expired(),
                };
                let output = Output { requests: Vec::new(), responses: vec![refuse(request, rejection)] };
                Executed { output, ..Executed::default() }
            }
            Work::Request(request) => {
                origin = Some(request.origin.clone());
                canister.execute_request(&info, request)
            }
        };
        if executed.ran {
            self.certified.set_certified_data(canister);
        }
        self.occupy(id, executed.slices);
        if let Some(origin) = origin
            && !executed.output.responses.iter().any(|answer| answer.to == origin)
        {
            self.mark_processing(&origin);
        }
        executed
    }

    /// Sends out what a message left behind.
    pub(super) fn deliver(&mut self, output: Output) {
        for request in output.requests {
            self.route(request);
        }
        for answer in output.responses {
            self.answer(answer);
        }
    }

    /// Puts a request of a canister into its callee's queue, or answers it.
    fn route(&mut self, request: Request) {
        if let Origin::Canister { caller, callback, deadline_ns } = request.origin
            && deadline_ns != 0
        {
            self.deadlines.insert((deadline_ns, caller, callback));
        }
        if request.callee == Principal::management_canister() || request.callee == self.info.subnet_id {
            self.management.push_back(request);
            return;
        }
        if self.is_system_canister(&request.callee) {
            self.system_requests.push_back(request);
            return;
        }
        let rejection = match self.canisters.get_mut(&request.callee) {
            None => errors::canister_not_found(&request.callee),
            Some(callee) => match callee.status {
                Status::Running => {
                    callee.requests.push_back(request);
                    return;
                }
                Status::Stopping(_) => errors::stopping(&request.callee),
                Status::Stopped => errors::stopped(&request.callee),
            },
        };
        self.answer(refuse(request, rejection));
    }

    /// Answers best-effort calls whose deadline passed, and stop requests that waited too long; the canister stays
    /// stopping.
    fn expire_calls(&mut self) {
        let time_ns = self.info.time_ns;
        while let Some((deadline_ns, caller, callback)) = self.deadlines.first().copied() {
            if deadline_ns > time_ns {
                break;
            }
            self.deadlines.pop_first();
            let is_open = self.canisters.get(&caller).is_some_and(|canister| {
                // The answer may be there and only wait for its turn.
                canister.calls.callback(callback).is_some()
                    && !canister.responses.iter().any(|response| response.callback == callback)
            });
            if is_open {
                let to = Origin::Canister { caller, callback, deadline_ns };
                self.answer(Answer { to, result: Err(errors::deadline_expired()), refund: 0 });
            }
        }
        let mut timed_out = Vec::new();
        for canister in self.canisters.values_mut() {
            if let Status::Stopping(requests) = &mut canister.status {
                timed_out.extend(requests.extract_if(.., |request| request.deadline_ns <= time_ns));
            }
        }
        for request in timed_out {
            let rejection = Rejection::new(ErrorCode::StopCanisterRequestTimeout, "Stop canister request timed out");
            self.answer(Answer { to: request.origin, result: Err(rejection), refund: request.cycles });
        }
    }

    /// A stopping canister without open calls has stopped; whoever asked for it is told.
    pub(super) fn finish_stop(&mut self, id: &Principal) {
        let Some(canister) = self.canisters.get_mut(id) else { return };
        if !canister.calls.is_empty() {
            return;
        }
        let Status::Stopping(requests) = &mut canister.status else { return };
        let requests = std::mem::take(requests);
        canister.status = Status::Stopped;
        for request in requests {
            let result = Ok(super::management::unit_reply());
            self.answer(Answer { to: request.origin, result, refund: request.cycles });
        }
    }
}
