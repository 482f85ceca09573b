//! The embedded replica as a process, reached by `ic-agent`.

use crate::environment;
use anyhow::{Context, Result, bail};
use candid::{CandidType, Decode, Encode, Principal};
use ic_agent::Agent;
use ic_utils::interfaces::ManagementCanister;
use ic_utils::interfaces::management_canister::builders::CanisterInstallMode;
use onnx_canister_interface::{Error, InitArgs};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Cycles that a deployed canister starts with: enough for anything a test does.
pub const INITIAL_CYCLES: u128 = 1_000_000_000_000_000;

/// A running replica; stopped when dropped.
pub struct Network {
    process: Child,
    pub url: String,
    pub root_key_hex: String,
    /// Holds the status file.
    _folder: tempfile::TempDir,
}

/// The line that `replica start --status-file` writes.
#[derive(Deserialize)]
struct Status {
    url: String,
    root_key: String,
}

/// What the replica charged a canister since it was created, by its own count.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct Charges {
    pub instructions: u64,
    /// Of the instructions, charges for pages touched.
    pub page_charge: u64,
    pub messages: u64,
    /// Slices of 2e9 instructions: rounds, and so roughly seconds, on a real subnet.
    pub slices: u64,
    pub pages_dirtied: u64,
    pub cycles: Cycles,
}

/// Cycles by what they paid for.
#[derive(Deserialize, Clone, Debug, Default)]
pub struct Cycles {
    pub ingress: u128,
    pub execution: u128,
    pub transmission: u128,
}

impl Charges {
    /// Rounds on a real subnet, each roughly a second: a slice of instructions takes one, and so do 75 MiB of written
    /// pages (the heap-delta rate that a canister is held to).
    pub fn rounds(&self) -> u64 {
        const PAGES_PER_ROUND: u64 = 75 * 16;
        self.slices.max(self.pages_dirtied.div_ceil(PAGES_PER_ROUND))
    }

    /// What was charged after `before` was read.
    pub fn since(&self, before: &Charges) -> Charges {
        Charges {
            instructions: self.instructions - before.instructions,
            page_charge: self.page_charge - before.page_charge,
            messages: self.messages - before.messages,
            slices: self.slices - before.slices,
            pages_dirtied: self.pages_dirtied - before.pages_dirtied,
            cycles: Cycles {
                ingress: self.cycles.ingress - before.cycles.ingress,
                execution: self.cycles.execution - before.cycles.execution,
                transmission: self.cycles.transmission - before.cycles.transmission,
            },
        }
    }
}

impl Cycles {
    /// What the work cost, storage apart.
    pub fn total(&self) -> u128 {
        self.ingress + self.execution + self.transmission
    }
}

impl Network {
    /// Starts a replica on a free port, or on `port`, and waits until it answers.
    pub fn start(port: u16) -> Result<Network> {
        Network::start_with(&["--port", &port.to_string()])
    }

    /// Starts a replica with these options of `replica start` and waits until it answers.
    pub fn start_with(options: &[&str]) -> Result<Network> {
        let folder = tempfile::tempdir()?;
        let status_file: PathBuf = folder.path().join("status.json");
        let process = Command::new(environment::replica_bin()?)
            .arg("start")
            .args(options)
            .arg("--status-file")
            .arg(&status_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the replica")?;
        let mut network = Network { process, url: String::new(), root_key_hex: String::new(), _folder: folder };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = std::fs::read_to_string(&status_file).ok().filter(|text| text.ends_with('\n')) {
                let status: Status = serde_json::from_str(&status).context("the replica's status file")?;
                network.url = status.url;
                network.root_key_hex = status.root_key;
                return Ok(network);
            }
            if let Some(status) = network.process.try_wait()? {
                bail!("the replica ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("the replica wrote no status file within {START_TIMEOUT:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An anonymous agent: on a local network anonymous is whoever deploys.
    pub fn agent(&self) -> Result<Agent> {
        let agent = Agent::builder().with_url(&self.url).build()?;
        agent.set_root_key(hex::decode(&self.root_key_hex)?);
        Ok(agent)
    }

    /// What the replica charged `canister` so far: the embedded replica's own page, which no real network has.
    pub fn charges(&self, canister: Principal) -> Result<Charges> {
        #[derive(Deserialize)]
        struct Metrics {
            total: Charges,
        }
        let response = self.get(&format!("/_/metrics/{canister}"))?;
        let (_, body) = response.split_once("\r\n\r\n").context("an HTTP response")?;
        let metrics: Metrics = serde_json::from_str(body).with_context(|| response.clone())?;
        Ok(metrics.total)
    }

    /// An HTTP GET: status line, headers and body as they came.
    pub fn get(&self, path: &str) -> Result<String> {
        let address = self.url.strip_prefix("http://").context("the replica's URL")?.trim_end_matches('/');
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }

    /// Asks the process to end, as Ctrl-C does, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let sent = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "kill: {sent}");
        let status = self.process.wait()?;
        anyhow::ensure!(status.success(), "the replica ended with {status}");
        Ok(())
    }

    /// Waits until the process ends, which is when somebody interrupts it.
    pub fn wait(&mut self) -> Result<()> {
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A deployed canister and the agent that deployed it.
#[derive(Clone)]
pub struct Canister {
    pub agent: Agent,
    pub id: Principal,
}

impl Canister {
    /// Creates a canister with a 4 GiB heap limit and installs the project's Wasm.
    pub async fn deploy(agent: &Agent, arguments: Option<InitArgs>) -> Result<Canister> {
        Canister::deploy_wasm(agent, &environment::canister_wasm()?, &Encode!(&arguments)?).await
    }

    /// Creates a canister with a 4 GiB heap limit and installs a module with this argument.
    pub async fn deploy_wasm(agent: &Agent, wasm: &[u8], argument: &[u8]) -> Result<Canister> {
        let management = ManagementCanister::create(agent);
        let (id,) = management
            .create_canister()
            .as_provisional_create_with_amount(Some(INITIAL_CYCLES))
            .with_wasm_memory_limit(4_u64 << 30)
            .call_and_wait()
            .await
            .context("create_canister")?;
        management
            .install(&id, wasm)
            .with_mode(CanisterInstallMode::Install)
            .with_raw_arg(argument.to_vec())
            .call_and_wait()
            .await
            .context("install")?;
        Ok(Canister { agent: agent.clone(), id })
    }

    /// An update call whose method answers `variant { Ok; Err }`.
    pub async fn update<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        argument: A,
    ) -> Result<Result<T, Error>> {
        let reply = self.agent.update(&self.id, method).with_arg(Encode!(&argument)?).call_and_wait().await?;
        Ok(Decode!(&reply, Result<T, Error>)?)
    }

    /// A query call whose method answers `variant { Ok; Err }`.
    pub async fn query<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        argument: A,
    ) -> Result<Result<T, Error>> {
        let reply = self.agent.query(&self.id, method).with_arg(Encode!(&argument)?).call().await?;
        Ok(Decode!(&reply, Result<T, Error>)?)
    }

    /// A query call whose method takes nothing and answers no `variant`.
    pub async fn query_plain<T: CandidType + DeserializeOwned>(&self, method: &str) -> Result<T> {
        let reply = self.agent.query(&self.id, method).with_arg(Encode!()?).call().await?;
        Ok(Decode!(&reply, T)?)
    }
}
