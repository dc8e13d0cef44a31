//! `kubectl` as the tests use it. Waiting is watching: an object is read again when it changes, never on a timer.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The namespace in which the tests create their models.
pub const NAMESPACE: &str = "default";

/// Runs `kubectl` in [`NAMESPACE`] and returns what it printed; a failure carries what it said.
pub fn kubectl(arguments: &[&str]) -> Result<String> {
    run(Command::new("kubectl").arg("--namespace").arg(NAMESPACE).args(arguments), "")
}

/// Applies a manifest, by a field manager of its own as a user's `kubectl apply --server-side` would.
pub fn apply(manifest: &str) -> Result<String> {
    let mut command = Command::new("kubectl");
    command.args(["--namespace", NAMESPACE, "apply", "--server-side", "--filename", "-"]);
    run(&mut command, manifest)
}

/// Applies a manifest whose objects name their own namespaces.
pub fn apply_anywhere(manifest: &str) -> Result<String> {
    run(Command::new("kubectl").args(["apply", "--server-side", "--filename", "-"]), manifest)
}

/// Changes single fields of an object: `patch("imodel", "tiny", r#"{"spec":{…}}"#)`.
pub fn patch(kind: &str, name: &str, merge: &str) -> Result<String> {
    kubectl(&["patch", kind, name, "--type", "merge", "--patch", merge])
}

/// Posts a body to a path of the API, as `kubectl` has no command for each.
pub fn create_raw(path: &str, body: &str) -> Result<String> {
    run(Command::new("kubectl").args(["create", "--raw", path, "--filename", "-"]), body)
}

/// One object, or `None` if there is none of that name.
pub fn get(kind: &str, name: &str) -> Result<Option<Value>> {
    let text = kubectl(&["get", kind, name, "--output", "json", "--ignore-not-found"])?;
    if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
}

/// All objects that a label selector finds.
pub fn list(kinds: &str, selector: &str) -> Result<Vec<Value>> {
    let text = kubectl(&["get", kinds, "--selector", selector, "--output", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until `is_there` holds for the object and returns it as it was then. `what` names the awaited state in
/// the error, which also carries the last object seen.
pub fn wait_until(
    kind: &str,
    name: &str,
    limit: Duration,
    what: &str,
    is_there: impl Fn(&Value) -> bool,
) -> Result<Value> {
    watch_until(&[kind, name], limit, what, is_there)
}

/// Waits until `is_there` holds for any of the objects that `kubectl get` with these arguments finds, as
/// [`wait_until`] does.
pub fn watch_until(
    which: &[&str],
    limit: Duration,
    what: &str,
    is_there: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let began = Instant::now();
    let mut watch = Watch::start(which)?;
    let mut last = Value::Null;
    while let Some(left) = limit.checked_sub(began.elapsed()) {
        match watch.next(left) {
            Ok(object) if is_there(&object) => return Ok(object),
            Ok(object) => last = object,
            // The API server ends a watch now and then; that is no failure.
            Err(mpsc::RecvTimeoutError::Disconnected) => watch = Watch::start(which)?,
            Err(mpsc::RecvTimeoutError::Timeout) => break,
        }
    }
    bail!("{which:?} was not {what} within {limit:?}; last seen: {:#}", last["status"])
}

/// `kubectl get --watch`, object by object.
struct Watch {
    process: Child,
    objects: mpsc::Receiver<Value>,
}

impl Watch {
    fn start(which: &[&str]) -> Result<Self> {
        let mut process = Command::new("kubectl")
            .args(["--namespace", NAMESPACE, "get", "--output", "json", "--watch"])
            .args(which)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("kubectl get --watch")?;
        let output = process.stdout.take().context("kubectl has a piped stdout")?;
        let (sender, objects) = mpsc::channel();
        std::thread::spawn(move || {
            for object in serde_json::Deserializer::from_reader(output).into_iter().map_while(Result::ok) {
                if sender.send(object).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, objects })
    }

    fn next(&mut self, limit: Duration) -> Result<Value, mpsc::RecvTimeoutError> {
        self.objects.recv_timeout(limit)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until nothing that the selector finds is left.
pub fn wait_gone(kinds: &str, selector: &str, limit: Duration) -> Result<()> {
    let limit = format!("{}s", limit.as_secs());
    kubectl(&["wait", "--for", "delete", kinds, "--selector", selector, "--timeout", &limit]).map(drop)
}

/// The condition of a type, as (status, reason, message).
pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let found = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind);
    let text =
        |field: &str| found.and_then(|condition| condition[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Whether the operator has judged this generation of the object to be in the given state.
pub fn is(object: &Value, kind: &str, status: &str) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
        && condition(object, kind).0 == status
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} does not start"))?;
    process.stdin.take().context("the process has a piped stdin")?.write_all(input.as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs any command to its end, as [`kubectl`] does.
pub fn command(program: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new(program).args(arguments), "")
}
