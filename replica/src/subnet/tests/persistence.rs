//! A subnet's state in a folder.

use super::*;
use crate::certification::Path as StatePath;
use std::fs;
use std::path::Path;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("replica_state_{name}_{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn open(&self) -> anyhow::Result<Net> {
        let config = SubnetConfig {
            seed: [9; 32],
            cache_dir: None,
            start_time_ns: START_NS,
            benchmark: false,
            system_canisters: true,
            state_dir: Some(self.0.clone()),
        };
        let subnet = Subnet::new(config)?;
        // Every message took a round, so this number is none that was used.
        let next_message = subnet.round;
        Ok(Net { subnet, sender: Principal::anonymous(), next_message })
    }

    fn refusal(&self) -> String {
        self.open().map(|_| String::new()).unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(path: &Path, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(path).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

#[test]
fn everything_is_as_it_was() {
    let folder = Folder::new("everything");
    let mut net = folder.open().expect("a subnet");
    let id = net.create_installed();
    let bare = net.create(7 * T, None);
    net.call(id, "inc", vec![]).expect("a reply");
    net.call(id, "certify", b"certified".to_vec()).expect("a reply");
    net.subnet.set_stable_memory(&id, vec![7; 200_000]);
    let args = ic00::TakeCanisterSnapshotArgs {
        canister_id: id,
        replace_snapshot: None,
        uninstall_code: None,
        sender_canister_version: None,
    };
    net.manage("take_canister_snapshot", (args,)).expect("a snapshot");
    net.call(id, "inc", vec![]).expect("a reply");
    net.about("stop_canister", bare).expect("it stops");
    // A message under way, whose answer comes after the restart.
    net.hold(&id);
    let waiting = net.submit(id, "inc", vec![]).expect("it is taken in");
    let root_key = net.subnet.root_key().der();
    let certificate_paths: Vec<StatePath> =
        vec![vec![b"canister".to_vec(), id.as_slice().to_vec()], vec![b"request_status".to_vec(), waiting.to_vec()]];
    let bare_state =
        |net: &Net| (net.canister(&bare).settings.clone(), net.canister(&bare).status.number(), net.cycles(&bare));
    let before = (net.subnet.certificate(&certificate_paths), bare_state(&net), net.subnet.counters(&id));
    let time_ns = net.subnet.time_ns();
    net.subnet.save().expect("it is saved");
    assert!(folder.refusal().contains("in use by another process"), "{}", folder.refusal());
    drop(net);

    let mut net = folder.open().expect("the subnet");
    assert_eq!(net.subnet.root_key().der(), root_key);
    assert_eq!(net.subnet.time_ns(), time_ns);
    assert_eq!(net.subnet.certificate(&certificate_paths), before.0);
    assert_eq!(net.subnet.counters(&id), before.2);
    assert_eq!(bare_state(&net), before.1);
    assert_eq!(before.1.1, 3, "it was stopped");
    assert_eq!(net.counter(id), 2);
    assert_eq!(net.subnet.stable_memory(&id).map(|bytes| bytes[..200_000].to_vec()), Some(vec![7; 200_000]));
    net.release(&id);
    assert_eq!(number(net.wait(&waiting)), 3);

    let reply = net.about("list_canister_snapshots", id).expect("a list");
    let snapshots: Vec<ic00::Snapshot> = candid::decode_one(&reply).expect("snapshots");
    let load = ic00::LoadCanisterSnapshotArgs {
        canister_id: id,
        snapshot_id: snapshots[0].id.clone(),
        sender_canister_version: None,
    };
    net.manage("load_canister_snapshot", (load,)).expect("it loads");
    assert_eq!(net.counter(id), 1);
    // Ids go on where they were.
    let next = net.create(T, None);
    assert!(next != id && next != bare);
}

#[test]
fn a_save_writes_what_changed_and_removes_what_is_not_needed() {
    let folder = Folder::new("changes");
    let mut net = folder.open().expect("a subnet");
    let (one, two) = (net.create_installed(), net.create_installed());
    net.subnet.save().expect("it is saved");
    let first = files(&folder.0, ".pages");
    assert_eq!(first.len(), 4);
    assert_eq!(files(&folder.0, ".wasm").len(), 1, "both have the same module");

    net.call(one, "inc", vec![]).expect("a reply");
    net.query(two, "get_dirty", vec![]).expect("a reply");
    net.subnet.save().expect("it is saved");
    let second = files(&folder.0, ".pages");
    let kept = first.iter().filter(|name| second.contains(name)).count();
    assert_eq!((kept, second.len()), (3, 4), "only one heap changed: {first:?} {second:?}");

    // Also after a restart, nothing is written twice.
    drop(net);
    let mut net = folder.open().expect("the subnet");
    net.subnet.save().expect("it is saved");
    assert_eq!(files(&folder.0, ".pages"), second);
    net.about("uninstall_code", one).expect("a reply");
    net.about("uninstall_code", two).expect("a reply");
    net.subnet.save().expect("it is saved");
    assert!(files(&folder.0, ".pages").is_empty() && files(&folder.0, ".wasm").is_empty());
}

#[test]
fn damage_is_named_and_nothing_is_overwritten() {
    let folder = Folder::new("damage");
    let mut net = folder.open().expect("a subnet");
    let id = net.create_installed();
    net.subnet.save().expect("it is saved");
    drop(net);
    let names = [files(&folder.0, "replica.state"), files(&folder.0, ".wasm"), files(&folder.0, ".pages")].concat();
    for name in names {
        let path = folder.0.join(&name);
        let good = fs::read(&path).expect("it is read");
        let mut flipped = good.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 0x80;
        let mut version = good.clone();
        version[8] ^= 0x40;
        for (what, bytes) in [
            ("a flipped bit", &flipped[..]),
            ("another version", &version[..]),
            ("a cut", &good[..good.len() - 1]),
            ("nothing", &[]),
        ] {
            fs::write(&path, bytes).expect("it is written");
            let refusal = folder.refusal();
            assert!(refusal.contains(&name), "{what} in {name}: {refusal:?}");
            assert_eq!(fs::read(&path).expect("it is read"), bytes, "{what} in {name}");
        }
        fs::write(&path, &good).expect("it is written");
    }
    assert_eq!(folder.open().expect("the subnet").counter(id), 0);
}
