//! The HTTP gateway, used by an HTTP client.

mod common;

use candid::types::reference::Func;
use candid::{CandidType, Principal};
use common::{Replica, constant, create, install};
use ic_agent::export::reqwest::{Client, Response};
use ic_agent::identity::BasicIdentity;
use serde_bytes::ByteBuf;

#[derive(CandidType, Default)]
struct HttpResponse {
    status_code: u16,
    headers: Vec<(String, String)>,
    body: ByteBuf,
    upgrade: Option<bool>,
    streaming_strategy: Option<StreamingStrategy>,
}

candid::define_function!(StreamingCallback : (Token) -> (StreamingResponse) query);

#[derive(CandidType)]
enum StreamingStrategy {
    Callback { callback: StreamingCallback, token: Token },
}

#[derive(CandidType, candid::Deserialize)]
struct Token {
    key: String,
    index: u32,
}

#[derive(CandidType)]
struct StreamingResponse {
    body: ByteBuf,
    token: Option<Token>,
}

fn response(status_code: u16, body: &str) -> HttpResponse {
    let headers = vec![("Content-Type".into(), "text/plain; version=0.0.4".into()), ("X-Own".into(), "1".into())];
    HttpResponse { status_code, headers, body: ByteBuf::from(body), ..HttpResponse::default() }
}

fn encoded<T: CandidType>(value: T) -> Vec<u8> {
    candid::encode_one(value).unwrap()
}

async fn get(replica: &Replica, canister: Principal, path: &str) -> Response {
    Client::builder()
        .resolve(&format!("{canister}.localhost"), std::net::SocketAddr::from(([127, 0, 0, 1], replica.port)))
        .build()
        .unwrap()
        .get(format!("http://{canister}.localhost:{}{path}", replica.port))
        .send()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_by_host_and_by_parameter() {
    let replica = Replica::start("gateway_pages");
    let agent = replica.agent(BasicIdentity::from_raw_key(&[1; 32])).await;
    let canister = create(&agent).await;
    let module = constant(&[("canister_query http_request", encoded(response(201, "metrics here")))]);
    install(&agent, canister, module).await;
    let by_host = get(&replica, canister, "/metrics?x=1").await;
    let by_parameter =
        Client::new().get(format!("{}/metrics?canisterId={canister}", replica.url)).send().await.unwrap();
    for page in [by_host, by_parameter] {
        assert_eq!(page.status(), 201);
        let types: Vec<_> = page.headers().get_all("content-type").iter().collect();
        assert_eq!(types, ["text/plain; version=0.0.4"]);
        assert_eq!(page.headers()["x-own"], "1");
        assert_eq!(page.headers()["content-length"], "12");
        assert_eq!(page.text().await.unwrap(), "metrics here");
    }
    let landing = Client::new().get(&replica.url).send().await.unwrap();
    assert!(landing.text().await.unwrap().contains(&hex::encode(&replica.root_key)));
    let nowhere = Client::new().get(format!("{}/metrics", replica.url)).send().await.unwrap();
    assert_eq!(nowhere.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_ask_to_become_an_update() {
    let replica = Replica::start("gateway_upgrade");
    let agent = replica.agent(BasicIdentity::from_raw_key(&[1; 32])).await;
    let canister = create(&agent).await;
    let module = constant(&[
        ("canister_query http_request", encoded(HttpResponse { upgrade: Some(true), ..response(200, "") })),
        ("canister_update http_request_update", encoded(response(200, "from the update"))),
    ]);
    install(&agent, canister, module).await;
    assert_eq!(get(&replica, canister, "/").await.text().await.unwrap(), "from the update");
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_bodies_arrive_whole() {
    let replica = Replica::start("gateway_stream");
    let agent = replica.agent(BasicIdentity::from_raw_key(&[1; 32])).await;
    let canister = create(&agent).await;
    let callback = StreamingCallback(Func { principal: canister, method: "more".into() });
    let strategy = StreamingStrategy::Callback { callback, token: Token { key: "/big".into(), index: 1 } };
    let module = constant(&[
        (
            "canister_query http_request",
            encoded(HttpResponse { streaming_strategy: Some(strategy), ..response(200, "begin ") }),
        ),
        ("canister_query more", encoded(StreamingResponse { body: ByteBuf::from("end"), token: None })),
    ]);
    install(&agent, canister, module).await;
    assert_eq!(get(&replica, canister, "/big").await.text().await.unwrap(), "begin end");
}

#[tokio::test(flavor = "multi_thread")]
async fn canisters_without_pages_are_named() {
    let replica = Replica::start("gateway_errors");
    let agent = replica.agent(BasicIdentity::from_raw_key(&[1; 32])).await;
    let canister = create(&agent).await;
    let empty = get(&replica, canister, "/").await;
    assert_eq!(empty.status(), 502);
    assert!(empty.text().await.unwrap().contains("IC0537"));
    install(&agent, canister, constant(&[("canister_query http_request", b"not Candid".to_vec())])).await;
    let malformed = get(&replica, canister, "/").await;
    assert_eq!(malformed.status(), 502);
    assert!(malformed.text().await.unwrap().contains("gateway protocol"));
}
