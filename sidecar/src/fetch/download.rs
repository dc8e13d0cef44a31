//! Bytes from a source to a partial file. What is there already is kept when the source can prove that it still has
//! the same file; connection problems are retried for a while from the last progress.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crds::report::{Failure, Phase, Reason};
use reqwest::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::address::{Guarded, check_literal, refusal_in};
use super::source::Part;
use super::{Progress, failure};

/// Between tries: 0.5, 1, 2, 4, 8 s.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A source that sends nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Hubs redirect once or twice to where the bytes are.
const REDIRECTS_MAX: usize = 5;

/// The rate is measured over this long.
const RATE_EVERY: Duration = Duration::from_secs(1);

/// One file's download.
pub struct Download<'a> {
    part: &'a Part,
    token: Option<HeaderValue>,
    client: Client,
    progress: &'a Progress,
    /// Where the partial file and the note about it lie.
    partial: PathBuf,
    note: PathBuf,
    last_error: Option<String>,
}

/// What is known about a partial file; kept beside it, so that a restarted container can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    url: String,
    /// What the source called this version of the file.
    validator: String,
}

/// Why one try ended early.
enum Interruption {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Lasting(Failure),
}

/// The name of the file while it is not whole.
pub fn part_path(path: &Path) -> PathBuf {
    suffixed(path, ".part")
}

/// Removes what belongs to an unfinished download.
pub fn discard(path: &Path) {
    for leftover in [part_path(path), note_path(path)] {
        // It need not be there.
        drop(std::fs::remove_file(leftover));
    }
}

fn note_path(path: &Path) -> PathBuf {
    suffixed(path, ".part.json")
}

/// The path with something added to its last part.
pub fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A failure of the model volume.
pub fn storage(path: &Path, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the model volume is full, make it larger"
        }
        _ => "; the model volume must be writable",
    };
    failure(Reason::StorageFull, format!("{} cannot be written: {error}{cure}", path.display()))
}

// === impl Download ===

impl<'a> Download<'a> {
    /// Of this part.
    pub fn new(part: &'a Part, token: Option<&str>, progress: &'a Progress) -> Result<Self, Failure> {
        let token = token.filter(|token| !token.is_empty()).map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .map_err(|_| failure(Reason::SourceForbidden, "the source's token is not text"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let client = crate::web::client()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .dns_resolver(Guarded)
            .build()
            .map_err(|error| {
                failure(Reason::SourceUnreachable, format!("no connections can be made: {error}"))
            })?;
        Ok(Self {
            part,
            token: token.transpose()?,
            client,
            progress,
            partial: part_path(&part.path),
            note: note_path(&part.path),
            last_error: None,
        })
    }

    /// Until the partial file is whole; returns its length. Gives up after so long without progress.
    pub async fn run(mut self, retry_max: Duration) -> Result<u64, Failure> {
        let mut last_progress = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let had = self.bytes_there();
            let why = match self.attempt().await {
                Ok(bytes) => return Ok(bytes),
                Err(Interruption::Lasting(failure)) => return Err(failure),
                Err(Interruption::Passing(why)) => why,
            };
            if self.bytes_there() > had {
                last_progress = Instant::now();
                backoff = BACKOFF_FIRST;
            }
            if last_progress.elapsed() + backoff > retry_max {
                let message =
                    format!("{} gives no answer: {why}; check the address and the network", self.host());
                return Err(failure(Reason::SourceUnreachable, message));
            }
            tracing::warn!(why, retry_ms = backoff.as_millis(), "the download is interrupted");
            self.last_error = Some(why);
            self.say(self.bytes_there(), None, None);
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(&mut self) -> Result<u64, Interruption> {
        let note = self.read_note();
        let has = if note.is_some() { self.bytes_there() } else { 0 };
        let response = self.ask(note.as_ref().filter(|_| has > 0).map(|note| (has, note))).await?;
        let status = response.status();
        let validator = validator(response.headers());
        let continues = status == StatusCode::PARTIAL_CONTENT
            && range_start(response.headers()) == Some(has)
            && note.is_some_and(|note| validator.as_deref().is_none_or(|now| now == note.validator));
        match status {
            StatusCode::PARTIAL_CONTENT if continues => self.receive(response, has).await,
            StatusCode::PARTIAL_CONTENT => {
                self.forget();
                Err(Interruption::Passing("the source has another version of the file now".into()))
            }
            StatusCode::OK => {
                self.forget();
                if let Some(validator) = validator {
                    self.write_note(&Note { url: self.part.url.to_string(), validator });
                }
                self.receive(response, 0).await
            }
            // Nothing is left to send: the file was whole but not yet checked.
            StatusCode::RANGE_NOT_SATISFIABLE if total(response.headers()) == Some(has) => Ok(has),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.forget();
                Err(Interruption::Passing("the source's file is shorter now".into()))
            }
            status => Err(refused(status, &self.host())),
        }
    }

    /// Follows redirects by itself: each address is looked at, and the token stays with its host.
    async fn ask(&self, from: Option<(u64, &Note)>) -> Result<Response, Interruption> {
        let mut url = self.part.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            check_literal(&url).map_err(|forbidden| {
                Interruption::Lasting(failure(Reason::SourceForbidden, forbidden.to_string()))
            })?;
            let mut request = self.client.get(url.clone());
            if let Some(token) = self.token.clone().filter(|_| url.origin() == self.part.url.origin()) {
                request = request.header(AUTHORIZATION, token);
            }
            if let Some((has, note)) = from {
                request = request.header(RANGE, format!("bytes={has}-")).header(IF_RANGE, &note.validator);
            }
            let response = request.send().await.map_err(|error| interruption(&error))?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            url = redirected(&url, &response)?;
        }
        let message = format!("{} redirects more than {REDIRECTS_MAX} times", self.host());
        Err(Interruption::Lasting(failure(Reason::SourceUnreachable, message)))
    }

    async fn receive(&mut self, mut response: Response, has: u64) -> Result<u64, Interruption> {
        let total = response.content_length().map(|left| has + left);
        let lasting = |error: &io::Error| Interruption::Lasting(storage(&self.partial, error));
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.partial)
            .map_err(|error| lasting(&error))?;
        let mut done = has;
        let mut rate = Rate::new(done);
        self.say(done, total, None);
        while let Some(chunk) = response.chunk().await.map_err(|error| interruption(&error))? {
            if done == 0 && chunk.len() >= 4 && !chunk.starts_with(b"GGUF") {
                // Not worth the rest. The check finds the same and words it.
                file.write_all(&chunk[..chunk.len().min(64)]).map_err(|error| lasting(&error))?;
                return Ok(chunk.len() as u64);
            }
            file.write_all(&chunk).map_err(|error| lasting(&error))?;
            done += chunk.len() as u64;
            if let Some(per_second) = rate.at(done, Instant::now()) {
                self.last_error = None;
                self.say(done, total, total.map(|total| seconds_for(total.saturating_sub(done), per_second)));
            }
        }
        file.sync_all().map_err(|error| lasting(&error))?;
        Ok(done)
    }

    fn say(&self, done: u64, total: Option<u64>, seconds_left: Option<u64>) {
        self.progress.send_replace(Phase::Downloading {
            bytes_done: done,
            bytes_total: total,
            seconds_left,
            last_error: self.last_error.clone(),
        });
    }

    fn bytes_there(&self) -> u64 {
        std::fs::metadata(&self.partial).map_or(0, |metadata| metadata.len())
    }

    /// What is there may be continued only if it came from the same address.
    fn read_note(&self) -> Option<Note> {
        let text = std::fs::read(&self.note).ok()?;
        serde_json::from_slice(&text).ok().filter(|note: &Note| note.url == self.part.url.as_str())
    }

    /// Without a note the next try begins anew, which is all that is lost when it cannot be written.
    fn write_note(&self, note: &Note) {
        if let Ok(text) = serde_json::to_vec(note) {
            drop(std::fs::write(&self.note, text));
        }
    }

    fn forget(&self) {
        discard(&self.part.path);
    }

    fn host(&self) -> String {
        self.part.url.host_str().unwrap_or_default().to_owned()
    }
}

/// What names this version of the file: a strong `ETag`, or else the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let strong = text(ETAG).filter(|etag| !etag.starts_with("W/"));
    strong.or_else(|| text(LAST_MODIFIED)).map(str::to_owned)
}

/// `bytes 100-199/200` begins at 100.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// `bytes */200` is 200 long.
fn total(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}

fn redirected(from: &Url, response: &Response) -> Result<Url, Interruption> {
    let lasting = |message: String| Interruption::Lasting(failure(Reason::SourceUnreachable, message));
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| lasting("the source redirects to nowhere".into()))?;
    let to = from
        .join(location)
        .map_err(|_| lasting("the source redirects to something that is no address".into()))?;
    let is_downgrade = from.scheme() == "https" && to.scheme() != "https";
    if is_downgrade || !matches!(to.scheme(), "http" | "https") {
        let message = format!("the source redirects from {} to {}", from.scheme(), to.scheme());
        return Err(Interruption::Lasting(failure(Reason::SourceForbidden, message)));
    }
    Ok(to)
}

fn refused(status: StatusCode, host: &str) -> Interruption {
    let lasting = |reason, message: String| Interruption::Lasting(failure(reason, message));
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => lasting(
            Reason::SourceNotFound,
            format!("{host} has no such file (status {status}); check the source"),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let message =
                format!("{host} refuses the file (status {status}); check secretRef and the token's rights");
            lasting(Reason::SourceForbidden, message)
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Interruption::Passing(format!("it answers with status {status}"))
        }
        status if status.is_server_error() => {
            Interruption::Passing(format!("it answers with status {status}"))
        }
        status => {
            lasting(Reason::SourceNotFound, format!("{host} answers with status {status}; check the source"))
        }
    }
}

fn interruption(error: &reqwest::Error) -> Interruption {
    if let Some(forbidden) = refusal_in(error) {
        return Interruption::Lasting(failure(Reason::SourceForbidden, forbidden.to_string()));
    }
    // The innermost cause is what a person can act on; the outer ones repeat the address, which may hold secrets.
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection broke"
    };
    if std::ptr::addr_eq(innermost, error) {
        return Interruption::Passing(what.to_owned());
    }
    Interruption::Passing(format!("{what} ({innermost})"))
}

/// How fast it goes, for an estimate of what is left.
struct Rate {
    since: Instant,
    bytes: u64,
}

impl Rate {
    fn new(bytes: u64) -> Self {
        Self { since: Instant::now(), bytes }
    }

    /// Bytes per second, once per [`RATE_EVERY`].
    fn at(&mut self, done: u64, now: Instant) -> Option<f64> {
        let span = now.saturating_duration_since(self.since);
        if span < RATE_EVERY {
            return None;
        }
        let per_second = done.saturating_sub(self.bytes) as f64 / span.as_secs_f64();
        (self.since, self.bytes) = (now, done);
        Some(per_second)
    }
}

fn seconds_for(bytes: u64, per_second: f64) -> u64 {
    Duration::try_from_secs_f64(bytes as f64 / per_second.max(1.0)).map_or(u64::MAX, |left| left.as_secs())
}
