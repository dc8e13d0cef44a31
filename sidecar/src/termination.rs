//! The last words of a container: a JSON object in the file that Kubernetes reads as its termination message.

use std::path::{Path, PathBuf};

use crds::report::{Failure, Reason};
use engine::{LoadFailure, LoadFailureKind};

/// Kubernetes keeps 4,096 bytes of a termination message; what is longer would be cut inside the JSON.
const MESSAGE_BYTES_MAX: usize = 3_000;

/// Where the last words go: `INFERNO_TERMINATION_LOG`, or Kubernetes' default.
pub fn log_path() -> PathBuf {
    std::env::var_os("INFERNO_TERMINATION_LOG")
        .map_or_else(|| PathBuf::from("/dev/termination-log"), PathBuf::from)
}

/// Writes the failure. That this may fail outside a cluster is only logged: the exit code says the rest.
pub fn write(path: &Path, failure: &Failure) {
    let mut failure = failure.clone();
    failure.message = shortened(failure.message);
    let text = serde_json::to_string(&failure).expect("an enum and a string always serialize");
    if let Err(error) = std::fs::write(path, text) {
        tracing::debug!(path = %path.display(), %error, "no termination message written");
    }
}

/// Why the engine cannot load the model, in the words of the API.
pub fn failure_of(load: &LoadFailure) -> Failure {
    let reason = match load.kind {
        LoadFailureKind::NotGguf => Reason::NotGGUF,
        LoadFailureKind::Truncated => Reason::ModelTruncated,
        LoadFailureKind::Missing | LoadFailureKind::Invalid => Reason::ModelInvalid,
        LoadFailureKind::DoesNotFit => Reason::DoesNotFit,
        LoadFailureKind::Program => Reason::EngineLost,
    };
    Failure { reason, message: load.message.clone() }
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_whole_json_however_long_the_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, &Failure { reason: Reason::NotGGUF, message: "é".repeat(5_000) });
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.len() <= 4_096);
        let read: Failure = serde_json::from_str(&text).unwrap();
        assert_eq!(read.reason, Reason::NotGGUF);
    }
}
