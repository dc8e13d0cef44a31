//! A view from a file, for places without Kubernetes. It is read again when the file changes; a file that cannot be
//! read leaves the last good view in place.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::view::View;

/// How often the file's time is looked at: changes act well within a second, and a look costs microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Reads the file.
pub fn read(path: &Path) -> anyhow::Result<View> {
    let text =
        std::fs::read(path).with_context(|| format!("the view cannot be read from {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not a view", path.display()))
}

/// Publishes the file's view now and after each change, for ever.
pub async fn follow(path: PathBuf, publish: impl Fn(View)) {
    let mut published = None;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let seen = changed_at(&path);
        if seen.is_none() || seen == published {
            continue;
        }
        published = seen;
        match read(&path) {
            Ok(view) => publish(view),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the last good view stays"),
        }
    }
}

/// Time and length: a file that is written twice within the clock's grain usually differs in length.
fn changed_at(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_empty_object_is_an_empty_view_and_a_wrong_file_names_itself() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{{}}").unwrap();
        assert_eq!(read(file.path()).unwrap(), View::default());
        write!(file, "x").unwrap();
        let error = format!("{:#}", read(file.path()).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
