//! The transport over the Internet Computer's HTTP interface.

use crate::client::{CallKind, Transport, TransportError};
use candid::Principal;
use ic_agent::agent::{Agent, AgentError, RejectCode, RejectResponse};

/// One canister through ic-agent.
pub struct AgentTransport {
    agent: Agent,
    canister: Principal,
}

impl AgentTransport {
    pub fn new(agent: Agent, canister: Principal) -> Self {
        Self { agent, canister }
    }
}

impl Transport for AgentTransport {
    async fn call(&self, kind: CallKind, method: &'static str, arg: &[u8]) -> Result<Vec<u8>, TransportError> {
        let reply = match kind {
            CallKind::Update => self.agent.update(&self.canister, method).with_arg(arg).call_and_wait().await,
            CallKind::Query => self.agent.query(&self.canister, method).with_arg(arg).call().await,
        };
        reply.map_err(classify_error)
    }
}

/// Tells what may succeed when tried again from what will not.
fn classify_error(error: AgentError) -> TransportError {
    match error {
        AgentError::CertifiedReject { reject, .. } => reject_error(reject),
        AgentError::UncertifiedReject { reject, .. } => reject_error(reject),
        // The request may have arrived although its answer did not.
        AgentError::TransportError(_) => transient(reason_of(&error), true),
        AgentError::TimeoutWaitingForResponse() => transient("no answer within five minutes".to_string(), true),
        AgentError::RequestStatusDoneNoReply(_) => transient(error.to_string(), true),
        // Too many requests and "service unavailable" are said before a message is taken in; other 5xx can be later.
        AgentError::HttpError(ref payload) => match payload.status {
            429 | 503 => transient(error.to_string(), false),
            500..=599 => transient(error.to_string(), true),
            _ => TransportError::Fatal { message: error.to_string() },
        },
        AgentError::CertificateVerificationFailed() | AgentError::QuerySignatureVerificationFailed => {
            TransportError::Fatal { message: format!("{error} Is the root key (--root-key) this network's?") }
        }
        _ => TransportError::Fatal { message: error.to_string() },
    }
}

/// A reject says for certain that the message changed nothing.
fn reject_error(reject: RejectResponse) -> TransportError {
    match reject.reject_code {
        RejectCode::SysTransient => transient(reject.reject_message, false),
        _ => TransportError::Rejected { message: reject.reject_message, error_code: reject.error_code },
    }
}

fn transient(message: String, maybe_executed: bool) -> TransportError {
    TransportError::Transient { message, maybe_executed }
}

/// The error with all that caused it, since an HTTP client's own text leaves out the reason ("connection refused").
pub(crate) fn reason_of(error: &AgentError) -> String {
    let mut text = error.to_string();
    let mut cause = match error {
        AgentError::TransportError(ic_agent::agent_error::TransportError::Reqwest(inner)) => {
            std::error::Error::source(inner)
        }
        _ => std::error::Error::source(error),
    };
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_agent::agent::agent_error::HttpErrorPayload;

    fn reject(reject_code: RejectCode) -> AgentError {
        let reject = RejectResponse { reject_code, reject_message: "no".to_string(), error_code: None };
        AgentError::CertifiedReject { reject, operation: None }
    }

    fn http(status: u16) -> AgentError {
        AgentError::HttpError(HttpErrorPayload { status, content_type: None, content: Vec::new() })
    }

    #[test]
    fn transient_errors_are_told_from_refusals() {
        let maybe_executed = |error| match classify_error(error) {
            TransportError::Transient { maybe_executed, .. } => Some(maybe_executed),
            _ => None,
        };
        assert_eq!(maybe_executed(reject(RejectCode::SysTransient)), Some(false));
        assert_eq!(maybe_executed(http(429)), Some(false));
        assert_eq!(maybe_executed(http(502)), Some(true));
        assert_eq!(maybe_executed(AgentError::TimeoutWaitingForResponse()), Some(true));
        for code in [
            RejectCode::CanisterReject,
            RejectCode::CanisterError,
            RejectCode::SysFatal,
            RejectCode::DestinationInvalid,
        ] {
            assert!(matches!(classify_error(reject(code)), TransportError::Rejected { .. }));
        }
        assert!(matches!(classify_error(http(400)), TransportError::Fatal { .. }));
        assert!(matches!(classify_error(AgentError::CertificateVerificationFailed()), TransportError::Fatal { .. }));
    }
}
