//! The folder that results go to: tables as text, figures as JSON, plots as SVG.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// An existing folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes `path` if it is not there yet.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("make folder {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Where the file `name` of this folder lies.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes `text` as the file `name`.
    pub fn text(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Writes `value` as the JSON file `name`. Figures come out so that they read back bit for bit.
    pub fn json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).with_context(|| format!("put {name} as JSON"))?;
        self.text(name, &(text + "\n"))
    }
}
