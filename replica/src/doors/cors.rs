//! Cross-origin headers: pages that a canister serves at `<canister>.localhost` call the interface at `localhost`.

use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// How long a browser may keep the answer to a preflight request, in seconds.
const PREFLIGHT_MAX_AGE_S: &str = "600";

/// The answer to a preflight request; `None` for every other method.
pub fn preflight(method: &Method) -> Option<Response> {
    (method == Method::OPTIONS).then(|| {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, Accept, Authorization, Cache-Control, Range, Cookie"),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    })
}

/// Lets every origin read `response`, unless it already says who may.
pub fn allow_every_origin(mut response: Response) -> Response {
    response.headers_mut().entry(header::ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
    response
}
