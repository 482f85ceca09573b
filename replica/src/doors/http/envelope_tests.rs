//! Envelopes by every kind of key, and every way in which one can be wrong.

use super::*;
use axum::http::StatusCode;
use ed25519_dalek::{Signer, SigningKey};
use ic_transport_types::{Delegation, SenderInfo};
use std::borrow::Cow;

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

struct Key(SigningKey);

impl Key {
    fn new(seed: u8) -> Self {
        Key(SigningKey::from_bytes(&[seed; 32]))
    }
    fn der(&self) -> Vec<u8> {
        [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".as_slice(), self.0.verifying_key().as_bytes()].concat()
    }
    fn principal(&self) -> Principal {
        Principal::self_authenticating(self.der())
    }
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_vec()
    }
    fn delegate(&self, to: &Key, change: impl FnOnce(&mut Delegation)) -> SignedDelegation {
        let mut delegation =
            Delegation { pubkey: to.der(), expiration: NOW_NS + MINUTE_NS, targets: None, permissions: None };
        change(&mut delegation);
        let signature = self.sign(&delegation.signable());
        SignedDelegation { delegation, signature }
    }
}

fn canister(byte: u8) -> Principal {
    Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, byte, 1, 1])
}

fn call(sender: Principal) -> EnvelopeContent {
    EnvelopeContent::Call {
        nonce: Some(vec![1, 2]),
        ingress_expiry: NOW_NS + MINUTE_NS,
        sender,
        canister_id: canister(1),
        method_name: "go".into(),
        arg: vec![7; 100],
        sender_info: None,
    }
}

fn query(sender: Principal) -> EnvelopeContent {
    EnvelopeContent::Query {
        nonce: None,
        ingress_expiry: NOW_NS + MINUTE_NS,
        sender,
        canister_id: canister(1),
        method_name: "go".into(),
        arg: Vec::new(),
        sender_info: None,
    }
}

/// Sends `content` signed by the last key of the chain.
fn send(
    content: &EnvelopeContent,
    head: &Key,
    signer: &Key,
    delegations: Vec<SignedDelegation>,
) -> Result<Authenticated, (StatusCode, String)> {
    let envelope = Envelope {
        content: Cow::Borrowed(content),
        sender_pubkey: Some(head.der()),
        sender_sig: Some(signer.sign(&content.to_request_id().signable())),
        sender_delegation: (!delegations.is_empty()).then_some(delegations),
    };
    authenticate(&envelope.encode_bytes())
}

fn authenticate(bytes: &[u8]) -> Result<Authenticated, (StatusCode, String)> {
    Authenticated::from_cbor(bytes, NOW_NS).map_err(|e| (e.status, e.message))
}

fn refused(result: Result<Authenticated, (StatusCode, String)>, status: StatusCode, words: &str) {
    let (got, message) = result.expect_err(words);
    assert_eq!(got, status, "{message}");
    assert!(message.contains(words), "{message:?} does not contain {words:?}");
}

fn unsigned(content: EnvelopeContent) -> Vec<u8> {
    let content = Cow::Owned(content);
    Envelope { content, sender_pubkey: None, sender_sig: None, sender_delegation: None }.encode_bytes()
}

#[test]
fn the_anonymous_sender_needs_no_signature_and_others_do() {
    let accepted = authenticate(&unsigned(query(Principal::anonymous()))).unwrap();
    assert_eq!(accepted.sender, Principal::anonymous());
    assert_eq!(accepted.request_id, *query(Principal::anonymous()).to_request_id());
    let key = Key::new(1);
    refused(authenticate(&unsigned(call(key.principal()))), StatusCode::FORBIDDEN, "needs a public key");
    refused(send(&call(Principal::anonymous()), &key, &key, vec![]), StatusCode::FORBIDDEN, "does not belong");
    let content = call(key.principal());
    let half = Envelope {
        content: Cow::Borrowed(&content),
        sender_pubkey: Some(key.der()),
        sender_sig: None,
        sender_delegation: None,
    };
    refused(authenticate(&half.encode_bytes()), StatusCode::FORBIDDEN, "must come together");
}

#[test]
fn the_signature_and_its_key_must_be_the_senders() {
    let (key, other) = (Key::new(1), Key::new(2));
    let content = call(key.principal());
    let accepted = send(&content, &key, &key, vec![]).unwrap();
    assert_eq!((accepted.sender, accepted.request_id), (key.principal(), *content.to_request_id()));
    assert!(accepted.check_target(&canister(9)).is_ok());
    refused(send(&content, &key, &other, vec![]), StatusCode::FORBIDDEN, "Invalid signature");
    refused(send(&content, &other, &other, vec![]), StatusCode::FORBIDDEN, "does not belong");
    // A signature of another request.
    let envelope = Envelope {
        content: Cow::Borrowed(&content),
        sender_pubkey: Some(key.der()),
        sender_sig: Some(key.sign(&query(key.principal()).to_request_id().signable())),
        sender_delegation: None,
    };
    refused(authenticate(&envelope.encode_bytes()), StatusCode::FORBIDDEN, "Invalid signature");
}

#[test]
fn only_fresh_requests_are_taken() {
    let with_expiry = |expiry: u64| {
        let mut content = query(Principal::anonymous());
        if let EnvelopeContent::Query { ingress_expiry, .. } = &mut content {
            *ingress_expiry = expiry;
        }
        authenticate(&unsigned(content))
    };
    assert!(with_expiry(NOW_NS).is_ok());
    assert!(with_expiry(NOW_NS + 5 * MINUTE_NS).is_ok());
    for expiry in [0, NOW_NS - 1, NOW_NS + 6 * MINUTE_NS + 1, u64::MAX] {
        refused(with_expiry(expiry), StatusCode::BAD_REQUEST, "expiry");
    }
}

#[test]
fn a_chain_of_delegations_speaks_for_its_first_key() {
    let (head, middle, tail) = (Key::new(1), Key::new(2), Key::new(3));
    let content = call(head.principal());
    let chain = vec![head.delegate(&middle, |_| {}), middle.delegate(&tail, |_| {})];
    assert_eq!(send(&content, &head, &tail, chain.clone()).unwrap().sender, head.principal());
    refused(send(&content, &head, &middle, chain.clone()), StatusCode::FORBIDDEN, "Invalid signature");
    let swapped = vec![chain[1].clone(), chain[0].clone()];
    refused(send(&content, &head, &tail, swapped), StatusCode::FORBIDDEN, "delegation 1");
    let forged = vec![tail.delegate(&tail, |_| {})];
    refused(send(&content, &head, &tail, forged), StatusCode::FORBIDDEN, "Invalid signature");
    let circle = vec![head.delegate(&middle, |_| {}), middle.delegate(&head, |_| {})];
    refused(send(&content, &head, &head, circle), StatusCode::FORBIDDEN, "leads back");
    let expired = vec![head.delegate(&tail, |delegation| delegation.expiration = NOW_NS - 1)];
    refused(send(&content, &head, &tail, expired), StatusCode::BAD_REQUEST, "expired");
    let keys: Vec<Key> = (0..22).map(|i| Key::new(10 + i)).collect();
    let long: Vec<_> = keys.windows(2).map(|pair| pair[0].delegate(&pair[1], |_| {})).collect();
    let content = call(keys[0].principal());
    assert!(send(&content, &keys[0], &keys[20], long[..20].to_vec()).is_ok());
    refused(send(&content, &keys[0], &keys[21], long), StatusCode::FORBIDDEN, "more than 20");
}

#[test]
fn delegations_limit_canisters_and_kinds_of_requests() {
    let (head, middle, tail) = (Key::new(1), Key::new(2), Key::new(3));
    let chain = vec![
        head.delegate(&middle, |delegation| delegation.targets = Some(vec![canister(1), canister(2)])),
        middle.delegate(&tail, |delegation| delegation.targets = Some(vec![canister(2), canister(3)])),
    ];
    let accepted = send(&call(head.principal()), &head, &tail, chain).unwrap();
    assert!(accepted.check_target(&canister(2)).is_ok());
    for outside in [canister(1), canister(3), canister(4), Principal::management_canister()] {
        assert!(accepted.check_target(&outside).is_err(), "{outside}");
    }
    let many = vec![head.delegate(&tail, |delegation| delegation.targets = Some(vec![canister(1); 1001]))];
    refused(send(&call(head.principal()), &head, &tail, many), StatusCode::FORBIDDEN, "1001 targets");
    let queries =
        vec![head.delegate(&tail, |delegation| delegation.permissions = Some(DelegationPermissions::Queries))];
    assert!(send(&query(head.principal()), &head, &tail, queries.clone()).is_ok());
    refused(send(&call(head.principal()), &head, &tail, queries), StatusCode::FORBIDDEN, "not calls");
}

#[test]
fn malformed_envelopes_are_refused() {
    for bytes in [&b""[..], b"\xd9\xd9\xf7", b"\xa0", b"not CBOR at all", &[0x9b; 400]] {
        refused(authenticate(bytes), StatusCode::BAD_REQUEST, "not a CBOR envelope");
    }
    let mut content = query(Principal::anonymous());
    if let EnvelopeContent::Query { nonce, .. } = &mut content {
        *nonce = Some(vec![0; 33]);
    }
    refused(authenticate(&unsigned(content)), StatusCode::BAD_REQUEST, "33 bytes");
    let mut content = query(Principal::anonymous());
    if let EnvelopeContent::Query { sender_info, .. } = &mut content {
        *sender_info = Some(SenderInfo { info: vec![], signer: vec![], sig: vec![] });
    }
    refused(authenticate(&unsigned(content)), StatusCode::BAD_REQUEST, "sender_info");
}
