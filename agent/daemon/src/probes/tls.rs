//! TLS of HTTPS checks.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyvip_core::config::Tls;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::Ending;

/// What a handshake needs, made before the connection so that a missing file costs the service nothing.
pub(super) struct Preparation {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Reads the CA file (each time: a renewed one is used at once) and settles the name.
pub(super) async fn prepare(tls: &Tls, host: Option<&str>, address: IpAddr) -> Result<Preparation, Ending> {
    // The provider is named: the process-wide default would panic if a dependency brought a second one.
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Ending::error(format!("TLS cannot be set up: {error}")))?;
    let config = if tls.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakeAny { provider }))
            .with_no_client_auth()
    } else {
        let Some(file) = &tls.ca_file else {
            return Err(Ending::error("no CA file is set"));
        };
        builder.with_root_certificates(authorities(file).await?).with_no_client_auth()
    };
    let written = tls.server_name.as_deref().or(host.map(without_port));
    let name = match written {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Ending::error(format!("{name:?} is no name a certificate can carry")))?,
        None => ServerName::from(address),
    };
    Ok(Preparation { connector: TlsConnector::from(Arc::new(config)), name })
}

/// `name:443` → `name`; an IPv6 address in brackets loses them.
fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next().unwrap_or(inner);
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

async fn authorities(file: &Path) -> Result<RootCertStore, Ending> {
    let pem = tokio::fs::read(file)
        .await
        .map_err(|error| Ending::error(format!("CA file {}: {}", file.display(), super::plain(&error))))?;
    let mut roots = RootCertStore::empty();
    let (found, _) =
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if found == 0 {
        return Err(Ending::error(format!("CA file {} holds no certificate", file.display())));
    }
    Ok(roots)
}

/// The handshake.
pub(super) async fn handshake(
    prepared: Preparation,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Ending> {
    prepared.connector.connect(prepared.name, stream).await.map_err(|error| ending(&error))
}

fn ending(error: &std::io::Error) -> Ending {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Ending::fail("closed during the TLS handshake"),
            _ => super::tcp::stream_ending(error),
        };
    };
    Ending::fail(match tls {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "TLS: the certificate is not signed by the CA of this check".to_owned()
        }
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "TLS: the certificate carries another name".to_owned(),
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "TLS: the certificate has expired".to_owned()
        }
        TlsError::InvalidMessage(_) => "TLS: what came back is not TLS".to_owned(),
        other => format!("TLS: {other}"),
    })
}

/// `insecure = true`: any certificate will do, but the handshake itself must still be sound.
#[derive(Debug)]
struct TakeAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_asked_for_is_the_host_without_its_port() {
        assert_eq!(without_port("www.example"), "www.example");
        assert_eq!(without_port("www.example:8443"), "www.example");
        assert_eq!(without_port("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(without_port("2001:db8::1"), "2001:db8::1");
    }
}
