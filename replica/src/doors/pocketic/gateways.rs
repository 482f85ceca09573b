//! HTTP gateways: a port of its own for an instance, where it serves as a network does.

use super::types::{HttpGatewayBackend, HttpGatewayConfig, HttpGatewayDetails, HttpGatewayInfo};
use crate::doors::network::Network;
use crate::doors::{network_router, without_delay};
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The domain below which canisters are found when none is given.
pub const DEFAULT_DOMAIN: &str = "localhost";

/// All gateways that this server ever started; stopped ones keep their place, since the place is the id.
#[derive(Default)]
pub struct Gateways {
    gateways: Mutex<Vec<Gateway>>,
}

struct Gateway {
    details: HttpGatewayDetails,
    /// Gone once the gateway is stopped.
    stop: Option<oneshot::Sender<()>>,
}

impl Gateways {
    /// Listens for `network`; the error is a sentence.
    pub async fn start(&self, config: HttpGatewayConfig, network: Network) -> Result<HttpGatewayInfo, String> {
        if config.https_config.is_some() {
            return Err("HTTPS is not supported by this server's gateway".into());
        }
        if config.domain_custom_provider_local_file.is_some() {
            return Err("custom domain files are not supported by this server's gateway".into());
        }
        let ip_addr = config.ip_addr.as_deref().unwrap_or("127.0.0.1");
        let port = config.port.unwrap_or(0);
        let listener = TcpListener::bind((ip_addr, port)).await.map_err(|e| format!("can't listen on {ip_addr}:{port}: {e}"))?;
        let port = listener.local_addr().map_err(|e| format!("the gateway's port is unknown: {e}"))?.port();
        let domains = config.domains.clone().unwrap_or_else(|| vec![DEFAULT_DOMAIN.into()]);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(without_delay(listener), network_router(network, domains)).with_graceful_shutdown(async {
            // A sender that was dropped stops the gateway as well.
            let _ = stopped.await;
        });
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("the HTTP gateway on port {port} ended: {error}");
            }
        });
        let mut gateways = self.lock();
        let instance_id = gateways.len();
        let HttpGatewayConfig { forward_to, domains, https_config, .. } = config;
        let details = HttpGatewayDetails { instance_id, port, forward_to, domains, https_config };
        gateways.push(Gateway { details, stop: Some(stop) });
        Ok(HttpGatewayInfo { instance_id, port })
    }

    /// Stops a gateway; false if there is none of this id that runs.
    pub fn stop(&self, id: usize) -> bool {
        self.lock().get_mut(id).is_some_and(|gateway| gateway.stop.take().is_some())
    }

    /// Stops what leads to an instance.
    pub fn stop_of_instance(&self, instance_id: usize) {
        for gateway in self.lock().iter_mut() {
            if gateway.details.forward_to == HttpGatewayBackend::PocketIcInstance(instance_id) {
                gateway.stop = None;
            }
        }
    }

    /// Those that run.
    pub fn list(&self) -> Vec<HttpGatewayDetails> {
        self.lock().iter().filter(|gateway| gateway.stop.is_some()).map(|gateway| gateway.details.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Gateway>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
