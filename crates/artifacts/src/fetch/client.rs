//! The HTTP client. Proxies come from the environment (`http_proxy`, `https_proxy`, `no_proxy`).
//!
//! TLS uses ring: it compiles in seconds with nothing but a C compiler.

use anyhow::{Context, Result};
use progress::Progress;
use reqwest::blocking::{Client, ClientBuilder};

use super::FetchOptions;

pub(super) fn new(options: &FetchOptions, progress: &Progress) -> Result<Client> {
    // Another part of the program may have chosen a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("devmem-lab/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            // In this client the timeout is that of each single read, not of the whole transfer.
            .timeout(options.stall_timeout)
            .pool_max_idle_per_host(options.parallel)
    };
    match builder().build() {
        Ok(client) => Ok(client),
        Err(error) => {
            // A host without CA certificates can still use http mirrors, which are as good (the lock has the hashes).
            let client = builder().tls_certs_only([]).build().context("cannot start the HTTP client")?;
            progress.warn(format!(
                "https addresses cannot be used: {error:?}; install the package ca-certificates if they are needed"
            ));
            Ok(client)
        }
    }
}
