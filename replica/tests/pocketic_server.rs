//! The PocketIC server, driven by the `pocket-ic` crate as its users do.

mod common;

use candid::Principal;
use common::{BINARY, clerk, to_u32};
use ic_agent::identity::BasicIdentity;
use pocket_ic::common::rest::{BlobCompression, RawEffectivePrincipal};
use pocket_ic::{PocketIc, PocketIcBuilder, StartServerParams, Time, start_server};
use std::time::{Duration, Instant};

const T: u128 = 1_000_000_000_000;

/// The server of this test process. It ends ten seconds after the last test.
fn server_url() -> ic_agent::export::reqwest::Url {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let parameters = StartServerParams {
        server_binary: Some(BINARY.into()),
        reuse: true,
        ttl: Some(Duration::from_secs(10)),
        ..StartServerParams::default()
    };
    runtime.block_on(start_server(parameters)).1
}

fn builder() -> PocketIcBuilder {
    PocketIcBuilder::new().with_server_url(server_url())
}

fn instance() -> PocketIc {
    builder().with_application_subnet().build()
}

fn deploy(pic: &PocketIc) -> Principal {
    let canister = pic.create_canister();
    pic.add_cycles(canister, 10 * T);
    pic.install_canister(canister, clerk(), vec![], None);
    canister
}

fn update(pic: &PocketIc, canister: Principal, method: &str, payload: Vec<u8>) -> Vec<u8> {
    pic.update_call(canister, Principal::anonymous(), method, payload).unwrap()
}

fn query(pic: &PocketIc, canister: Principal, method: &str) -> Vec<u8> {
    pic.query_call(canister, Principal::anonymous(), method, vec![]).unwrap()
}

fn canister_time(pic: &PocketIc, canister: Principal) -> Time {
    Time::from_nanos_since_unix_epoch(u64::from_le_bytes(query(pic, canister, "now").try_into().unwrap()))
}

#[test]
fn canisters_are_created_installed_and_called() {
    let pic = instance();
    let canister = deploy(&pic);
    for expected in 1..=3 {
        assert_eq!(to_u32(&update(&pic, canister, "inc", vec![])), expected);
        assert_eq!(to_u32(&query(&pic, canister, "get")), expected);
    }
    let someone = Principal::self_authenticating([7]);
    assert_eq!(pic.update_call(canister, someone, "whoami", vec![]).unwrap(), someone.as_slice());
    assert_eq!(pic.query_call(canister, someone, "whoami_query", vec![]).unwrap(), someone.as_slice());
    let large = update(&pic, canister, "swallow", vec![1; 1_900_000]);
    assert_eq!(to_u32(&large), 1_900_000);
    pic.upgrade_canister(canister, clerk(), vec![], None).unwrap();
    assert_eq!(to_u32(&query(&pic, canister, "get")), 0);
    let status = pic.canister_status(canister, None).unwrap();
    assert!(status.module_hash.is_some());
    pic.stop_canister(canister, None).unwrap();
    pic.start_canister(canister, None).unwrap();
    pic.uninstall_canister(canister, None).unwrap();
}

#[test]
fn rejections_name_their_codes() {
    use pocket_ic::{ErrorCode, RejectCode};
    let pic = instance();
    let canister = deploy(&pic);
    let trapped = pic.update_call(canister, Principal::anonymous(), "trap", vec![]).unwrap_err();
    assert_eq!((trapped.reject_code, trapped.error_code), (RejectCode::CanisterError, ErrorCode::CanisterTrapped));
    assert!(trapped.certified);
    let refused = pic.query_call(canister, Principal::anonymous(), "refuse", vec![]).unwrap_err();
    assert_eq!((refused.reject_code, refused.reject_message.as_str()), (RejectCode::CanisterReject, "no"));
    assert!(!refused.certified);
    let unknown = pic.update_call(canister, Principal::anonymous(), "nothing", vec![]).unwrap_err();
    assert_eq!(unknown.error_code, ErrorCode::CanisterMethodNotFound);
    let nobody = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 77, 1, 1]);
    let absent = pic.update_call(nobody, Principal::anonymous(), "inc", vec![]).unwrap_err();
    assert_eq!(absent.error_code, ErrorCode::CanisterNotFound);
    assert!(!absent.certified);
}

/// Time stands still but for a nanosecond a round, and a time that was set is that of the next round.
#[test]
fn time_moves_as_it_is_told() {
    let pic = instance();
    let canister = deploy(&pic);
    let nanosecond = Duration::from_nanos(1);
    let start = pic.get_time();
    assert_eq!(start.as_nanos_since_unix_epoch() / 1_000_000_000, 1_620_328_630);
    pic.tick();
    assert_eq!(pic.get_time(), start + nanosecond);
    let time = Time::from_nanos_since_unix_epoch(1_650_000_000_000_000_000);
    pic.set_time(time);
    assert_eq!(pic.get_time(), time);
    pic.tick();
    assert_eq!((pic.get_time(), canister_time(&pic, canister)), (time, time));
    pic.tick();
    assert_eq!((pic.get_time(), canister_time(&pic, canister)), (time + nanosecond, time + nanosecond));
    let time = Time::from_nanos_since_unix_epoch(1_700_000_000_000_000_000);
    pic.set_certified_time(time);
    assert_eq!((pic.get_time(), canister_time(&pic, canister)), (time, time));
    pic.tick();
    assert_eq!(pic.get_time(), time + nanosecond);
    let now = pic.get_time();
    pic.advance_time(Duration::from_secs(420));
    assert_eq!(pic.get_time(), now + Duration::from_secs(420));
}

#[test]
#[should_panic(expected = "SettingTimeIntoPast")]
fn time_does_not_go_back() {
    let pic = instance();
    pic.set_time(Time::from_nanos_since_unix_epoch(1));
}

#[test]
fn timers_go_off_when_time_has_come() {
    let pic = instance();
    let canister = deploy(&pic);
    update(&pic, canister, "arm", vec![]);
    for _ in 0..5 {
        pic.tick();
    }
    assert_eq!(to_u32(&query(&pic, canister, "get")), 0);
    pic.advance_time(Duration::from_millis(900));
    pic.tick();
    assert_eq!(to_u32(&query(&pic, canister, "get")), 0);
    pic.advance_time(Duration::from_millis(200));
    pic.tick();
    assert_eq!(to_u32(&query(&pic, canister, "get")), 1);
    pic.advance_time(Duration::from_secs(5));
    pic.tick();
    assert_eq!(to_u32(&query(&pic, canister, "get")), 1);
}

#[test]
fn cycles_controllers_and_existence() {
    let pic = instance();
    let owner = Principal::self_authenticating([1]);
    let canister = pic.create_canister_with_settings(Some(owner), None);
    assert_eq!(pic.get_controllers(canister), vec![owner]);
    let before = pic.cycle_balance(canister);
    assert_eq!(pic.add_cycles(canister, 3 * T), before + 3 * T);
    assert_eq!(pic.cycle_balance(canister), before + 3 * T);
    assert!(pic.canister_exists(canister));
    assert!(!pic.canister_exists(Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 77, 1, 1])));
    let topology = pic.topology();
    assert_eq!(pic.get_subnet(canister), Some(topology.get_app_subnets()[0]));
    assert_eq!(topology.get_subnet(canister), pic.get_subnet(canister));
    assert!(pic.get_canister_http().is_empty());
}

#[test]
fn stable_memory_is_set_and_read_packed_or_not() {
    let pic = instance();
    let canister = deploy(&pic);
    for compression in [BlobCompression::NoCompression, BlobCompression::Gzip] {
        let mut data: Vec<u8> = (0..200_000_u32).map(|i| (i * i >> 7) as u8).collect();
        data.push(compression as u8);
        let mut sent = data.clone();
        if compression == BlobCompression::Gzip {
            use std::io::Write;
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&data).unwrap();
            sent = gzip.finish().unwrap();
        }
        pic.set_stable_memory(canister, sent, compression);
        let read = pic.get_stable_memory(canister);
        assert_eq!(read.len() % 65_536, 0);
        assert_eq!(read[..data.len()], data);
    }
}

#[test]
fn messages_are_submitted_and_awaited_apart() {
    let pic = instance();
    let canister = deploy(&pic);
    let me = Principal::self_authenticating([1]);
    let first = pic.submit_call(canister, me, "inc", vec![]).unwrap();
    let second = pic.submit_call(canister, me, "inc", vec![]).unwrap();
    assert!(pic.ingress_status(first.clone()).is_none());
    let (one, two) = (pic.await_call(first.clone()).unwrap(), pic.await_call(second).unwrap());
    let mut counts = [to_u32(&one), to_u32(&two)];
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    assert_eq!(pic.ingress_status(first.clone()).unwrap().unwrap(), one);
    let other = pic.ingress_status_as(first, Principal::anonymous());
    assert!(matches!(other, pocket_ic::IngressStatusResult::Forbidden(_)), "{other:?}");
    let third = pic.submit_call(canister, me, "inc", vec![]).unwrap();
    pic.auto_progress();
    assert_eq!(to_u32(&pic.await_call_no_ticks(third).unwrap()), 3);
    assert!(pic.auto_progress_enabled());
    pic.stop_progress();
    assert!(!pic.auto_progress_enabled());
}

#[test]
fn instances_know_nothing_of_each_other() {
    let (one, two) = (instance(), instance());
    let (a, b) = (deploy(&one), deploy(&two));
    assert_eq!(to_u32(&update(&one, a, "inc", vec![])), 1);
    assert_eq!(to_u32(&query(&two, b, "get")), 0);
    let id = one.instance_id();
    let again = PocketIc::new_from_existing_instance(one.get_server_url(), id, None);
    assert_eq!(to_u32(&query(&again, a, "get")), 1);
    drop(one);
    assert_eq!(to_u32(&query(&two, b, "get")), 0);
    assert_ne!(two.instance_id(), id);
}

#[test]
fn agents_and_browsers_reach_a_live_instance() {
    let mut pic = builder().with_nns_subnet().with_application_subnet().build();
    let canister = deploy(&pic);
    let url = pic.make_live(None);
    let root_key = pic.root_key().unwrap();
    let instance_url = format!("{}instances/{}/", pic.get_server_url(), pic.instance_id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for url in [url.as_str(), &instance_url] {
            let agent = common::agent(url, BasicIdentity::from_raw_key(&[1; 32])).await;
            assert_eq!(agent.read_root_key(), root_key);
            agent.update(&canister, "inc").await.unwrap();
            let id = pocket_ic::nonblocking::get_default_effective_canister_id(url.into()).await.unwrap();
            let topology = pic_topology(&instance_url).await;
            assert_eq!(id.as_slice(), topology.default_effective_canister_id.canister_id);
        }
    });
    assert_eq!(to_u32(&query(&pic, canister, "get")), 2);
    // Time is the clock's now.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let shown = Duration::from_nanos(pic.get_time().as_nanos_since_unix_epoch());
    assert!(now.abs_diff(shown) < Duration::from_secs(5), "{now:?} and {shown:?}");
    pic.stop_live();
}

async fn pic_topology(instance_url: &str) -> pocket_ic::common::rest::Topology {
    let url = format!("{instance_url}_/topology");
    let bytes = ic_agent::export::reqwest::get(url).await.unwrap().bytes().await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn canisters_are_created_where_they_are_wanted() {
    let pic = instance();
    let subnet = pic.topology().get_app_subnets()[0];
    let canister = pic.create_canister_on_subnet(None, None, subnet);
    assert!(pic.canister_exists(canister));
    let wanted = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 42, 1, 1]);
    assert_eq!(pic.create_canister_with_id(None, None, wanted).unwrap(), wanted);
    let elsewhere = RawEffectivePrincipal::SubnetId(Principal::self_authenticating([9]).as_slice().to_vec());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let management = Principal::management_canister();
        pic.submit_call_with_effective_principal(management, elsewhere, Principal::anonymous(), "x", vec![])
    }));
    assert!(caught.is_err());
}

#[test]
#[should_panic(expected = "no SNS subnet")]
fn other_subnets_are_refused_by_name() {
    builder().with_application_subnet().with_sns_subnet().build();
}

#[test]
fn an_unused_server_ends_by_itself() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let parameters = StartServerParams {
        server_binary: Some(BINARY.into()),
        reuse: false,
        ttl: Some(Duration::from_secs(1)),
        ..StartServerParams::default()
    };
    let (mut child, url) = runtime.block_on(start_server(parameters));
    let pic = PocketIcBuilder::new().with_server_url(url).with_application_subnet().build();
    let canister = deploy(&pic);
    assert_eq!(to_u32(&update(&pic, canister, "inc", vec![])), 1);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(8), "the server still runs");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success());
    assert!(started.elapsed() >= Duration::from_millis(700), "ended after {:?}", started.elapsed());
    std::mem::forget(pic);
}
