//! The init container's work: a model's files from a source to the model volume, whole and checked, or a reason.
//!
//! In reading order: [`source`] (which files), [`address`] (which hosts may be asked), [`download`] (bytes to disk, with
//! resumption), [`check`] (is it a model, is it the declared one). Here: the order of it all.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use crds::report::{Failure, Phase, Reason};
use tokio::sync::watch;

use crate::report::{Identity, Reading, report};
use crate::termination;

pub mod address;
pub mod check;
pub mod download;
pub mod source;

use download::{Download, part_path};
use source::Part;

/// The pace of the log lines.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// How often a file is looked at that another pod is writing.
const LOCK_EVERY: Duration = Duration::from_millis(500);

/// The last report, which says how it ended, gets this long.
const FAREWELL: Duration = Duration::from_millis(300);

/// `inferno-sidecar fetch`.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["url", "repository"]))]
pub struct Options {
    /// The file's address.
    #[arg(long, env = "INFERNO_SOURCE_URL")]
    pub url: Option<reqwest::Url>,
    /// A repository on a hub that speaks the Hugging Face protocol: `owner/name`.
    #[arg(long, env = "INFERNO_SOURCE_REPOSITORY", requires = "files")]
    pub repository: Option<String>,
    /// Branch, tag or commit of the repository.
    #[arg(long, env = "INFERNO_SOURCE_REVISION", default_value = "main")]
    pub revision: String,
    /// Files of the repository; the further parts of a split model need not be named.
    #[arg(long = "file", env = "INFERNO_SOURCE_FILES", value_delimiter = ',')]
    pub files: Vec<String>,
    /// The hub.
    #[arg(long, env = "INFERNO_SOURCE_ENDPOINT", default_value = "https://huggingface.co")]
    pub endpoint: reqwest::Url,
    /// SHA-256 of the (first) file in hex.
    #[arg(long, env = "INFERNO_SOURCE_SHA256")]
    pub sha256: Option<String>,
    /// Where the (first) file goes; further files go beside it under their own names.
    #[arg(long, env = "INFERNO_OUTPUT")]
    pub output: PathBuf,
    /// How long connection problems are retried from the last progress. Longer for sources that restart slowly; with
    /// the default a wrong address shows in the model's status within half a minute.
    #[arg(long, env = "INFERNO_RETRY_SECONDS", default_value_t = 25)]
    pub retry_seconds: u32,
    /// The operator's intake for reports; none outside a cluster.
    #[arg(long, env = "INFERNO_REPORT_URL")]
    pub report_url: Option<reqwest::Url>,
    /// The bearer token for the source's own host; other hosts, to which it redirects, do not get it.
    #[arg(long, env = "INFERNO_SOURCE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// How far it is; told to the operator and to the log.
pub type Progress = watch::Sender<Phase>;

/// Fetches, and says why not in the termination message.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let start = Phase::Downloading { bytes_done: 0, bytes_total: None, seconds_left: None, last_error: None };
    let progress = watch::Sender::new(start);
    let (_wake, woken) = watch::channel(0);
    let reporting = options.report_url.clone().map(|url| {
        let phases = progress.subscribe();
        let read = move || Reading { phase: phases.borrow().clone(), opened: None, load: None };
        tokio::spawn(report(url, Identity::from_environment(), woken, read))
    });
    let logging = tokio::spawn(log(progress.subscribe()));
    // As the first process of a container it is not ended by a signal that it does not handle.
    let end = crate::serve::told_to_end()?;
    let result = tokio::select! {
        result = fetch(&options, &progress) => result,
        () = end => bail!("told to end; the next fetch goes on from here"),
    };
    logging.abort();
    if let Some(reporting) = reporting {
        tokio::time::sleep(FAREWELL).await;
        reporting.abort();
    }
    match result {
        Ok(()) => Ok(()),
        Err(failure) => {
            termination::write(&termination::log_path(), &failure);
            bail!("{:?}: {}", failure.reason, failure.message)
        }
    }
}

async fn log(phases: watch::Receiver<Phase>) {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        let phase = serde_json::to_string(&*phases.borrow()).unwrap_or_default();
        tracing::info!(phase, "fetching");
    }
}

/// All files of the model, in order; the first failure ends it.
pub async fn fetch(options: &Options, progress: &Progress) -> Result<(), Failure> {
    let parts = source::parts(options)?;
    if let Some(folder) = options.output.parent() {
        std::fs::create_dir_all(folder).map_err(|error| download::storage(folder, &error))?;
    }
    let lock = Lock::take(&options.output).await?;
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        tracing::info!(file = %part.path.display(), number = index + 1, of = count, "file");
        fetch_part(options, part, count, progress).await?;
    }
    drop(lock);
    Ok(())
}

async fn fetch_part(options: &Options, part: Part, parts: usize, progress: &Progress) -> Result<(), Failure> {
    let began = Instant::now();
    if part.path.exists() {
        progress.send_replace(Phase::Verifying);
        match check::check(part.path.clone(), part.sha256.clone(), parts).await {
            Ok(()) => {
                tracing::info!(file = %part.path.display(), "already here");
                return Ok(());
            }
            Err(failure) => tracing::info!(why = failure.message, "the file that is here is fetched again"),
        }
    }
    let retry_max = Duration::from_secs(options.retry_seconds.into());
    let bytes = Download::new(&part, options.token.as_deref(), progress)?.run(retry_max).await?;
    progress.send_replace(Phase::Verifying);
    let partial = part_path(&part.path);
    if let Err(failure) = check::check(partial.clone(), part.sha256.clone(), parts).await {
        // What is wrong now would still be wrong after a restart of the container.
        download::discard(&part.path);
        return Err(failure);
    }
    publish(&partial, &part.path).map_err(|error| download::storage(&part.path, &error))?;
    download::discard(&part.path);
    let seconds = began.elapsed().as_secs();
    tracing::info!(file = %part.path.display(), bytes, seconds, "fetched");
    Ok(())
}

/// From now on the file is there under its name, also after a power cut.
fn publish(partial: &Path, path: &Path) -> std::io::Result<()> {
    File::open(partial)?.sync_all()?;
    std::fs::rename(partial, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// On a volume that several pods share, one of them fetches and the others wait for its result. The lock is the
/// kernel's, so it ends with its holder, however that ends.
struct Lock {
    _file: File,
}

impl Lock {
    async fn take(output: &Path) -> Result<Self, Failure> {
        let path = download::suffixed(output, ".lock");
        let file = File::create(&path).map_err(|error| download::storage(&path, &error))?;
        let mut has_said_so = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(std::fs::TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut has_said_so, true) {
                        tracing::info!(lock = %path.display(), "another pod fetches this model; waiting for it");
                    }
                    tokio::time::sleep(LOCK_EVERY).await;
                }
                // Some network file systems have no locks. Then two pods may fetch the same file; both write the same
                // bytes, and what is published has been checked.
                Err(std::fs::TryLockError::Error(error)) => {
                    tracing::warn!(%error, "the volume has no locks");
                    return Ok(Self { _file: file });
                }
            }
        }
    }
}

/// A failure with its reason.
fn failure(reason: Reason, message: impl Into<String>) -> Failure {
    Failure { reason, message: message.into() }
}
