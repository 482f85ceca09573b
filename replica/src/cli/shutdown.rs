//! Ending a server: by signal, and without waiting forever for requests under way.

use std::time::Duration;

/// How long requests under way may take once the server is told to stop.
pub const GRACE: Duration = Duration::from_secs(2);

/// Resolves when the process is asked to stop (SIGINT or SIGTERM).
pub async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
