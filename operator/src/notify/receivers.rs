//! The directory with one file per receiver: a Secret that the kubelet mounts and keeps up to date. It is read whenever
//! something is sent, so a new key counts at once. Nothing of a file's content leaves through an error.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use super::receiver::{self, Receiver};

/// Receivers of one installation; the first by name count.
const RECEIVERS_MAX: usize = 64;
/// A receiver is an address and a key.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Where receivers are described. Without a directory there are none.
#[derive(Debug, Clone, Default)]
pub struct Receivers(Option<PathBuf>);

/// Receivers by name, each well or with what is wrong with its description.
pub type Known = BTreeMap<String, Result<(), String>>;

impl Receivers {
    /// Those in `directory`.
    pub fn in_directory(directory: Option<PathBuf>) -> Self {
        Self(directory)
    }

    /// All receivers.
    pub fn known(&self) -> Known {
        self.names().into_iter().map(|name| (name.clone(), self.read(&name).map(drop))).collect()
    }

    /// Whether there is a receiver of this name, well described or not.
    pub fn has(&self, name: &str) -> bool {
        self.names().iter().any(|known| known == name)
    }

    /// The receiver of this name as it is described now.
    pub fn read(&self, name: &str) -> Result<Receiver, String> {
        let path = self.0.as_ref().filter(|_| is_name(name)).map(|directory| directory.join(name));
        let file =
            path.and_then(|path| std::fs::File::open(path).ok()).ok_or("there is none of that name")?;
        let mut text = String::new();
        let size = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        match size {
            Ok(size) if size as u64 <= FILE_BYTES_MAX => receiver::parse(&text),
            _ => Err(format!("it must be text of at most {FILE_BYTES_MAX} bytes")),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = self.0.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        names.truncate(RECEIVERS_MAX);
        names
    }
}

/// What `spec.notifications[].receiver` may be; the kubelet's own entries begin with two dots.
fn is_name(name: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 63
        && name.starts_with(is_plain)
        && name.ends_with(is_plain)
        && name.chars().all(|character| is_plain(character) || character == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_a_receiver_and_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("chat", "{type: Slack, url: 'https://a/b'}");
        write("broken", "nothing");
        write("..data", "of the kubelet");
        write("big", &"x".repeat(20_000));
        let receivers = Receivers::in_directory(Some(directory.path().to_owned()));
        let known = receivers.known();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["big", "broken", "chat"]);
        assert!(known["chat"].is_ok() && known["broken"].is_err() && known["big"].is_err(), "{known:?}");
        write("broken", "{type: Slack, url: 'https://a/b'}");
        assert!(receivers.read("broken").is_ok());
        assert!(receivers.read("../etc/passwd").is_err());
        assert!(!Receivers::default().has("chat"));
    }
}
