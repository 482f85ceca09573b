//! What the tests of the doors share: the canister, a replica process, and calls through ic-agent.
#![allow(dead_code)]

use candid::{CandidType, Encode, Principal};
use ic_agent::{Agent, Identity};
use ic_management_canister_types as ic00;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_replica");

/// The canister of `clerk.wat`.
pub fn clerk() -> Vec<u8> {
    wat::parse_str(include_str!("clerk.wat")).unwrap()
}

/// A canister that replies to each of `methods` (exported names) with constant bytes.
pub fn constant(methods: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut wat = String::from(
        r#"(module
        (import "ic0" "msg_reply" (func $reply))
        (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
        (memory 16)"#,
    );
    let mut offset = 0;
    for (name, bytes) in methods {
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let length = bytes.len();
        wat += &format!(
            r#"(data (i32.const {offset}) "{escaped}")
            (func (export "{name}") (call $append (i32.const {offset}) (i32.const {length})) (call $reply))"#
        );
        offset += length;
    }
    wat::parse_str(wat + ")").unwrap()
}

/// A directory of this test process; each name gives another.
pub fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("replica_doors_{}_{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A running `replica start`; dropping it ends it.
pub struct Replica {
    child: Child,
    pub port: u16,
    pub url: String,
    pub root_key: Vec<u8>,
}

impl Replica {
    pub fn start(name: &str) -> Replica {
        Replica::start_with(name, &[])
    }

    pub fn start_with(name: &str, options: &[&str]) -> Replica {
        let status_file = scratch(name).join("status.json");
        let _ = std::fs::remove_file(&status_file);
        let mut child = Command::new(BINARY)
            .args(["start", "--port", "0", "--status-file"])
            .arg(&status_file)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let line = loop {
            if let Ok(line) = std::fs::read_to_string(&status_file) {
                break line;
            }
            assert!(child.try_wait().unwrap().is_none(), "the replica ended");
            assert!(started.elapsed() < Duration::from_secs(30), "the replica does not come up");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(line.ends_with('\n'));
        let status: serde_json::Value = serde_json::from_str(&line).unwrap();
        Replica {
            child,
            port: status["port"].as_u64().unwrap().try_into().unwrap(),
            url: status["url"].as_str().unwrap().into(),
            root_key: hex::decode(status["root_key"].as_str().unwrap()).unwrap(),
        }
    }

    pub async fn agent(&self, identity: impl Identity + 'static) -> Agent {
        agent(&self.url, identity).await
    }

    /// Asks the process to end and waits for it.
    pub fn stop(mut self) -> std::process::ExitStatus {
        // SAFETY: kill takes plain numbers; the process is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        self.child.wait().unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent that trusts the network's own root key.
pub async fn agent(url: &str, identity: impl Identity + 'static) -> Agent {
    let agent = Agent::builder().with_url(url).with_identity(identity).build().unwrap();
    agent.fetch_root_key().await.unwrap();
    agent
}

pub async fn manage<T: CandidType>(agent: &Agent, effective: Principal, method: &str, argument: &T) -> Vec<u8> {
    agent
        .update(&Principal::management_canister(), method)
        .with_effective_canister_id(effective)
        .with_arg(Encode!(argument).unwrap())
        .await
        .unwrap()
}

pub async fn create(agent: &Agent) -> Principal {
    let argument = ic00::ProvisionalCreateCanisterWithCyclesArgs {
        amount: Some(100_000_000_000_000_u128.into()),
        ..Default::default()
    };
    let anywhere = Principal::from_slice(&[0x80, 0, 0, 0, 0, 0x10, 0, 0, 1, 1]);
    let reply = manage(agent, anywhere, "provisional_create_canister_with_cycles", &argument).await;
    candid::decode_one::<ic00::CanisterIdRecord>(&reply).unwrap().canister_id
}

pub async fn install(agent: &Agent, canister_id: Principal, wasm_module: Vec<u8>) {
    let argument = ic00::InstallCodeArgs {
        mode: ic00::CanisterInstallMode::Install,
        canister_id,
        wasm_module,
        arg: Vec::new(),
        sender_canister_version: None,
    };
    manage(agent, canister_id, "install_code", &argument).await;
}

pub async fn deploy(agent: &Agent, wasm_module: Vec<u8>) -> Principal {
    let canister_id = create(agent).await;
    install(agent, canister_id, wasm_module).await;
    canister_id
}

pub fn to_u32(reply: &[u8]) -> u32 {
    u32::from_le_bytes(reply.try_into().unwrap())
}
