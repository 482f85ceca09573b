//! Operations on an instance, in the server's protocol for long ones: what takes longer than ten seconds answers 202
//! with a name, under which the client asks for the result (`read_graph`) until it is there, and then drops it.

use super::activity::{Activity, Busy};
use super::types::StartedResponse;
use crate::doors::network::NetworkError;
use axum::Json;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a request waits for its operation.
const SYNCHRONOUS_WAIT: Duration = Duration::from_secs(10);

/// What an operation ends with: JSON, or the server's form of an error.
pub type Outcome = Result<Bytes, ApiError>;

/// An error in the server's form: a status and a message.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
}

impl ApiError {
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError { status: StatusCode::NOT_FOUND, message: message.into() }
    }
}

impl From<NetworkError> for ApiError {
    fn from(error: NetworkError) -> Self {
        ApiError { status: error.into_response().status(), message: error.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "message": self.message }))).into_response()
    }
}

/// `value` as JSON.
pub fn json<T: Serialize>(value: &T) -> Outcome {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message: format!("can't write the result as JSON: {e}"),
    })
}

/// An outcome as an HTTP response.
pub fn respond(outcome: Outcome) -> Response {
    match outcome {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => error.into_response(),
    }
}

enum Entry {
    Running(JoinHandle<Outcome>),
    Finished(Outcome),
}

/// Operations that outlasted their request, by instance and number.
pub struct Operations {
    synchronous_wait: Duration,
    next_id: AtomicU64,
    entries: Mutex<HashMap<(String, String), Entry>>,
}

impl Default for Operations {
    fn default() -> Self {
        Operations { synchronous_wait: SYNCHRONOUS_WAIT, next_id: AtomicU64::new(0), entries: Mutex::default() }
    }
}

impl Operations {
    /// Runs `operation` to its end, whether or not the client waits; answers with its outcome or its name.
    pub async fn run(
        &self,
        activity: &Arc<Activity>,
        instance_id: usize,
        operation: impl Future<Output = Outcome> + Send + 'static,
    ) -> Response {
        let busy: Busy = activity.begin();
        let mut task = tokio::spawn(async move {
            let _busy = busy;
            operation.await
        });
        if let Ok(joined) = tokio::time::timeout(self.synchronous_wait, &mut task).await {
            return respond(flatten(joined));
        }
        let state_label = instance_id.to_string();
        let op_id = self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        self.lock().insert((state_label.clone(), op_id.clone()), Entry::Running(task));
        (StatusCode::ACCEPTED, Json(StartedResponse { state_label, op_id })).into_response()
    }

    /// The outcome of an operation; 404 with plain text while there is none.
    pub async fn read(&self, state_label: &str, op_id: &str) -> Response {
        let key = (state_label.to_owned(), op_id.to_owned());
        let task = {
            let mut entries = self.lock();
            match entries.get(&key) {
                None => return not_yet("there is no such operation"),
                Some(Entry::Finished(outcome)) => return respond(outcome.clone()),
                Some(Entry::Running(task)) if !task.is_finished() => return not_yet("the operation is running"),
                Some(Entry::Running(_)) => entries.remove(&key),
            }
        };
        let Some(Entry::Running(task)) = task else { return not_yet("there is no such operation") };
        let outcome = flatten(task.await);
        self.lock().insert(key, Entry::Finished(outcome.clone()));
        respond(outcome)
    }

    /// Forgets an operation's outcome. One that still runs goes on.
    pub fn prune(&self, state_label: &str, op_id: &str) {
        self.lock().remove(&(state_label.to_owned(), op_id.to_owned()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_yet(text: &'static str) -> Response {
    (StatusCode::NOT_FOUND, text).into_response()
}

fn flatten(joined: Result<Outcome, tokio::task::JoinError>) -> Outcome {
    joined.unwrap_or_else(|e| {
        Err(ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: format!("the operation ended early: {e}") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> (StatusCode, String) {
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_long_operation_is_fetched_by_its_name() {
        let operations = Operations { synchronous_wait: Duration::from_millis(200), ..Operations::default() };
        let activity = Arc::new(Activity::default());
        let (finish, finished) = tokio::sync::oneshot::channel();
        let quick = operations.run(&activity, 3, async { json(&"done") }).await;
        assert_eq!(body(quick).await, (StatusCode::OK, r#""done""#.into()));
        let long = operations.run(&activity, 3, async {
            let answer: u32 = finished.await.unwrap();
            json(&answer)
        });
        let (status, started) = body(long.await).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(started, r#"{"state_label":"3","op_id":"0"}"#);
        assert_eq!(activity.pending(), 1);
        assert_eq!(body(operations.read("3", "0").await).await.0, StatusCode::NOT_FOUND);
        assert_eq!(body(operations.read("4", "0").await).await.0, StatusCode::NOT_FOUND);
        finish.send(42).unwrap();
        while activity.pending() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        for _ in 0..2 {
            assert_eq!(body(operations.read("3", "0").await).await, (StatusCode::OK, "42".into()));
        }
        operations.prune("3", "0");
        assert_eq!(body(operations.read("3", "0").await).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn errors_have_a_message() {
        let (operations, activity) = (Operations::default(), Arc::new(Activity::default()));
        let failed = operations.run(&activity, 0, async { Err(ApiError::bad_request("no")) }).await;
        assert_eq!(body(failed).await, (StatusCode::BAD_REQUEST, r#"{"message":"no"}"#.into()));
    }
}
