//! Certificate files: whether they can be read, hold what they should, and fit together.
//!
//! Called by the cross checks only; the listeners load the files again themselves.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Whether the fault is the key's, what it is, and the mend.
type Wrong = (bool, String, String);

/// Reads both files and compares their public keys.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(certificate: &Path, private_key: &Path) -> Result<(), Wrong> {
    let chain = certificates(certificate).map_err(|what| {
        (false, what, "name a PEM file with the certificate first, then its chain".to_owned())
    })?;
    let text = std::fs::read(private_key).map_err(|error| {
        let what = format!("{} cannot be read: {error}", private_key.display());
        (true, what, "make it readable for the user that runs restante".to_owned())
    })?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let what = format!("{} holds no private key in PEM form", private_key.display());
        (true, what, "name the file that holds `-----BEGIN PRIVATE KEY-----`".to_owned())
    })?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| {
        let what = format!("{} holds a kind of key that is not supported", private_key.display());
        (true, what, "use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519".to_owned())
    })?;
    match rustls::sign::CertifiedKey::new(chain, signer).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            let what =
                format!("{} is not the key of {}", private_key.display(), certificate.display());
            Err((true, what, "name the key that the certificate was issued for".to_owned()))
        }
        Err(rustls::Error::InvalidCertificate(_)) => {
            let what = format!("the first certificate in {} is broken", certificate.display());
            Err((false, what, "get the file anew from whoever issued it".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Chain and key in a folder of `tls.also`, under the names that ACME clients give them.
pub(super) fn in_folder(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("fullchain.pem"), folder.join("privkey.pem"))
}

/// Whether the file holds certificates.
///
/// # Errors
/// Why not.
pub(super) fn check_authority(file: &Path) -> Result<(), String> {
    certificates(file).map(|_| ())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{} is not a PEM file", file.display()))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate in PEM form", file.display()));
    }
    Ok(chain)
}
