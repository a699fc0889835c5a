//! TLS by files: a certificate chain and its key in PEM.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or holds something else.
    #[error("cannot use {path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why; nothing of its content.
        reason: String,
    },
    /// The two do not go together.
    #[error("the certificate and the key cannot be used")]
    Mismatch(#[from] rustls::Error),
}

/// Reads the files.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let fault = |path: &PathBuf| {
        let path = path.clone();
        move |error: rustls::pki_types::pem::Error| {
            // Some variants quote the line that is wrong, which may be one of the key.
            let reason = match error {
                rustls::pki_types::pem::Error::Io(error) => error.to_string(),
                rustls::pki_types::pem::Error::NoItemsFound => "it holds none".to_owned(),
                _ => "it is no PEM file".to_owned(),
            };
            TlsError::File { path, reason }
        }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(fault(&files.certificate))?;
    if chain.is_empty() {
        let reason = "it holds no certificate".to_owned();
        return Err(TlsError::File { path: files.certificate.clone(), reason });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(fault(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
