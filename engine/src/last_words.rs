//! What a worker writes to its standard error: passed on as it comes, and its last line kept for whoever asks why the
//! worker ended. Must not know what the lines mean, except that Rust's advice on backtraces explains nothing.

use std::io::Write;

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;

/// Kept of one line; an assertion with its place in the source is a third of it.
const LINE_BYTES_MAX: usize = 600;

/// Rust's last line of a panic.
const ADVICE: &str = "note: run with `RUST_BACKTRACE";

/// The last line that says something.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    open: Vec<u8>,
    last: Option<String>,
}

/// Passes everything on until the worker's end.
pub(crate) async fn overhear(mut stderr: ChildStderr) -> LastWords {
    let mut words = LastWords::default();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut bytes).await {
        // Nowhere to report to if our own standard error is closed.
        let _ = std::io::stderr().write_all(&bytes[..count]);
        words.hear(&bytes[..count]);
    }
    words.end_line();
    words
}

impl LastWords {
    /// The line, if there was any.
    pub(crate) fn told(self) -> Option<String> {
        self.last
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.open.len() < LINE_BYTES_MAX => self.open.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.open);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim();
        if !line.is_empty() && !line.starts_with(ADVICE) {
            self.last = Some(without_folders(line).to_owned());
        }
    }
}

/// An assertion begins with the file that it is in; the folders are those of the machine that compiled it.
fn without_folders(line: &str) -> &str {
    let place = line.split(' ').next().unwrap_or_default();
    match place.rfind('/') {
        Some(slash) if place.starts_with('/') => &line[slash + 1..],
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: Option<&str>) {
        let mut words = LastWords::default();
        for piece in pieces {
            words.hear(piece.as_bytes());
        }
        words.end_line();
        assert_eq!(words.told().as_deref(), expected);
    }

    #[test]
    fn the_last_line_is_told_however_it_comes() {
        check(&["first\nsec", "ond\n", "\n"], Some("second"));
        check(&["first\n", "cut off"], Some("cut off"));
        check(&["\n \n"], None);
    }

    #[test]
    fn assertions_and_panics_are_told_without_what_is_around_them() {
        let assertion = "/home/somebody/llama.cpp/src/llama-model.cpp:7: GGML_ASSERT(a / b == c) failed\n";
        check(&[assertion], Some("llama-model.cpp:7: GGML_ASSERT(a / b == c) failed"));
        let panic = "thread 'main' panicked at src/a.rs:1:2:\nindex out of bounds\n\
                     note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        check(&[panic], Some("index out of bounds"));
    }

    #[test]
    fn a_line_without_an_end_does_not_grow() {
        check(&["x".repeat(100_000).as_str()], Some("x".repeat(LINE_BYTES_MAX).as_str()));
    }
}
