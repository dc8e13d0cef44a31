//! Is it a model, is it whole, is it the declared one: in this order, so that the reason names the first thing wrong.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crds::report::{Failure, Reason};
use engine::gguf::{GgufError, inspect};
use sha2::{Digest, Sha256};

use super::{download, failure};

/// Read at once while hashing.
const CHUNK: usize = 1 << 20;

/// Checks a file of a model that has so many files. Reads it whole if there is a digest, so not on the runtime's threads.
pub async fn check(path: PathBuf, sha256: Option<String>, files: usize) -> Result<(), Failure> {
    let checked = tokio::task::spawn_blocking(move || check_now(&path, sha256.as_deref(), files)).await;
    checked.unwrap_or_else(|_| Err(failure(Reason::ModelInvalid, "the file could not be examined")))
}

fn check_now(path: &Path, sha256: Option<&str>, files: usize) -> Result<(), Failure> {
    let storage = |error: &std::io::Error| download::storage(path, error);
    let mut file = BufReader::new(File::open(path).map_err(|error| storage(&error))?);
    let facts = inspect(&mut file).map_err(|error| model_failure(path, &error))?;
    if facts.parts > 1 && facts.parts != files as u64 {
        let message = format!(
            "the model is split into {} files, but the source names {files}; name the first one as \
             NAME-00001-of-{:05}.gguf, or all of them",
            facts.parts, facts.parts
        );
        return Err(failure(Reason::ModelInvalid, message));
    }
    let Some(declared) = sha256 else { return Ok(()) };
    let found =
        digest(File::open(path).map_err(|error| storage(&error))?).map_err(|error| storage(&error))?;
    if found == declared {
        return Ok(());
    }
    let message = format!(
        "the file's SHA-256 is {found}, but sha256 declares {declared}; correct the field or the source"
    );
    Err(failure(Reason::DigestMismatch, message))
}

fn model_failure(path: &Path, error: &GgufError) -> Failure {
    let reason = match error {
        GgufError::NotGguf { .. } => Reason::NotGGUF,
        GgufError::Truncated { .. } => Reason::ModelTruncated,
        GgufError::Invalid { .. } => Reason::ModelInvalid,
        GgufError::Io(error) => return download::storage(path, error),
    };
    let cure = match reason {
        Reason::NotGGUF => "; the source must be the GGUF file itself, not a page about it",
        Reason::ModelTruncated => "; upload the whole file again",
        _ => "",
    };
    failure(reason, format!("{error}{cure}"))
}

fn digest(mut file: File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&chunk[..read]),
        }
    }
}
