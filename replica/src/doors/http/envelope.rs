//! The authentication envelope: who sent a request, whether it is fresh, and what its delegations permit
//! (Interface Specification, "Authentication").

use super::HttpError;
use super::signature::PublicKey;
use candid::Principal;
use ic_transport_types::{DelegationPermissions, Envelope, EnvelopeContent, SignedDelegation};
use std::time::Duration;

/// How long a request may stay valid.
const MAX_INGRESS_TTL: Duration = Duration::from_secs(5 * 60);

/// How far a client's clock may run ahead of the replica's.
const PERMITTED_DRIFT: Duration = Duration::from_secs(60);

/// Length of a delegation chain.
const MAX_DELEGATIONS: usize = 20;

/// Canisters that one delegation may name.
const MAX_DELEGATION_TARGETS: usize = 1000;

const MAX_NONCE_BYTES: usize = 32;

/// A request whose sender, freshness and signature are established.
#[derive(Debug)]
pub struct Authenticated {
    pub content: EnvelopeContent,
    /// Hash of the content; names the request.
    pub request_id: [u8; 32],
    pub sender: Principal,
    /// The canisters that the sender's delegations are limited to; `None` is all.
    targets: Option<Vec<Principal>>,
}

impl Authenticated {
    /// Decodes and checks an envelope that arrived at `now_ns`.
    pub fn from_cbor(body: &[u8], now_ns: u64) -> Result<Self, HttpError> {
        let envelope: Envelope = serde_cbor::from_slice(body)
            .map_err(|e| HttpError::bad_request(format!("the request is not a CBOR envelope: {e}")))?;
        let Envelope { content, sender_pubkey, sender_sig, sender_delegation } = envelope;
        let content = content.into_owned();
        check_expiry(content.ingress_expiry(), now_ns)?;
        check_fields(&content)?;
        let request_id = content.to_request_id();
        let sender = *content.sender();
        let targets = match (sender_pubkey, sender_sig) {
            (None, None) if sender_delegation.is_some() => {
                return Err(HttpError::forbidden("there are delegations, but no public key and signature"));
            }
            (None, None) if sender == Principal::anonymous() => None,
            (None, None) => {
                return Err(HttpError::forbidden(format!("sender {sender} needs a public key and a signature")));
            }
            (Some(public_key), Some(signature)) => {
                check_sender(&sender, &public_key)?;
                let mut chain = Chain::new(public_key, matches!(content, EnvelopeContent::Call { .. }));
                for delegation in sender_delegation.unwrap_or_default() {
                    chain.follow(&delegation, now_ns)?;
                }
                chain.check_signature(&request_id.signable(), &signature, "the request")?;
                chain.targets
            }
            _ => return Err(HttpError::forbidden("public key and signature must come together")),
        };
        Ok(Authenticated { request_id: *request_id, content, sender, targets })
    }

    /// Fails unless the sender's delegations permit requests to `canister_id`.
    pub fn check_target(&self, canister_id: &Principal) -> Result<(), HttpError> {
        match &self.targets {
            Some(targets) if !targets.contains(canister_id) => Err(HttpError::forbidden(format!(
                "canister {canister_id} is not among the targets of the sender's delegations"
            ))),
            _ => Ok(()),
        }
    }
}

fn check_expiry(expiry_ns: u64, now_ns: u64) -> Result<(), HttpError> {
    let latest_ns = now_ns.saturating_add((MAX_INGRESS_TTL + PERMITTED_DRIFT).as_nanos() as u64);
    if (now_ns..=latest_ns).contains(&expiry_ns) {
        return Ok(());
    }
    Err(HttpError::bad_request(format!(
        "Invalid request expiry: specified ingress_expiry is not within the expected range: minimum allowed \
         {now_ns}, maximum allowed {latest_ns}, provided {expiry_ns} (nanoseconds since 1970)"
    )))
}

fn check_fields(content: &EnvelopeContent) -> Result<(), HttpError> {
    let (nonce, sender_info) = match content {
        EnvelopeContent::Call { nonce, sender_info, .. } | EnvelopeContent::Query { nonce, sender_info, .. } => {
            (nonce.as_deref().unwrap_or_default(), sender_info.is_some())
        }
        EnvelopeContent::ReadState { .. } => (&[][..], false),
    };
    if nonce.len() > MAX_NONCE_BYTES {
        let given = nonce.len();
        return Err(HttpError::bad_request(format!("a nonce of {given} bytes; at most {MAX_NONCE_BYTES} are allowed")));
    }
    if sender_info {
        return Err(HttpError::bad_request("sender_info needs canister signatures, which this replica does not check"));
    }
    Ok(())
}

fn check_sender(sender: &Principal, public_key: &[u8]) -> Result<(), HttpError> {
    let owner = Principal::self_authenticating(public_key);
    if owner == *sender {
        return Ok(());
    }
    Err(HttpError::forbidden(format!("sender {sender} does not belong to the public key, which is {owner}'s")))
}

/// A chain of delegations on the way from the sender's key to the one that signed the request.
struct Chain {
    keys_der: Vec<Vec<u8>>,
    is_call: bool,
    targets: Option<Vec<Principal>>,
}

impl Chain {
    fn new(public_key_der: Vec<u8>, is_call: bool) -> Self {
        Chain { keys_der: vec![public_key_der], is_call, targets: None }
    }

    fn check_signature(&self, message: &[u8], signature: &[u8], what: &str) -> Result<(), HttpError> {
        let key = PublicKey::from_der(self.keys_der.last().map_or(&[][..], Vec::as_slice))
            .map_err(|e| HttpError::forbidden(format!("can't check the signature of {what}: {e}")))?;
        if key.verifies(message, signature) {
            return Ok(());
        }
        Err(HttpError::forbidden(format!("Invalid signature: the signature of {what} does not verify")))
    }

    fn follow(&mut self, signed: &SignedDelegation, now_ns: u64) -> Result<(), HttpError> {
        let SignedDelegation { delegation, signature } = signed;
        let what = format!("delegation {}", self.keys_der.len());
        if self.keys_der.len() > MAX_DELEGATIONS {
            return Err(HttpError::forbidden(format!("more than {MAX_DELEGATIONS} delegations")));
        }
        self.check_signature(&delegation.signable(), signature, &what)?;
        if delegation.expiration < now_ns {
            let expiration = delegation.expiration;
            return Err(HttpError::bad_request(format!("{what} expired at {expiration}; it is {now_ns} now")));
        }
        if self.is_call && matches!(delegation.permissions, Some(DelegationPermissions::Queries)) {
            return Err(HttpError::forbidden(format!("{what} permits queries and reads only, not calls")));
        }
        if let Some(targets) = &delegation.targets {
            if targets.len() > MAX_DELEGATION_TARGETS {
                let given = targets.len();
                return Err(HttpError::forbidden(format!(
                    "{what} has {given} targets; at most {MAX_DELEGATION_TARGETS} are allowed"
                )));
            }
            self.targets = Some(match self.targets.take() {
                None => targets.clone(),
                Some(before) => before.into_iter().filter(|target| targets.contains(target)).collect(),
            });
        }
        if self.keys_der.contains(&delegation.pubkey) {
            return Err(HttpError::forbidden(format!("{what} leads back to a key that the chain had before")));
        }
        self.keys_der.push(delegation.pubkey.clone());
        Ok(())
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
