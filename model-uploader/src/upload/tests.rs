use super::*;
use crate::client::TransportError;
use crate::manifest::SourceFile;
use crate::retry::RetryPolicy;
use crate::simulation::SimulatedCanister;
use onnx_canister_interface::Task;
use std::sync::Mutex;

const CHUNK_BYTES: u32 = 1000;

struct Fixture {
    dir: tempfile::TempDir,
    source: ModelSource,
    canister: SimulatedCanister,
}

fn quick() -> RetryPolicy {
    RetryPolicy { attempts: 4, first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(2) }
}

fn options() -> UploadOptions {
    UploadOptions { chunk_bytes: CHUNK_BYTES, ..UploadOptions::default() }
}

impl Fixture {
    /// A model of 21 chunks in two files, the second's last chunk short.
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (name, bytes) in [("m.onnx", 10_000), ("m.data", 10_500)] {
            let path = dir.path().join(name);
            std::fs::write(&path, (0..bytes).map(|i: u32| (i * 7 / 3) as u8).collect::<Vec<_>>())?;
            files.push(SourceFile { name: name.to_string(), path });
        }
        let source = ModelSource {
            name: "m".to_string(),
            files,
            task: Task::Infer,
            preprocessing: None,
            labels: Vec::new(),
            description: String::new(),
            weights: None,
        };
        Ok(Self { dir, source, canister: SimulatedCanister::default() })
    }

    fn client(&self) -> Client<&SimulatedCanister> {
        Client::new(&self.canister).with_retry(quick())
    }

    async fn upload(&self) -> Result<UploadReport> {
        upload(&self.client(), &self.source, &options(), &|_| ()).await
    }
}

#[tokio::test]
async fn an_upload_sends_every_chunk_once_and_ends_active() -> Result<()> {
    let fixture = Fixture::new()?;
    let events = Mutex::new(Vec::new());
    let on_event = |event| events.lock().unwrap_or_else(|e| e.into_inner()).push(event);
    let report = upload(&fixture.client(), &fixture.source, &options(), &on_event).await?;

    assert_eq!(
        (report.chunks_sent, report.chunks_total, report.bytes_sent, report.bytes_total),
        (21, 21, 20_500, 20_500)
    );
    assert_eq!((&report.info.state, report.info.active), (&ModelState::Ready, true));
    assert_eq!(report.ingress_cycles(), 21 * (1_200_000 + 5_000_000) + 20_500 * 2_000);
    assert_eq!(report.load_cycles(), 2 * 5_000_000 + 7_000_000);
    assert_eq!(report.storage_cycles_per_year(), 317_500 * 31_536_000);
    {
        let state = fixture.canister.state();
        assert!(state.puts.len() == 21 && state.puts.values().all(|count| *count == 1));
        assert!((2..=DEFAULT_CONCURRENCY as u32).contains(&state.concurrency_max), "{}", state.concurrency_max);
    }
    let events = events.into_inner().unwrap_or_else(|e| e.into_inner());
    let stored: u64 =
        events.iter().map(|event| if let Event::ChunkStored { bytes } = event { *bytes } else { 0 }).sum();
    assert_eq!(stored, 20_500);
    assert!(events.contains(&Event::Begun { version: 1, bytes_stored: 0, bytes_total: 20_500 }));
    assert!(events.iter().any(|event| matches!(event, Event::Committing { .. })));
    assert!(events.iter().any(|event| matches!(event, Event::Loading { .. })));
    assert_eq!(events[events.len() - 3..], [Event::Loading { done: 3, total: 3 }, Event::Ready, Event::Activated]);

    // All is done: the same upload again sends nothing.
    let again = fixture.upload().await?;
    assert_eq!((again.chunks_sent, again.info.active), (0, true));
    assert_eq!(fixture.canister.state().puts.values().sum::<u32>(), 21);
    Ok(())
}

#[tokio::test]
async fn an_upload_cut_off_after_any_number_of_chunks_is_completed_without_sending_one_twice() -> Result<()> {
    for first_cut in [0, 1, 5, 20] {
        let fixture = Fixture::new()?;
        for cut in [first_cut, 3, 0] {
            fixture.canister.state().puts_until_cut_off = Some(cut);
            let _ = fixture.upload().await;
        }
        fixture.canister.state().puts_until_cut_off = None;
        let report = fixture.upload().await?;
        assert_eq!(report.info.state, ModelState::Ready);
        let state = fixture.canister.state();
        assert!(state.puts.len() == 21 && state.puts.values().all(|count| *count == 1), "{:?}", state.puts);
    }
    Ok(())
}

/// Drops the upload's future at every point where it waits, as a kill does, and goes on with a new one.
#[tokio::test]
async fn a_killed_upload_is_completed_by_the_next_without_sending_a_stored_chunk_again() -> Result<()> {
    let fixture = Fixture::new()?;
    let mut kills = 0;
    let report = loop {
        // A little later each time, so that the kill comes everywhere.
        let limit = Duration::from_micros(1500 + kills * 700);
        match tokio::time::timeout(limit, fixture.upload()).await {
            Ok(result) => break result?,
            Err(_) => kills += 1,
        }
        assert!(kills < 500, "it gets nowhere");
    };
    assert!(kills > 3, "{kills} kills");
    assert_eq!((&report.info.state, report.info.active), (&ModelState::Ready, true));
    // A put that was under way when the kill came was not executed in the simulation, so each is executed once.
    let state = fixture.canister.state();
    assert!(state.puts.len() == 21 && state.puts.values().all(|count| *count == 1), "{:?}", state.puts);
    Ok(())
}

#[tokio::test]
async fn transient_failures_are_tried_again_and_refusals_are_not() -> Result<()> {
    let fixture = Fixture::new()?;
    for maybe_executed in [true, false, true] {
        let failure = TransportError::Transient { message: "busy".to_string(), maybe_executed };
        fixture.canister.state().failures.push_back(failure);
    }
    fixture.upload().await?;

    let refused = Fixture::new()?;
    let rejection = TransportError::Rejected { message: "no".to_string(), error_code: Some("IC0406".to_string()) };
    refused.canister.state().failures.push_back(rejection);
    let error = refused.upload().await.err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(error.contains("IC0406") && error.contains("begin_upload"), "{error}");
    assert!(refused.canister.state().calls.is_empty(), "it was not tried again");

    let unreachable = Fixture::new()?;
    for _ in 0..10 {
        let failure = TransportError::Transient { message: "connection refused".to_string(), maybe_executed: false };
        unreachable.canister.state().failures.push_back(failure);
    }
    let error = unreachable.upload().await.err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(error.contains("after 4 attempts") && error.contains("connection refused"), "{error}");
    assert_eq!(unreachable.canister.state().failures.len(), 6);
    Ok(())
}

#[tokio::test]
async fn a_load_that_fails_says_why_and_can_be_tried_again() -> Result<()> {
    let fixture = Fixture::new()?;
    fixture.canister.state().load_failure = Some("node 3 needs more heap".to_string());
    let error = fixture.upload().await.err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(error.contains("node 3 needs more heap"), "{error}");
    fixture.canister.state().load_failure = None;
    let report = fixture.upload().await?;
    assert_eq!((report.chunks_sent, &report.info.state), (0, &ModelState::Ready));
    Ok(())
}

#[tokio::test]
async fn a_file_that_changes_between_hashing_and_sending_is_refused() -> Result<()> {
    let fixture = Fixture::new()?;
    let path = fixture.dir.path().join("m.data");
    let shorten = |event| {
        if matches!(event, Event::Begun { .. }) {
            let _ = std::fs::write(&path, b"short");
        }
    };
    let result = upload(&fixture.client(), &fixture.source, &options(), &shorten).await;
    let error = result.err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(error.contains("the file changed") && error.contains("m.data"), "{error}");

    let fixture = Fixture::new()?;
    let path = fixture.dir.path().join("m.data");
    let change = |event| {
        if matches!(event, Event::Begun { .. }) {
            let _ = std::fs::write(&path, vec![0; 10_500]);
        }
    };
    let result = upload(&fixture.client(), &fixture.source, &options(), &change).await;
    let error = result.err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(error.contains("has sha256") && error.contains("chunk 0 of"), "{error}");
    Ok(())
}

#[tokio::test]
async fn loading_and_activating_can_be_left_out() -> Result<()> {
    let fixture = Fixture::new()?;
    let stored_only = UploadOptions { load: false, ..options() };
    let report = upload(&fixture.client(), &fixture.source, &stored_only, &|_| ()).await?;
    assert_eq!((&report.info.state, report.info.active), (&ModelState::Committed, false));
    let inactive = UploadOptions { activate: false, ..options() };
    let report = upload(&fixture.client(), &fixture.source, &inactive, &|_| ()).await?;
    assert_eq!((&report.info.state, report.info.active), (&ModelState::Ready, false));
    Ok(())
}
