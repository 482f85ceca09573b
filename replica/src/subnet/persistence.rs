//! A subnet's state in a folder, so that a network that is stopped and started again goes on where it was.
//!
//! ```text
//! STATE_DIR/
//!   lock                 held by the process that uses the folder
//!   replica.state        everything but modules and memories, and the names of the files that hold those
//!   HASH.wasm            a module as it was installed, under its SHA-256
//!   memory-N.pages       one memory: a heap or a stable memory, of a canister or of a snapshot
//!
//! replica.state                                memory-N.pages
//!   byte  0   8 bytes   "RPLSTATE"               byte  0   8 bytes   "RPLPAGES"
//!   byte  8   u32 LE    version                  byte  8   u32 LE    version
//!   byte 12   u64 LE    length of the rest       byte 12   u32 LE    number of pages that follow
//!   byte 20   32 bytes  SHA-256 of the rest      byte 16   u64 LE    size of the memory in bytes
//!   byte 52   CBOR of `Saved`                    byte 24   u32 LE    CRC-32 of the bytes before
//!                                                byte 28   for each page:
//!                                                            u32 LE        its number
//!                                                            u32 LE        CRC-32 of its content
//!                                                            65,536 bytes  its content
//! ```
//!
//! Files are never changed once they are written. A save writes the memories that changed under new names, then puts
//! a new `replica.state` in the old one's place in one step, then removes the files that it does not name. So a
//! process that is killed at any moment leaves a whole state: the old or the new one. Nothing waits for the disk itself
//! (`icp network stop` gives a network ten seconds): after a loss of power a checksum may tell of damage.

use super::canister::{Canister, Code};
use super::history::IngressHistory;
use super::message::{CallbackId, Request};
use super::system_canisters::SystemCanisters;
use super::{Subnet, SubnetConfig};
use crate::execution::{Engine, GlobalValue, Instance, MemoryImage, PAGE_BYTES, StableMemory};
use anyhow::{Context, ensure};
use candid::Principal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STATE_FILE: &str = "replica.state";
const STATE_MAGIC: &[u8; 8] = b"RPLSTATE";
const STATE_VERSION: u32 = 1;
const STATE_HEADER_BYTES: usize = 52;

const PAGES_MAGIC: &[u8; 8] = b"RPLPAGES";
const PAGES_VERSION: u32 = 1;
const PAGES_HEADER_BYTES: usize = 28;
const PAGES_SUFFIX: &str = ".pages";
const WASM_SUFFIX: &str = ".wasm";

/// Pages that are written to a file with one call.
const BUFFER_BYTES: usize = 16 * (PAGE_BYTES + 8);

/// What `replica.state` holds.
#[derive(Deserialize)]
struct Saved {
    seed: [u8; 32],
    time_ns: u64,
    round: u64,
    random_position: u128,
    next_canister: u64,
    next_file: u64,
    canisters: BTreeMap<Principal, Canister>,
    codes: BTreeMap<Principal, SavedCode>,
    snapshots: Vec<SavedSnapshot>,
    management: VecDeque<Request>,
    system: Option<SystemCanisters>,
    system_requests: VecDeque<Request>,
    history: IngressHistory,
    deadlines: BTreeSet<(u64, Principal, CallbackId)>,
}

/// The same, borrowed from a running subnet. Fields have the names that they have in [`Saved`].
#[derive(Serialize)]
struct Saving<'a> {
    seed: [u8; 32],
    time_ns: u64,
    round: u64,
    random_position: u128,
    next_canister: u64,
    next_file: u64,
    canisters: &'a BTreeMap<Principal, Canister>,
    codes: BTreeMap<Principal, SavedCode>,
    snapshots: Vec<SavedSnapshot>,
    management: &'a VecDeque<Request>,
    system: &'a Option<SystemCanisters>,
    system_requests: &'a VecDeque<Request>,
    history: &'a IngressHistory,
    deadlines: &'a BTreeSet<(u64, Principal, CallbackId)>,
}

/// Names of the files of a module and its memories.
#[derive(Clone, Serialize, Deserialize)]
struct SavedMemory {
    wasm: String,
    heap: String,
    stable: String,
}

#[derive(Serialize, Deserialize)]
struct SavedCode {
    memory: SavedMemory,
    globals: Option<Vec<GlobalValue>>,
}

#[derive(Serialize, Deserialize)]
struct SavedSnapshot {
    canister: Principal,
    number: u64,
    memory: SavedMemory,
}

/// The folder, and what this process knows of the files in it.
pub struct StateDir {
    dir: PathBuf,
    /// Names of memory files by the revision of their content.
    files: BTreeMap<u64, String>,
    next_file: u64,
    _lock: File,
}

impl StateDir {
    /// Makes the folder if need be and takes it for this process.
    pub fn open(dir: &Path) -> anyhow::Result<StateDir> {
        let show = || format!("state folder {}", dir.display());
        fs::create_dir_all(dir).with_context(show)?;
        let lock = File::create(dir.join("lock")).with_context(show)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => anyhow::anyhow!("{} is in use by another process", show()),
            fs::TryLockError::Error(error) => anyhow::Error::from(error).context(show()),
        })?;
        Ok(StateDir { dir: dir.to_path_buf(), files: BTreeMap::new(), next_file: 0, _lock: lock })
    }

    /// Puts the saved state, if there is one, into a new subnet.
    ///
    /// # Errors
    /// Names the file that is damaged, of another version or not there; nothing in the folder is changed.
    pub fn load(&mut self, config: &SubnetConfig) -> anyhow::Result<Option<Subnet>> {
        let path = self.dir.join(STATE_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let saved = decode_state(&bytes).with_context(|| path.display().to_string())?;
        let config = SubnetConfig { seed: saved.seed, state_dir: None, ..config.clone() };
        let mut subnet = Subnet::new(config)?;
        subnet.info.time_ns = subnet.info.time_ns.max(saved.time_ns);
        subnet.round = saved.round;
        subnet.random.set_word_pos(saved.random_position);
        subnet.next_canister = saved.next_canister;
        subnet.management = saved.management;
        subnet.system = saved.system.or(subnet.system);
        subnet.system_requests = saved.system_requests;
        subnet.history = saved.history;
        subnet.deadlines = saved.deadlines;
        subnet.canisters = saved.canisters;
        self.next_file = saved.next_file;
        for (id, code) in saved.codes {
            let canister = subnet.canisters.get_mut(&id).with_context(|| format!("code of canister {id}"))?;
            canister.code = Some(self.load_code(&subnet.engine, &id, code).with_context(|| format!("canister {id}"))?);
        }
        for SavedSnapshot { canister: id, number, memory } in saved.snapshots {
            let canister = subnet.canisters.get_mut(&id).with_context(|| format!("snapshot of canister {id}"))?;
            let snapshot = canister.snapshots.get_mut(&number).context("a snapshot that no canister has")?;
            snapshot.memory.wasm = self.load_wasm(&memory.wasm)?;
            snapshot.memory.heap = self.load_image(&memory.heap)?;
            snapshot.memory.stable = self.load_image(&memory.stable)?;
        }
        for canister in subnet.canisters.values() {
            subnet.certified.set_canister(canister);
        }
        for (id, status) in subnet.history.iter() {
            subnet.certified.set_request_status(id, &status.state);
        }
        Ok(Some(subnet))
    }

    fn load_code(&mut self, engine: &Engine, id: &Principal, saved: SavedCode) -> anyhow::Result<Code> {
        let SavedCode { memory, globals } = saved;
        let wasm = self.load_wasm(&memory.wasm)?;
        let compiled = Code::compile(engine, id, &wasm)
            .map_err(|rejection| anyhow::anyhow!("{}: {}", memory.wasm, rejection.message))?;
        let mut reader = PageReader::open(&self.dir.join(&memory.stable))?;
        let mut stable = StableMemory::with_size(reader.bytes).with_context(|| memory.stable.clone())?;
        reader.read_all(|page, bytes| Ok(stable.put_page(page, bytes)))?;
        self.files.insert(stable.revision(), memory.stable);
        let mut reader = PageReader::open(&self.dir.join(&memory.heap))?;
        let mut instance = Instance::restored(engine, &compiled.module, globals.as_deref(), reader.bytes, stable)
            .with_context(|| memory.heap.clone())?;
        reader.read_all(|page, bytes| instance.put_heap_page(page, bytes))?;
        self.files.insert(instance.heap_revision(), memory.heap);
        Ok(compiled.with_instance(instance))
    }

    fn load_wasm(&self, name: &str) -> anyhow::Result<Arc<[u8]>> {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let found = format!("{}{WASM_SUFFIX}", hex::encode(Sha256::digest(&bytes)));
        ensure!(found == name, "{} is damaged: its hash is that of {found}", path.display());
        Ok(bytes.into())
    }

    fn load_image(&mut self, name: &str) -> anyhow::Result<MemoryImage> {
        let mut reader = PageReader::open(&self.dir.join(name))?;
        let mut image = MemoryImage::zeros(reader.bytes);
        reader.read_all(|page, bytes| Ok(image.write(u64::from(page) * PAGE_BYTES as u64, bytes)))?;
        self.files.insert(image.revision(), name.to_string());
        Ok(image)
    }

    /// Writes what changed since the last save.
    pub fn save(&mut self, subnet: &Subnet) -> anyhow::Result<()> {
        let mut codes = BTreeMap::new();
        let mut snapshots = Vec::new();
        for (id, canister) in &subnet.canisters {
            if let Some(code) = &canister.code {
                let stable = code.instance.stable();
                let memory = SavedMemory {
                    wasm: self.save_wasm(&code.wasm)?,
                    heap: self.save_pages(code.instance.heap_revision(), code.instance.heap_bytes(), |write| {
                        code.instance.visit_heap(write)
                    })?,
                    stable: self.save_pages(stable.revision(), stable.size_bytes(), |write| stable.visit(write))?,
                };
                codes.insert(*id, SavedCode { memory, globals: code.instance.globals()? });
            }
            for (number, snapshot) in &canister.snapshots {
                let memory = SavedMemory {
                    wasm: self.save_wasm(&snapshot.memory.wasm)?,
                    heap: self.save_image(&snapshot.memory.heap)?,
                    stable: self.save_image(&snapshot.memory.stable)?,
                };
                snapshots.push(SavedSnapshot { canister: *id, number: *number, memory });
            }
        }
        let memories = codes.values().map(|code| &code.memory).chain(snapshots.iter().map(|saved| &saved.memory));
        let named: BTreeSet<String> =
            memories.flat_map(|memory| [&memory.wasm, &memory.heap, &memory.stable]).cloned().collect();
        let saving = Saving {
            seed: subnet.seed,
            time_ns: subnet.info.time_ns,
            round: subnet.round,
            random_position: subnet.random.get_word_pos(),
            next_canister: subnet.next_canister,
            next_file: self.next_file,
            canisters: &subnet.canisters,
            codes,
            snapshots,
            management: &subnet.management,
            system: &subnet.system,
            system_requests: &subnet.system_requests,
            history: &subnet.history,
            deadlines: &subnet.deadlines,
        };
        write_in_one_step(&self.dir.join(STATE_FILE), &encode_state(&saving)?)?;
        self.files.retain(|_, name| named.contains(name));
        self.remove_all_but(&named)
    }

    fn save_wasm(&self, wasm: &[u8]) -> anyhow::Result<String> {
        let name = format!("{}{WASM_SUFFIX}", hex::encode(Sha256::digest(wasm)));
        let path = self.dir.join(&name);
        if !path.exists() {
            write_in_one_step(&path, wasm)?;
        }
        Ok(name)
    }

    fn save_image(&mut self, image: &MemoryImage) -> anyhow::Result<String> {
        self.save_pages(image.revision(), image.bytes, |write| {
            image.pages.iter().try_for_each(|(page, bytes)| write(*page, bytes))
        })
    }

    /// The name of the file with this content, which is written unless it is there.
    fn save_pages(
        &mut self,
        revision: u64,
        bytes: u64,
        visit: impl FnOnce(&mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> anyhow::Result<String> {
        if let Some(name) = self.files.get(&revision) {
            return Ok(name.clone());
        }
        let name = format!("memory-{}{PAGES_SUFFIX}", self.next_file);
        self.next_file += 1;
        let path = self.dir.join(&name);
        write_pages(&path, bytes, visit).with_context(|| path.display().to_string())?;
        self.files.insert(revision, name.clone());
        Ok(name)
    }

    fn remove_all_but(&self, named: &BTreeSet<String>) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_ours = name.ends_with(PAGES_SUFFIX) || name.ends_with(WASM_SUFFIX);
            if is_ours && !named.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn encode_state(saving: &Saving) -> anyhow::Result<Vec<u8>> {
    let mut rest = Vec::new();
    ciborium::into_writer(saving, &mut rest)?;
    let mut bytes = STATE_MAGIC.to_vec();
    bytes.extend_from_slice(&STATE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(rest.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&Sha256::digest(&rest));
    bytes.extend_from_slice(&rest);
    Ok(bytes)
}

fn decode_state(bytes: &[u8]) -> anyhow::Result<Saved> {
    let (header, rest) = bytes
        .split_at_checked(STATE_HEADER_BYTES)
        .filter(|(header, _)| header.starts_with(STATE_MAGIC))
        .context("this is no state of a replica: it does not begin with \"RPLSTATE\"; it is left as it is")?;
    let version = u32::from_le_bytes(header[8..12].try_into()?);
    ensure!(version == STATE_VERSION, "version {version} of the state; this replica reads version {STATE_VERSION}");
    let len = u64::from_le_bytes(header[12..20].try_into()?);
    ensure!(len == rest.len() as u64, "the file is damaged: {} bytes instead of {len} behind its header", rest.len());
    ensure!(header[20..52] == Sha256::digest(rest)[..], "the file is damaged: its SHA-256 differs from the header's");
    ciborium::from_reader(rest).context("the state does not decode")
}

/// Writes a file that is there as a whole or not at all.
fn write_in_one_step(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| path.display().to_string())
}

fn write_pages(
    path: &Path,
    bytes: u64,
    visit: impl FnOnce(&mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    // The header comes last, when the pages are counted.
    file.write_all(&[0; PAGES_HEADER_BYTES])?;
    let mut count = 0_u32;
    visit(&mut |page, content| {
        count += 1;
        file.write_all(&page.to_le_bytes())?;
        file.write_all(&crc32fast::hash(content).to_le_bytes())?;
        file.write_all(content)
    })?;
    let mut header = PAGES_MAGIC.to_vec();
    header.extend_from_slice(&PAGES_VERSION.to_le_bytes());
    header.extend_from_slice(&count.to_le_bytes());
    header.extend_from_slice(&bytes.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.flush()
}

/// Reads a memory file page by page.
struct PageReader {
    name: String,
    file: BufReader<File>,
    pages: u32,
    /// Size of the memory.
    bytes: u64,
}

impl PageReader {
    fn open(path: &Path) -> anyhow::Result<PageReader> {
        let name = path.display().to_string();
        let open = || {
            let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
            let mut header = [0; PAGES_HEADER_BYTES];
            file.read_exact(&mut header)?;
            ensure!(
                header.starts_with(PAGES_MAGIC),
                "this is no memory of a replica: it does not begin with \"RPLPAGES\""
            );
            let version = u32::from_le_bytes(header[8..12].try_into()?);
            ensure!(version == PAGES_VERSION, "version {version}; this replica reads version {PAGES_VERSION}");
            let crc = u32::from_le_bytes(header[24..].try_into()?);
            ensure!(crc == crc32fast::hash(&header[..24]), "the header is damaged: its checksum differs");
            let pages = u32::from_le_bytes(header[12..16].try_into()?);
            let bytes = u64::from_le_bytes(header[16..24].try_into()?);
            Ok(PageReader { name: name.clone(), file, pages, bytes })
        };
        open().with_context(|| name.clone())
    }

    /// Hands every page to `put`, which tells whether the memory has it.
    fn read_all(&mut self, mut put: impl FnMut(u32, &[u8]) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let mut content = vec![0; PAGE_BYTES];
        for index in 0..self.pages {
            let mut read = || {
                let mut head = [0; 8];
                self.file.read_exact(&mut head)?;
                self.file.read_exact(&mut content)?;
                let page = u32::from_le_bytes(head[..4].try_into()?);
                let crc = u32::from_le_bytes(head[4..].try_into()?);
                ensure!(crc == crc32fast::hash(&content), "page {page} is damaged: its checksum differs");
                ensure!(put(page, &content)?, "page {page} lies outside of the memory's {} bytes", self.bytes);
                Ok(())
            };
            read().with_context(|| format!("{}, entry {index} of {}", self.name, self.pages))?;
        }
        Ok(())
    }
}
