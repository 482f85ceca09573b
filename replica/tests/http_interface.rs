//! The IC HTTP interface, used by ic-agent as its users use it, and by hand where a client must be refused.

mod common;

use candid::Principal;
use common::{Replica, clerk, create, deploy, install, manage, to_u32};
use ic_agent::agent::{CallResponse, RejectCode};
use ic_agent::export::reqwest;
use ic_agent::identity::{
    AnonymousIdentity, BasicIdentity, DelegatedIdentity, Delegation, Identity, Prime256v1Identity, Secp256k1Identity,
    SignedDelegation,
};
use ic_agent::{Agent, AgentError};
use ic_management_canister_types as ic00;
use std::time::{Duration, Instant};

fn ed25519(seed: u8) -> BasicIdentity {
    BasicIdentity::from_raw_key(&[seed; 32])
}

fn secp256k1() -> Secp256k1Identity {
    Secp256k1Identity::from_private_key(k256::SecretKey::from_slice(&[3; 32]).unwrap())
}

fn p256() -> Prime256v1Identity {
    Prime256v1Identity::from_private_key(p256::SecretKey::from_slice(&[4; 32]).unwrap())
}

fn delegated(from: &BasicIdentity, to: BasicIdentity, change: impl FnOnce(&mut Delegation)) -> DelegatedIdentity {
    let pubkey = to.public_key().unwrap();
    let mut delegation = Delegation { pubkey, expiration: u64::MAX, targets: None, permissions: None };
    change(&mut delegation);
    let signature = from.sign_delegation(&delegation).unwrap().signature.unwrap();
    DelegatedIdentity::new_unchecked(
        from.public_key().unwrap(),
        Box::new(to),
        vec![SignedDelegation { delegation, signature }],
    )
}

/// The status of an HTTP error, or a panic with whatever else it is.
fn http_status(error: AgentError) -> (u16, String) {
    match error {
        AgentError::HttpError(payload) => (payload.status, String::from_utf8_lossy(&payload.content).into_owned()),
        other => panic!("not an HTTP error: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_identity_gets_certified_updates_and_verified_queries() {
    let replica = Replica::start("identities");
    let boxed: Vec<Box<dyn Identity>> = vec![
        Box::new(AnonymousIdentity),
        Box::new(ed25519(1)),
        Box::new(secp256k1()),
        Box::new(p256()),
        Box::new(delegated(&ed25519(1), ed25519(2), |_| {})),
    ];
    for identity in boxed {
        let agent = replica.agent(identity).await;
        assert_eq!(agent.read_root_key(), replica.root_key);
        let me = agent.get_principal().unwrap();
        let canister = deploy(&agent, clerk()).await;
        let caller = agent.update(&canister, "whoami").await.unwrap();
        assert_eq!(Principal::from_slice(&caller), me);
        // Queries are checked against the node key in a certificate: the agent's default.
        let caller = agent.query(&canister, "whoami_query").call().await.unwrap();
        assert_eq!(Principal::from_slice(&caller), me);
        for expected in 1..=3 {
            assert_eq!(to_u32(&agent.update(&canister, "inc").await.unwrap()), expected);
            assert_eq!(to_u32(&agent.query(&canister, "get").call().await.unwrap()), expected);
        }
        assert_eq!(agent.read_state_canister_controllers(canister).await.unwrap(), vec![me]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_fixes_the_root_key_and_signals_end_the_process() {
    let seed = "07".repeat(32);
    let (first, default) = (Replica::start_with("seed1", &["--seed", &seed]), Replica::start("seed2"));
    let again = Replica::start_with("seed3", &["--seed", &seed]);
    assert_eq!(first.root_key, again.root_key);
    assert_ne!(first.root_key, default.root_key);
    assert!(first.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_reach_the_client_as_the_network_gives_them() {
    let replica = Replica::start("rejections");
    let agent = replica.agent(ed25519(1)).await;
    let canister = deploy(&agent, clerk()).await;
    let certified = agent.update(&canister, "trap").await.unwrap_err();
    let AgentError::CertifiedReject { reject, .. } = certified else { panic!("{certified:?}") };
    assert_eq!(reject.reject_code, RejectCode::CanisterError);
    assert_eq!(reject.error_code.as_deref(), Some("IC0502"), "{reject:?}");
    let query = agent.query(&canister, "refuse").call().await.unwrap_err();
    let AgentError::UncertifiedReject { reject, .. } = query else { panic!("{query:?}") };
    assert_eq!((reject.reject_code, reject.reject_message.as_str()), (RejectCode::CanisterReject, "no"));
    assert_eq!(reject.error_code.as_deref(), Some("IC0406"));
    let nobody = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 77, 1, 1]);
    for error in
        [agent.update(&nobody, "inc").await.unwrap_err(), agent.query(&nobody, "get").call().await.unwrap_err()]
    {
        let AgentError::UncertifiedReject { reject, .. } = error else { panic!("{error:?}") };
        assert_eq!(reject.reject_code, RejectCode::DestinationInvalid);
        assert_eq!(reject.error_code.as_deref(), Some("IC0301"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_expired_and_oversized_requests_are_refused() {
    let replica = Replica::start("refused");
    let agent = replica.agent(ed25519(1)).await;
    let canister = deploy(&agent, clerk()).await;
    let signed = agent.update(&canister, "inc").sign().unwrap().signed_update;
    // The signature is the longest run of bytes that differs from another request's: spoil one of its bytes.
    let at = signed.windows(11).position(|window| window == b"\x6asender_sig").unwrap() + 11 + 2 + 20;
    let mut wrong = signed.clone();
    wrong[at] ^= 1;
    let (status, text) = http_status(agent.update_signed(canister, wrong).await.unwrap_err());
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("Invalid signature"), "{text}");
    assert_eq!(to_u32(&agent.query(&canister, "get").call().await.unwrap()), 0);
    // The same request with its signature as it was is taken, and again is the same message.
    for _ in 0..2 {
        match agent.update_signed(canister, signed.clone()).await.unwrap() {
            CallResponse::Response(reply) => assert_eq!(to_u32(&reply), 1),
            CallResponse::Poll(_) => panic!("no answer in time"),
        }
    }
    let past = time_in(-60);
    let (status, text) = http_status(agent.update(&canister, "inc").expire_at(past).call_and_wait().await.unwrap_err());
    assert_eq!(status, 400);
    assert!(text.contains("ingress_expiry"), "{text}");
    let far = time_in(20 * 60);
    assert_eq!(http_status(agent.query(&canister, "get").expire_at(far).call().await.unwrap_err()).0, 400);
    let huge = agent.update(&canister, "swallow").with_arg(vec![0; 2 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(http_status(huge).0, 413);
}

fn time_in(seconds: i64) -> std::time::SystemTime {
    let now = std::time::SystemTime::now();
    let offset = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - offset } else { now + offset }
}

#[tokio::test(flavor = "multi_thread")]
async fn delegations_bind() {
    let replica = Replica::start("delegations");
    let owner = ed25519(1);
    let agent = replica.agent(ed25519(1)).await;
    let (one, two) = (deploy(&agent, clerk()).await, deploy(&agent, clerk()).await);
    let limited = replica.agent(delegated(&owner, ed25519(2), |delegation| delegation.targets = Some(vec![one]))).await;
    assert_eq!(to_u32(&limited.update(&one, "inc").await.unwrap()), 1);
    let (status, text) = http_status(limited.update(&two, "inc").await.unwrap_err());
    assert_eq!(status, 403);
    assert!(text.contains("targets"), "{text}");
    let expired = replica.agent(delegated(&owner, ed25519(2), |delegation| delegation.expiration = 1)).await;
    assert_eq!(http_status(expired.update(&one, "inc").await.unwrap_err()).0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_tree_shows_to_each_what_is_theirs() {
    let replica = Replica::start("state");
    let (owner, other) = (replica.agent(ed25519(1)).await, replica.agent(ed25519(9)).await);
    let canister = create(&owner).await;
    let absent = owner.read_state_canister_module_hash(canister).await.unwrap_err();
    assert!(matches!(absent, AgentError::LookupPathAbsent(_)), "{absent:?}");
    install(&owner, canister, clerk()).await;
    let hash = owner.read_state_canister_module_hash(canister).await.unwrap();
    assert_eq!(hash, <sha2::Sha256 as sha2::Digest>::digest(clerk()).to_vec());
    for agent in [&owner, &other] {
        assert_eq!(agent.read_state_canister_metadata(canister, "motto").await.unwrap(), b"everyone may read this");
        let absent = agent.read_state_canister_metadata(canister, "none").await.unwrap_err();
        assert!(matches!(absent, AgentError::LookupPathAbsent(_)), "{absent:?}");
    }
    assert_eq!(owner.read_state_canister_metadata(canister, "diary").await.unwrap(), b"controllers may read this");
    let (status, text) = http_status(other.read_state_canister_metadata(canister, "diary").await.unwrap_err());
    assert_eq!(status, 403);
    assert!(text.contains("controllers only"), "{text}");
    // The status of a request is its sender's.
    let signed = owner.update(&canister, "inc").sign().unwrap();
    let CallResponse::Response(_) = owner.update_signed(canister, signed.signed_update).await.unwrap() else {
        panic!("no answer in time");
    };
    assert!(owner.request_status_raw(&signed.request_id, canister).await.is_ok());
    assert_eq!(http_status(other.request_status_raw(&signed.request_id, canister).await.unwrap_err()).0, 403);
    // Paths that nobody may read, and a canister's at another's address.
    for path in [vec![], vec!["canister".into()], vec!["request_status".into()], vec!["secret".into()]] {
        assert_eq!(
            http_status(owner.read_state_raw(vec![path.clone()], canister).await.unwrap_err()).0,
            403,
            "{path:?}"
        );
    }
    let elsewhere = create(&owner).await;
    let path = vec!["canister".into(), canister.as_slice().to_vec().into(), "controllers".into()];
    assert_eq!(http_status(owner.read_state_raw(vec![path], elsewhere).await.unwrap_err()).0, 403);
    let subnet = owner.fetch_subnet_by_canister(&canister).await.unwrap();
    assert_eq!(subnet.id(), Principal::self_authenticating(&replica.root_key));
    assert!(subnet.contains_canister(&canister));
    assert_eq!(subnet.iter_nodes().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_must_agree_with_the_content() {
    let replica = Replica::start("addresses");
    let agent = replica.agent(ed25519(1)).await;
    let (one, two) = (create(&agent).await, create(&agent).await);
    let argument = candid::encode_one(ic00::CanisterIdRecord { canister_id: one }).unwrap();
    let status = agent.update(&Principal::management_canister(), "canister_status").with_arg(argument.clone());
    let (code, text) = http_status(status.with_effective_canister_id(two).await.unwrap_err());
    assert_eq!(code, 400);
    assert!(text.contains("effective canister id"), "{text}");
    manage(&agent, one, "canister_status", &ic00::CanisterIdRecord { canister_id: one }).await;
}

/// The older endpoints: calls that never wait, and queries and reads of version 2, as browsers' older agents use them.
#[tokio::test(flavor = "multi_thread")]
async fn older_endpoints_and_unknown_ones() {
    let replica = Replica::start("older");
    let agent = replica.agent(ed25519(1)).await;
    let canister = deploy(&agent, clerk()).await;
    let client = reqwest::Client::new();
    let post = |path: String, body: Vec<u8>| {
        let request = client.post(format!("{}{path}", replica.url)).header("content-type", "application/cbor");
        async { request.body(body).send().await.unwrap() }
    };
    let signed = agent.update(&canister, "inc").sign().unwrap();
    let accepted = post(format!("/api/v2/canister/{canister}/call"), signed.signed_update).await;
    assert_eq!(accepted.status(), 202);
    assert_eq!(to_u32(&agent.wait(&signed.request_id, canister).await.unwrap().0), 1);
    let query = agent.query(&canister, "get").sign().unwrap();
    let answered = post(format!("/api/v2/canister/{canister}/query"), query.signed_query).await;
    assert_eq!(answered.status(), 200);
    assert_eq!(answered.headers()["access-control-allow-origin"], "*");
    assert_eq!(answered.headers()["content-type"], "application/cbor");
    let answer: ic_transport_types::QueryResponse = serde_cbor::from_slice(&answered.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.signatures().len(), 1);
    for path in ["/api/v2/canister/x/call", "/api/v2/canister/aaaaa-aa/nothing", "/api/v2/subnet/aaaaa-aa/query"] {
        let response = post(path.into(), vec![]).await;
        assert!(response.status().is_client_error(), "{path}: {}", response.status());
        assert!(!response.text().await.unwrap().is_empty());
    }
    let preflight =
        client.request(reqwest::Method::OPTIONS, format!("{}/api/v3/canister/{canister}/call", replica.url));
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert!(preflight.headers().contains_key("access-control-allow-headers"));
    let metrics: serde_json::Value = serde_json::from_slice(
        &client.get(format!("{}/_/metrics/{canister}", replica.url)).send().await.unwrap().bytes().await.unwrap(),
    )
    .unwrap();
    assert!(metrics["total"]["instructions"].as_u64().unwrap() > 0, "{metrics}");
    assert!(metrics["total"]["messages"].as_u64().unwrap() >= 1, "{metrics}");
}

/// While a message of more than ten seconds executes, the server answers, its caller is told to ask again, and calls
/// that come meanwhile are executed after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_message_blocks_nobody_but_its_turn() {
    let replica = Replica::start("long");
    let agent = replica.agent(ed25519(1)).await;
    let (slow, quick) = (deploy(&agent, clerk()).await, deploy(&agent, clerk()).await);
    // The loop's rounds a second are this machine's; find out how many take 14 seconds.
    let probe: u64 = 10_000_000;
    let mut seconds = f64::INFINITY;
    for _ in 0..3 {
        // The quickest of three: the others shared the machine with somebody.
        let started = Instant::now();
        agent.update(&slow, "toil").with_arg(probe.to_le_bytes().to_vec()).await.unwrap();
        seconds = seconds.min(started.elapsed().as_secs_f64());
    }
    let rounds = (probe as f64 * 14.0 / seconds) as u64;
    // A message has 40e9 instructions; a round of the loop takes 43.
    assert!(rounds < 40_000_000_000 / 43, "{rounds} rounds do not fit into a message");
    let signed = agent.update(&slow, "toil").with_arg(rounds.to_le_bytes().to_vec()).sign().unwrap();
    let started = Instant::now();
    let long = tokio::spawn({
        let agent = agent.clone();
        let body = signed.signed_update.clone();
        async move { agent.update_signed(slow, body).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = Instant::now();
    agent.status().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "status took {:?}", asked.elapsed());
    assert_eq!(to_u32(&agent.update(&quick, "inc").await.unwrap()), 1);
    let first = long.await.unwrap();
    let reply = agent.wait(&signed.request_id, slow).await.unwrap().0;
    let took = started.elapsed();
    assert_eq!(to_u32(&reply), 4);
    assert!(took > Duration::from_secs(11), "not long enough to be told to ask again: {took:?}");
    assert!(matches!(first, CallResponse::Poll(_)), "answered at once after {took:?}");
}

/// Three batches of uploads: what the history keeps must not make the next batch slower.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_do_not_slow_down() {
    let replica = Replica::start("uploads");
    let agent: Agent = replica.agent(ed25519(1)).await;
    let canister = deploy(&agent, clerk()).await;
    const CHUNK_BYTES: usize = 1_900_000;
    let mut batches = Vec::new();
    for _ in 0..3 {
        let mut updates = Vec::new();
        for _ in 0..40 {
            let started = Instant::now();
            let reply = agent.update(&canister, "swallow").with_arg(vec![7; CHUNK_BYTES]).await.unwrap();
            assert_eq!(to_u32(&reply) as usize, CHUNK_BYTES);
            updates.push(started.elapsed().as_secs_f64());
        }
        // The median: what else runs on the machine disturbs some updates, a slowdown all of them.
        updates.sort_by(f64::total_cmp);
        batches.push((updates.iter().sum::<f64>(), updates[20]));
    }
    println!("40 updates of {CHUNK_BYTES} bytes, seconds in all and median: {batches:.4?}");
    assert!(batches[2].1 < 1.5 * batches[0].1 + 0.005, "the third batch is slower: {batches:.4?}");
}
