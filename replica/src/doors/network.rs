//! A subnet on a thread of its own, and the handle by which every door reaches it.
//!
//! Requests become jobs that the thread takes in order, between rounds. With automatic progress the thread follows
//! the wall clock and executes rounds whenever there is work, a timer is due or a second has passed; without it time
//! and rounds move only when a client says so.

use crate::certification::Path;
use crate::subnet::{Ingress, IngressState, Rejection, RequestId, RoundSummary, Subnet, SubnetConfig};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use candid::Principal;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Jobs that may wait for the thread; an ingress message of 2 MiB in each would be 1 GiB.
const MAX_QUEUED_JOBS: usize = 512;

/// With automatic progress, the longest time between rounds: deadlines and fees fall due even when nothing else does.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// And the shortest after a round that had nothing to do: a timer that is due may belong to a canister that can't run.
const MIN_IDLE: Duration = Duration::from_millis(1);

/// How long after a save the next one may come: this, or so many times what the last one took.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
const SAVE_PAUSE_FACTOR: u32 = 20;

/// How to start a network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub subnet: SubnetConfig,
    pub auto_progress: bool,
}

/// What never changes while a network runs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub root_key_der: Vec<u8>,
    pub subnet_id: Principal,
    pub node_id: Principal,
    pub default_effective_canister_id: Principal,
    pub canister_ranges: Vec<(Principal, Principal)>,
    pub benchmark: bool,
}

/// Why a job could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("the subnet has stopped: its thread ended with an internal error, which is in the replica's log")]
    Stopped,
    #[error("{MAX_QUEUED_JOBS} requests already wait for the subnet; try again later")]
    Overloaded,
}

impl IntoResponse for NetworkError {
    fn into_response(self) -> Response {
        let status = match self {
            NetworkError::Stopped => StatusCode::INTERNAL_SERVER_ERROR,
            NetworkError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, self.to_string()).into_response()
    }
}

/// How a submitted call stands when waiting for it ends.
#[derive(Debug)]
pub enum CallOutcome {
    /// Replied or rejected; a certificate of its status.
    Certified(Vec<u8>),
    /// Not taken in.
    Refused(Rejection),
    /// Still to be executed.
    Pending,
}

type Job = Box<dyn FnOnce(&mut Host) + Send>;

/// The handle; clones are cheap. When the last one is dropped, the thread ends and the subnet is freed.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    jobs: mpsc::Sender<Job>,
    facts: Facts,
    gauges: Arc<Gauges>,
}

/// What the thread lets others see without waiting for it.
#[derive(Default)]
struct Gauges {
    queued_jobs: AtomicUsize,
    auto_progress: AtomicBool,
    time_ns: AtomicU64,
}

/// The state of the thread.
pub struct Host {
    subnet: Subnet,
    gauges: Arc<Gauges>,
    waiting: Vec<(RequestId, oneshot::Sender<Vec<u8>>)>,
    rounds: u64,
    /// The time that a client set for the next round; until then queries see that of the last.
    next_round_ns: Option<u64>,
    /// There may be something to execute.
    has_work: bool,
    /// Messages were executed since the last save.
    is_unsaved: bool,
    next_save: Instant,
}

/// Nanoseconds since 1970 by this machine's clock.
pub fn wall_clock_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

impl Network {
    /// Starts the subnet's thread. Blocks until the subnet is made.
    pub fn start(config: NetworkConfig) -> anyhow::Result<Network> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (started, start) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        gauges.auto_progress.store(config.auto_progress, Ordering::Relaxed);
        let thread_gauges = gauges.clone();
        std::thread::Builder::new().name("subnet".into()).spawn(move || {
            let subnet = match Subnet::new(config.subnet.clone()) {
                Ok(subnet) => subnet,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let facts = Facts {
                root_key_der: subnet.root_key().der(),
                subnet_id: subnet.subnet_id(),
                node_id: subnet.node_key().node_id(),
                default_effective_canister_id: subnet.default_effective_canister_id(),
                canister_ranges: subnet.canister_ranges(),
                benchmark: config.subnet.benchmark,
            };
            let mut host = Host {
                subnet,
                gauges: thread_gauges,
                waiting: Vec::new(),
                rounds: 0,
                next_round_ns: None,
                has_work: true,
                is_unsaved: false,
                next_save: Instant::now() + SAVE_INTERVAL,
            };
            host.publish_time();
            if started.send(Ok(facts)).is_ok() {
                host.serve(&queue);
            }
        })?;
        let facts = start.recv().map_err(|_| NetworkError::Stopped)??;
        Ok(Network { shared: Arc::new(Shared { jobs, facts, gauges }) })
    }

    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    pub fn auto_progress(&self) -> bool {
        self.shared.gauges.auto_progress.load(Ordering::Relaxed)
    }

    /// The time by which requests expire: the clock's when the subnet follows it, else the subnet's.
    pub fn now_ns(&self) -> u64 {
        let subnet_ns = self.shared.gauges.time_ns.load(Ordering::Relaxed);
        if self.auto_progress() { subnet_ns.max(wall_clock_ns()) } else { subnet_ns }
    }

    /// Does `job` on the subnet's thread, after those that came before it, and gives its result. The job is done even
    /// if the caller stops waiting.
    pub async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Host) -> R + Send + 'static,
    ) -> Result<R, NetworkError> {
        let (result, receiver) = oneshot::channel();
        self.enqueue(Box::new(move |host| {
            let _ = result.send(job(host));
        }))?;
        receiver.await.map_err(|_| NetworkError::Stopped)
    }

    /// Submits a call and waits up to `patience` for a certificate of its answer. After that the call stays submitted.
    pub async fn call(&self, ingress: Ingress, patience: Duration) -> Result<CallOutcome, NetworkError> {
        let id = ingress.id;
        let (certified, certificate) = oneshot::channel();
        let submitted = self.run(move |host| {
            host.submit(ingress)?;
            host.certify_when_done(id, certified);
            Ok::<(), Rejection>(())
        });
        let answer = async {
            match submitted.await? {
                Err(rejection) => Ok(CallOutcome::Refused(rejection)),
                // Without an answer the message is gone from the history; its client asks for its status.
                Ok(()) => Ok(certificate.await.map_or(CallOutcome::Pending, CallOutcome::Certified)),
            }
        };
        tokio::time::timeout(patience, answer).await.unwrap_or(Ok(CallOutcome::Pending))
    }

    fn enqueue(&self, job: Job) -> Result<(), NetworkError> {
        let Shared { jobs, gauges, .. } = &*self.shared;
        if gauges.queued_jobs.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED_JOBS {
            gauges.queued_jobs.fetch_sub(1, Ordering::Relaxed);
            return Err(NetworkError::Overloaded);
        }
        jobs.send(job).map_err(|_| NetworkError::Stopped)
    }
}

impl Host {
    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// The subnet, for a change that may give it something to execute.
    pub fn subnet_mut(&mut self) -> &mut Subnet {
        self.has_work = true;
        &mut self.subnet
    }

    /// Rounds executed since the network started.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    pub fn auto_progress(&self) -> bool {
        self.gauges.auto_progress.load(Ordering::Relaxed)
    }

    /// Turns automatic progress on or off. Turning it on moves time to the clock's at once.
    pub fn set_auto_progress(&mut self, enabled: bool) {
        self.gauges.auto_progress.store(enabled, Ordering::Relaxed);
        self.has_work = true;
        if enabled {
            self.round();
        }
    }

    /// The time as clients see it, in nanoseconds since 1970: that of the last round, or what was set since.
    pub fn time_ns(&self) -> u64 {
        self.next_round_ns.unwrap_or(self.subnet.time_ns())
    }

    /// Sets the time of the next round. False, and nothing is changed, if it lies in the past.
    pub fn set_time_ns(&mut self, time_ns: u64) -> bool {
        let now_ns = self.time_ns();
        if time_ns > now_ns {
            self.next_round_ns = Some(time_ns);
            self.has_work = true;
            self.publish_time();
        }
        time_ns >= now_ns
    }

    pub fn submit(&mut self, ingress: Ingress) -> Result<(), Rejection> {
        self.follow_clock();
        self.has_work = true;
        self.subnet.submit(ingress)
    }

    /// A certificate of the current state that reveals `paths` and the time.
    pub fn certificate(&mut self, paths: &[Path]) -> Vec<u8> {
        self.subnet.certificate(paths)
    }

    /// Moves time to the clock's if the subnet follows it, so that queries and certificates show a recent one.
    pub fn follow_clock(&mut self) {
        if self.auto_progress() {
            let now_ns = wall_clock_ns();
            if now_ns > self.subnet.time_ns() {
                self.subnet.set_time_ns(now_ns);
                self.publish_time();
            }
        }
    }

    /// Executes one round and answers the calls that it finished.
    pub fn round(&mut self) -> RoundSummary {
        self.follow_clock();
        if let Some(time_ns) = self.next_round_ns.take() {
            // The round itself adds one nanosecond.
            self.subnet.set_time_ns(time_ns.saturating_sub(1));
        }
        let summary = self.subnet.execute_round();
        self.rounds += 1;
        self.has_work = !summary.idle;
        self.is_unsaved |= summary.messages > 0;
        self.publish_time();
        self.answer_finished_calls();
        summary
    }

    /// Writes the state to its folder, if it has one.
    pub fn save(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let saved = self.subnet.save();
        self.is_unsaved = false;
        self.next_save = Instant::now() + SAVE_INTERVAL.max(started.elapsed() * SAVE_PAUSE_FACTOR);
        saved
    }

    /// Saves now and then while nothing is to be executed, so that a network that is killed loses little.
    fn save_if_due(&mut self) {
        let is_due = self.is_unsaved && !self.has_work && Instant::now() >= self.next_save;
        if is_due
            && self.subnet.has_state_dir()
            && let Err(error) = self.save()
        {
            eprintln!("the state is not saved: {error:#}");
        }
    }

    /// Sends a certificate of the message's status to `receiver` as soon as it is replied to or rejected.
    fn certify_when_done(&mut self, id: RequestId, receiver: oneshot::Sender<Vec<u8>>) {
        self.waiting.push((id, receiver));
        self.answer_finished_calls();
    }

    fn answer_finished_calls(&mut self) {
        for (id, receiver) in std::mem::take(&mut self.waiting) {
            if receiver.is_closed() {
                continue;
            }
            match self.subnet.ingress_status(&id).map(|status| &status.state) {
                Some(IngressState::Received | IngressState::Processing) => self.waiting.push((id, receiver)),
                Some(IngressState::Replied(_) | IngressState::Rejected(_) | IngressState::Done) => {
                    let path = vec![b"request_status".to_vec(), id.to_vec()];
                    let _ = receiver.send(self.subnet.certificate(&[path]));
                }
                None => {}
            }
        }
    }

    fn publish_time(&self) {
        self.gauges.time_ns.store(self.time_ns(), Ordering::Relaxed);
    }

    /// Takes jobs until the last handle is dropped.
    fn serve(&mut self, queue: &mpsc::Receiver<Job>) {
        loop {
            let first = if !self.auto_progress() {
                queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(self.time_to_next_round())
            };
            match first {
                Ok(job) => {
                    self.take(job);
                    // Everything that waits goes before the next round, so that a subnet that is never idle answers.
                    for job in queue.try_iter().take(MAX_QUEUED_JOBS) {
                        self.take(job);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.has_work = true,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if self.auto_progress() && self.has_work {
                self.round();
            }
            self.save_if_due();
        }
    }

    fn take(&mut self, job: Job) {
        self.gauges.queued_jobs.fetch_sub(1, Ordering::Relaxed);
        job(self);
    }

    fn time_to_next_round(&self) -> Duration {
        if self.has_work {
            return Duration::ZERO;
        }
        let until_timer = self.subnet.next_timer_ns().map(|due_ns| due_ns.saturating_sub(wall_clock_ns()));
        until_timer.map_or(MAX_IDLE, |ns| Duration::from_nanos(ns).clamp(MIN_IDLE, MAX_IDLE))
    }
}
