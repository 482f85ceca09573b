//! The PocketIC server's command line, as the `pocket-ic` crate calls it:
//! `BIN --port-file FILE [--port N] [--ttl SECONDS] [--hard-ttl SECONDS] [--log-levels LEVELS]`.

use super::shutdown;
use crate::doors::pocketic::Server;
use crate::doors::without_delay;
use anyhow::Context;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The server version that this one stands in for; `--version` prints it, and the crate checks it.
const VERSION: &str = "16.1.0";

/// Names another version: an older `pocket-ic` crate, as in `canbench`, accepts only its own server's, though it speaks
/// to this one as well.
const VERSION_VARIABLE: &str = "REPLICA_POCKET_IC_VERSION";

/// What `--version` prints.
pub fn version() -> String {
    std::env::var(VERSION_VARIABLE).unwrap_or_else(|_| VERSION.to_string())
}

/// Seconds without requests after which the server ends by itself.
const DEFAULT_TTL_S: u64 = 60;

/// How often the server looks whether it is still used.
const IDLE_CHECK: Duration = Duration::from_millis(250);

/// Options of the PocketIC server.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Address to listen on.
    #[arg(long, short, default_value = "127.0.0.1")]
    pub ip_addr: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, short, default_value_t = 0)]
    pub port: u16,
    /// File to write the port to. If it exists and a server answers at its port, this one ends at once.
    #[arg(long)]
    pub port_file: Option<PathBuf>,
    /// Seconds without requests after which the server ends by itself.
    #[arg(long, default_value_t = DEFAULT_TTL_S)]
    pub ttl: u64,
    /// Seconds after which the server ends in any case.
    #[arg(long)]
    pub hard_ttl: Option<u64>,
    /// Taken for compatibility; the server logs errors only.
    #[arg(long, short)]
    pub log_levels: Option<String>,
    /// Where compiled modules are kept between runs.
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
}

/// Serves until nobody has used the server for its time to live, or a signal.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Before everything else: of several servers that one test process starts, the first to make the file stays.
    let port_file = match &arguments.port_file {
        None => None,
        Some(path) => match PortFile::create(path)? {
            Some(file) => Some(file),
            None => return Ok(()),
        },
    };
    if let Some(seconds) = arguments.hard_ttl {
        let path = arguments.port_file.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(seconds));
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            std::process::exit(1);
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(arguments, port_file));
    runtime.shutdown_background();
    served
}

async fn serve(arguments: Arguments, mut port_file: Option<PortFile>) -> anyhow::Result<()> {
    let address = SocketAddr::new(arguments.ip_addr, arguments.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    let port = listener.local_addr()?.port();
    let cache_dir = arguments.cache_dir.clone().or_else(super::default_cache_dir);
    let server = Server::new(super::DEFAULT_SEED, cache_dir);
    let router = server.router();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        axum::serve(without_delay(listener), router).with_graceful_shutdown(stopped).await
    });
    if let Some(file) = &mut port_file {
        file.write(port)?;
    }
    println!("The PocketIC server is listening on port {port}");
    tokio::select! {
        ended = &mut serving => ended?.context("the server ended by itself")?,
        signal = shutdown::signal() => signal.context("can't wait for signals")?,
        () = unused(server, Duration::from_secs(arguments.ttl)) => {}
    }
    // Gone before the server stops answering, so that a test started now makes a server of its own.
    drop(port_file);
    let _ = stop.send(());
    let _ = tokio::time::timeout(shutdown::GRACE, serving).await;
    Ok(())
}

/// Resolves when nobody has used the server for `ttl`.
async fn unused(server: Arc<Server>, ttl: Duration) {
    while server.idle_for() < ttl {
        tokio::time::sleep(IDLE_CHECK).await;
    }
}

/// The file that tells clients the port; removed when the server ends.
struct PortFile {
    file: std::fs::File,
    path: PathBuf,
}

impl PortFile {
    /// Creates the file; `None` if another server has it.
    fn create(path: &Path) -> anyhow::Result<Option<PortFile>> {
        loop {
            match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(file) => return Ok(Some(PortFile { file, path: path.to_owned() })),
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(e).with_context(|| format!("can't create the port file {}", path.display()));
                }
                Err(_) if is_left_over(path) => {
                    let _ = std::fs::remove_file(path);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    fn write(&mut self, port: u16) -> anyhow::Result<()> {
        self.file
            .write_all(format!("{port}\n").as_bytes())
            .with_context(|| format!("can't write the port file {}", self.path.display()))
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the file names a port at which nobody answers: its server was killed, and process ids, which name the
/// file, come again. A file without a port is one whose server is starting.
fn is_left_over(path: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let Ok(port) = text.trim_end().parse::<u16>() else { return false };
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_file_belongs_to_one_living_server() {
        let path = std::env::temp_dir().join(format!("replica_port_file_test_{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut first = PortFile::create(&path).unwrap().unwrap();
        // Still starting: the second leaves it alone.
        assert!(PortFile::create(&path).unwrap().is_none());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        first.write(listener.local_addr().unwrap().port()).unwrap();
        assert!(PortFile::create(&path).unwrap().is_none());
        // Its server is gone: the next takes over.
        drop(listener);
        std::mem::forget(first);
        let second = PortFile::create(&path).unwrap();
        assert!(second.is_some());
        drop(second);
        assert!(!path.exists());
    }
}
