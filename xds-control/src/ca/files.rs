//! The authority's files, under the names that Istio gives them: `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` and
//! `root-cert.pem`. Made where the folder holds none of them; read again when they change.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::authority::{Authority, AuthorityError, Material};

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot read {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", file.display())]
    Write {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is missing, and others of the authority's files are there", file.display())]
    Missing { file: PathBuf },
    #[error("cannot make a new authority")]
    Generate(#[source] rcgen::Error),
    #[error("the files in {} make no authority", folder.display())]
    Authority {
        folder: PathBuf,
        #[source]
        source: AuthorityError,
    },
}

/// Follows the files.
#[derive(Debug)]
pub struct Follow {
    folder: PathBuf,
    authority: watch::Sender<Arc<Authority>>,
}

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
/// How soon a change of a file is noticed.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the authority in a folder, or makes one there.
pub fn open(
    folder: &Path,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(watch::Receiver<Arc<Authority>>, Follow), FilesError> {
    let is_there = |name: &str| folder.join(name).exists();
    if [CERTIFICATE, KEY, CHAIN, ROOTS].into_iter().any(is_there) {
        let mode = fs::metadata(folder.join(KEY)).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o077 != 0 {
            tracing::warn!(file = %folder.join(KEY).display(), "the authority's key can be read by others than its owner");
        }
    } else {
        let material = Authority::generate(trust_domain, now).map_err(FilesError::Generate)?;
        write(folder, &material)?;
        tracing::info!(folder = %folder.display(), trust_domain, "made a new certificate authority");
    }
    let authority = read(folder, now)?;
    let sender = watch::Sender::new(Arc::new(authority));
    Ok((sender.subscribe(), Follow { folder: folder.to_owned(), authority: sender }))
}

impl Follow {
    pub async fn run(self) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            match self.check(SystemTime::now()) {
                Ok(is_changed) => {
                    complaint = None;
                    if is_changed {
                        tracing::info!("the authority's files were read again");
                    }
                }
                Err(error) => {
                    let text = Some(error.to_string());
                    if complaint != text {
                        let error = &error as &(dyn std::error::Error + 'static);
                        tracing::error!(error, "the authority's files cannot be used; it goes on as it was");
                    }
                    complaint = text;
                }
            }
        }
    }

    /// Whether there was a change.
    fn check(&self, now: SystemTime) -> Result<bool, FilesError> {
        let material = read_material(&self.folder)?;
        if *self.authority.borrow().material() == material {
            return Ok(false);
        }
        let authority = Authority::new(material, now)
            .map_err(|source| FilesError::Authority { folder: self.folder.clone(), source })?;
        self.authority.send_replace(Arc::new(authority));
        Ok(true)
    }
}

fn read(folder: &Path, now: SystemTime) -> Result<Authority, FilesError> {
    let material = read_material(folder)?;
    Authority::new(material, now).map_err(|source| FilesError::Authority { folder: folder.to_owned(), source })
}

fn read_material(folder: &Path) -> Result<Material, FilesError> {
    let text = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FilesError::Missing { file },
            _ => FilesError::Read { file, source },
        })
    };
    let chain = match text(CHAIN) {
        // A root that signs by itself has none.
        Err(FilesError::Missing { .. }) => String::new(),
        chain => chain?,
    };
    Ok(Material { certificate: text(CERTIFICATE)?, key: text(KEY)?, chain, roots: text(ROOTS)? })
}

/// The key first: a folder with a key and nothing else is an error at the next start, never another authority.
fn write(folder: &Path, material: &Material) -> Result<(), FilesError> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |source| FilesError::Write { file, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let files = [
        (KEY, &material.key, 0o600),
        (CERTIFICATE, &material.certificate, 0o644),
        (CHAIN, &material.chain, 0o644),
        (ROOTS, &material.roots, 0o644),
    ];
    for (name, text, mode) in files {
        let file = folder.join(name);
        let mut options = OpenOptions::new();
        let open = options.write(true).create_new(true).mode(mode).open(&file);
        open.and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()))
            .map_err(failed(&file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_authority_is_made_once_and_its_key_is_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("ca");
        let (first, _) = open(&folder, "cluster.local", SystemTime::now()).unwrap();
        let mode = fs::metadata(folder.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, _) = open(&folder, "cluster.local", SystemTime::now()).unwrap();
        assert_eq!(first.borrow().roots(), second.borrow().roots());
    }

    #[test]
    fn a_folder_with_a_part_of_the_files_is_an_error_that_names_the_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), "cluster.local", SystemTime::now()).unwrap();
        fs::remove_file(folder.path().join(ROOTS)).unwrap();
        let error = open(folder.path(), "cluster.local", SystemTime::now()).unwrap_err();
        assert!(matches!(&error, FilesError::Missing { file } if file.ends_with(ROOTS)), "{error}");
    }

    #[test]
    fn files_are_followed_and_bad_ones_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, follow) = open(folder.path(), "cluster.local", SystemTime::now()).unwrap();
        assert!(!follow.check(SystemTime::now()).unwrap());
        // A second root joins the first, as when a root is replaced.
        let other = Authority::generate("cluster.local", SystemTime::now()).unwrap();
        let both = fs::read_to_string(folder.path().join(ROOTS)).unwrap() + &other.roots;
        fs::write(folder.path().join(ROOTS), &both).unwrap();
        assert!(follow.check(SystemTime::now()).unwrap());
        assert_eq!(authority.borrow().roots().len(), 2);
        fs::write(folder.path().join(KEY), &other.key).unwrap();
        assert!(matches!(follow.check(SystemTime::now()), Err(FilesError::Authority { .. })));
        assert_eq!(authority.borrow().roots().len(), 2);
    }
}
