//! The network's own canisters: the ledgers, and cycles for ICP.

use super::*;
use candid::{CandidType, Nat};
use serde::Deserialize;
use serde_bytes::ByteBuf;

#[derive(CandidType)]
struct Account {
    owner: Principal,
    subaccount: Option<ByteBuf>,
}

#[derive(CandidType)]
struct Transfer {
    to: Account,
    amount: Nat,
}

#[derive(CandidType)]
struct Create {
    amount: Nat,
    creation_args: Option<Creation>,
}

#[derive(CandidType)]
struct Creation {
    settings: Option<ic00::CanisterSettings>,
}

#[derive(CandidType, Deserialize, Debug)]
struct Created {
    canister_id: Principal,
}

#[derive(CandidType, Deserialize, Debug)]
enum Failure {
    InsufficientFunds { balance: Nat },
    InvalidReceiver { receiver: Principal },
    FailedToCreate { error: String },
}

#[derive(CandidType)]
struct Withdraw {
    to: Principal,
    amount: Nat,
}

#[derive(CandidType)]
struct Deposit {
    to: Account,
}

fn cycles_ledger() -> Principal {
    Principal::from_text("um5iw-rqaaa-aaaaq-qaaba-cai").expect("an id")
}

fn user() -> Principal {
    Principal::from_slice(&[3; 29])
}

fn account(owner: Principal) -> Account {
    Account { owner, subaccount: None }
}

fn balance(net: &mut Net, owner: Principal) -> u128 {
    let argument = candid::encode_one(account(owner)).expect("it encodes");
    let reply = net.query(cycles_ledger(), "icrc1_balance_of", argument).expect("a balance");
    let balance: Nat = candid::decode_one(&reply).expect("a number");
    balance.0.try_into().expect("it is small")
}

fn ledger<T: CandidType + for<'a> Deserialize<'a>>(net: &mut Net, method: &str, args: impl CandidType) -> T {
    let reply = net.call(cycles_ledger(), method, candid::encode_one(args).expect("it encodes")).expect("a reply");
    candid::decode_one(&reply).expect("the reply decodes")
}

#[test]
fn cycles_move_and_make_canisters() {
    let mut net = Net::new();
    let moved: Result<Nat, Failure> =
        ledger(&mut net, "icrc1_transfer", Transfer { to: account(user()), amount: Nat::from(5 * T) });
    moved.expect("the anonymous principal is rich");
    assert_eq!(balance(&mut net, user()), 5 * T);

    net.sender = user();
    let settings = ic00::CanisterSettings { wasm_memory_limit: Some(Nat::from(1_u64 << 32)), ..Default::default() };
    let args = Create { amount: Nat::from(2 * T), creation_args: Some(Creation { settings: Some(settings) }) };
    let made: Result<Created, Failure> = ledger(&mut net, "create_canister", args);
    let id = made.expect("it is made").canister_id;
    assert_eq!(net.cycles(&id), 2 * T - prices::CANISTER_CREATION);
    assert_eq!(net.subnet.controllers(&id), Some(vec![user()]));
    assert_eq!(net.canister(&id).settings.wasm_memory_limit_bytes, 1 << 32);
    let fee = 100_000_000;
    assert_eq!(balance(&mut net, user()), 3 * T - fee);

    let done: Result<Nat, Failure> = ledger(&mut net, "withdraw", Withdraw { to: id, amount: Nat::from(T) });
    done.expect("the canister is topped up");
    assert_eq!(net.cycles(&id), 3 * T - prices::CANISTER_CREATION);
    let done: Result<Nat, Failure> = ledger(&mut net, "withdraw", Withdraw { to: user(), amount: Nat::from(T) });
    assert!(matches!(done, Err(Failure::InvalidReceiver { .. })), "{done:?}");
    let args = Create { amount: Nat::from(T / 10), creation_args: None };
    let made: Result<Created, Failure> = ledger(&mut net, "create_canister", args);
    assert!(matches!(made, Err(Failure::FailedToCreate { .. })), "{made:?}");
    let left = balance(&mut net, user());
    let args = Create { amount: Nat::from(9 * T), creation_args: None };
    let made: Result<Created, Failure> = ledger(&mut net, "create_canister", args);
    assert!(matches!(made, Err(Failure::InsufficientFunds { .. })), "{made:?}");
    assert_eq!(balance(&mut net, user()), left);
}

#[test]
fn a_canister_deposits_cycles() {
    let (mut net, id) = Net::with_canister();
    let payload = candid::encode_one(Deposit { to: account(user()) }).expect("it encodes");
    let call = call_argument(T as u64, &cycles_ledger(), "deposit", &payload);
    net.call(id, "call", call).expect("a reply");
    assert_eq!(balance(&mut net, user()), T - 100_000_000);
}

#[test]
fn icp_becomes_cycles_once() {
    #[derive(CandidType)]
    struct Tokens {
        e8s: u64,
    }
    #[derive(CandidType)]
    struct IcpTransfer {
        to: ByteBuf,
        fee: Tokens,
        memo: u64,
        amount: Tokens,
    }
    #[derive(CandidType)]
    struct Notify {
        block_index: u64,
    }
    #[derive(CandidType, Deserialize, Debug)]
    struct Minted {
        minted: Nat,
    }
    #[derive(CandidType, Deserialize, Debug)]
    enum NotifyError {
        InvalidTransaction(String),
    }
    let mut net = Net::new();
    let [minting, icp] = ["rkp4c-7iaaa-aaaaa-aaaca-cai", "ryjl3-tyaaa-aaaaa-aaaba-cai"]
        .map(|text| Principal::from_text(text).expect("an id"));
    let mut subaccount = vec![0; 32];
    subaccount[..2].copy_from_slice(&[1, 4]);
    let account = Account { owner: minting, subaccount: Some(ByteBuf::from(subaccount)) };
    let reply = net.query(icp, "account_identifier", candid::encode_one(account).expect("it encodes"));
    let to: ByteBuf = candid::decode_one(&reply.expect("a reply")).expect("bytes");
    let transfer = IcpTransfer {
        to,
        fee: Tokens { e8s: 10_000 },
        memo: u64::from_le_bytes(*b"MINT\0\0\0\0"),
        amount: Tokens { e8s: 100_000_000 },
    };
    let reply = net.call(icp, "transfer", candid::encode_one(transfer).expect("it encodes")).expect("a reply");
    let block: Result<u64, candid::Reserved> = candid::decode_one(&reply).expect("a result");
    let block_index = block.expect("the anonymous principal is rich");
    let mut notify = || -> Result<Minted, NotifyError> {
        let argument = candid::encode_one(Notify { block_index }).expect("it encodes");
        let reply = net.call(minting, "notify_mint_cycles", argument).expect("a reply");
        candid::decode_one(&reply).expect("a result")
    };
    assert_eq!(notify().expect("cycles").minted, 3_500_000_000_000_u64);
    assert!(matches!(notify(), Err(NotifyError::InvalidTransaction(reason)) if reason.contains("already")));
}

#[test]
fn a_subnet_without_them_knows_no_ledger() {
    let mut net = Net::new();
    net.subnet.system = None;
    let rejection = net.call(cycles_ledger(), "icrc1_fee", vec![]).expect_err("there is none");
    assert_eq!(rejection.error_code, ErrorCode::CanisterNotFound);
    let mut net = Net::new();
    let rejection = net.call(cycles_ledger(), "nonsense", vec![]).expect_err("it has no such method");
    assert_eq!(rejection.error_code, ErrorCode::CanisterMethodNotFound);
}
