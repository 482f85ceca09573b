//! `/metrics` in Prometheus' text format, over the HTTP gateway.

use crate::health;
use crate::jobs::driver;
use crate::limits::STABLE_BYTES_MAX;
use crate::runtime;
use crate::stable::{damage, directory};
use crate::store::models;
use candid::CandidType;
use ic_metrics_encoder::MetricsEncoder;
use onnx_canister_interface::{JobResult, ModelState};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::cell::Cell;
use std::io;

/// A request as the HTTP gateway passes it on.
#[derive(CandidType, Deserialize, Clone, Debug)]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
}

#[derive(CandidType, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    pub status_code: u16,
    pub headers: Vec<(String, String)>,
    pub body: ByteBuf,
}

/// What has been answered since the heap was new.
#[derive(Clone, Copy, Default)]
struct Counts {
    answers: u64,
    errors: u64,
    instructions: u64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { answers: 0, errors: 0, instructions: 0 }) };
}

/// Counts the answer of an update that ran a model.
pub fn count<E>(result: &Result<JobResult, E>) {
    let mut counts = COUNTS.get();
    match result {
        Ok(result) => {
            counts.answers += 1;
            counts.instructions += match result {
                JobResult::Classify(classification) => classification.cost.instructions,
                JobResult::Infer(response) => response.cost.instructions,
                JobResult::Profile(profile) => profile.cost.instructions,
                JobResult::Generate(generation) => generation.cost.instructions,
            };
        }
        Err(_) => counts.errors += 1,
    }
    COUNTS.set(counts);
}

/// Answers a request of the HTTP gateway.
pub fn http_request(request: &HttpRequest) -> HttpResponse {
    let path = request.url.split(['?', '#']).next().unwrap_or_default();
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return text(405, "only GET\n");
    }
    if path != "/metrics" {
        return text(404, "there is /metrics\n");
    }
    let mut encoder = MetricsEncoder::new(Vec::new(), (runtime::time_ns() / 1_000_000) as i64);
    match encode(&mut encoder) {
        Ok(()) => HttpResponse {
            status_code: 200,
            headers: vec![("content-type".into(), "text/plain; version=0.0.4".into())],
            body: ByteBuf::from(encoder.into_inner()),
        },
        Err(error) => text(500, &format!("{error}\n")),
    }
}

fn text(status_code: u16, body: &str) -> HttpResponse {
    let headers = vec![("content-type".into(), "text/plain; charset=utf-8".into())];
    HttpResponse { status_code, headers, body: ByteBuf::from(body) }
}

fn encode(encoder: &mut MetricsEncoder<Vec<u8>>) -> io::Result<()> {
    let health = health::health();
    let balance = runtime::cycle_balance() as f64;
    encoder.encode_gauge("onnx_cycle_balance", balance, "Cycles the canister has.")?;
    let days = health.days_left.map_or(f64::INFINITY, |days| days as f64);
    encoder.encode_gauge("onnx_days_left", days, "Days until the balance reaches the reserve.")?;
    let below_reserve = f64::from(u8::from(health.below_reserve));
    encoder.encode_gauge("onnx_below_reserve", below_reserve, "1 when inference is refused for lack of cycles.")?;
    encoder.encode_gauge("onnx_heap_bytes", health.heap_bytes as f64, "Bytes of Wasm heap.")?;
    encoder.encode_gauge("onnx_stable_bytes", health.stable_bytes as f64, "Bytes of stable memory.")?;
    encoder.encode_gauge("onnx_stable_limit_bytes", STABLE_BYTES_MAX as f64, "Most bytes of stable memory.")?;
    let free_bytes = directory::free_bytes() as f64;
    encoder.encode_gauge("onnx_stable_reusable_bytes", free_bytes, "Bytes of stable memory freed by deletion.")?;
    let damages = damage::found().len() as f64;
    encoder.encode_gauge("onnx_stable_damages", damages, "Damages found in stable memory since the upgrade.")?;
    encoder.encode_gauge("onnx_jobs_pending", f64::from(health.jobs_pending), "Jobs that wait or run.")?;
    encoder.encode_gauge(
        "onnx_open_calls",
        f64::from(driver::open_calls()),
        "Open calls of the canister to itself.",
    )?;
    let counts = COUNTS.get();
    encoder.encode_counter("onnx_answers_total", counts.answers as f64, "Inferences answered since the upgrade.")?;
    encoder.encode_counter("onnx_errors_total", counts.errors as f64, "Inferences refused or failed since then.")?;
    let instructions = counts.instructions as f64;
    encoder.encode_counter("onnx_inference_instructions_total", instructions, "Instructions of all answers.")?;
    let mut models = encoder.gauge_vec("onnx_model_state", "1 for the state that a model version is in.")?;
    for info in models::list().unwrap_or_default() {
        let state = match info.state {
            ModelState::Uploading { .. } => "uploading",
            ModelState::Committing { .. } => "committing",
            ModelState::Committed => "committed",
            ModelState::Loading { .. } => "loading",
            ModelState::Ready => "ready",
            ModelState::Failed { .. } => "failed",
        };
        let (version, active) = (info.version.to_string(), info.active.to_string());
        let labels = [("name", info.name.as_str()), ("version", &version), ("active", &active), ("state", state)];
        models = models.value(&labels, 1.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::upload;
    use crate::testing;

    fn get(method: &str, url: &str) -> (u16, String) {
        let request = HttpRequest { method: method.into(), url: url.into(), headers: vec![], body: ByteBuf::new() };
        let response = http_request(&request);
        (response.status_code, String::from_utf8(response.body.into_vec()).expect("text"))
    }

    #[test]
    fn metrics_name_every_model_and_its_state() {
        upload::begin(testing::manifest("a", &[("a.onnx", &[1, 2, 3])], 2)).expect("a good manifest");
        let (status, body) = get("GET", "/metrics?x=1");
        assert_eq!(status, 200);
        assert!(body.contains("onnx_model_state{name=\"a\",version=\"1\",active=\"false\",state=\"uploading\"} 1 "));
        assert!(body.contains("# TYPE onnx_answers_total counter"));
        assert!(body.contains("onnx_heap_bytes 33554432 "));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert_eq!(get("GET", "/").0, 404);
        assert_eq!(get("POST", "/metrics").0, 405);
    }
}
