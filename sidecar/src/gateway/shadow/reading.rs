//! What an answer says, told from its bytes as they pass: a hash of its text, how long that is, and when it began.
//! Keeps no text beyond the event that is just coming, or an answer in one piece until its end. Incremental: bytes may
//! be cut anywhere. Pure; `now` is an argument.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Instant;

use serde::Deserialize;
use twox_hash::XxHash64;

/// What is kept at once. A longer answer in one piece, of a quarter of a million tokens, is not read.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Choices of a request that are told apart, as many as a request may ask for.
const CHOICES_MAX: usize = 128;

/// The text of an answer, without the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Over the text of each choice.
    pub hash: u64,
    /// In all choices.
    pub characters: u64,
}

/// An answer that is being read.
#[derive(Debug, Default)]
pub struct Reading {
    is_stream: bool,
    /// The line that is coming, or all so far.
    piece: Vec<u8>,
    choices: BTreeMap<u32, Choice>,
    is_done: bool,
    is_unreadable: bool,
    /// When the first text came; of a stream only.
    pub first: Option<Instant>,
}

#[derive(Debug, Default)]
struct Choice {
    hasher: XxHash64,
    characters: u64,
}

// === impl Reading ===

impl Reading {
    /// Of an answer that comes as events, or in one piece.
    pub fn new(is_stream: bool) -> Self {
        Self { is_stream, ..Self::default() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], now: Instant) {
        while self.is_stream
            && let Some(end) = memchr::memchr(b'\n', bytes)
        {
            self.keep(&bytes[..end]);
            let line = std::mem::take(&mut self.piece);
            self.read_line(&line, now);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// What it said, once it is whole; `None` if it is not, or could not be read.
    pub fn text(mut self, now: Instant) -> Option<Text> {
        if self.is_stream {
            self.is_unreadable |= !self.is_done;
        } else {
            let piece = std::mem::take(&mut self.piece);
            self.read(&piece, now);
        }
        if self.is_unreadable {
            return None;
        }
        let mut all = XxHash64::with_seed(0);
        for (index, choice) in &self.choices {
            all.write_u32(*index);
            all.write_u64(choice.hasher.finish());
        }
        let characters = self.choices.values().map(|choice| choice.characters).sum();
        Some(Text { hash: all.finish(), characters })
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.is_unreadable |= self.piece.len() + bytes.len() > PIECE_BYTES_MAX;
        if self.is_unreadable {
            self.piece = Vec::new();
        } else {
            self.piece.extend_from_slice(bytes);
        }
    }

    fn read_line(&mut self, line: &[u8], now: Instant) {
        match line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) {
            Some(b"[DONE]") => self.is_done = true,
            Some(event) => self.read(event, now),
            // A comment, another field or the end of an event.
            None => {}
        }
    }

    fn read(&mut self, answer: &[u8], now: Instant) {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(answer) else {
            self.is_unreadable = true;
            return;
        };
        for said in &answer.choices {
            let Some(text) = said.text() else { continue };
            if self.choices.len() >= CHOICES_MAX && !self.choices.contains_key(&said.index) {
                self.is_unreadable = true;
                return;
            }
            if self.is_stream && !text.is_empty() {
                self.first.get_or_insert(now);
            }
            let choice = self.choices.entry(said.index).or_default();
            choice.hasher.write(text.as_bytes());
            choice.characters += text.chars().count() as u64;
        }
    }
}

/// An answer, or an event of one, as far as it has text.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    choices: Vec<Said<'a>>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    delta: Option<Content<'a>>,
    #[serde(borrow)]
    message: Option<Content<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

impl Said<'_> {
    fn text(&self) -> Option<&str> {
        let content = self.delta.as_ref().or(self.message.as_ref()).and_then(|said| said.content.as_deref());
        content.or(self.text.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        ": queued\n\n",
        "data: {\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"caf\"}}]}\r\n\r\n",
        "data: {\"id\":\"a\",\"choices\":[{\"index\":1,\"delta\":{\"content\":\"tea\"}}]}\n\n",
        "data: {\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"é\\n\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"id\":\"a\",\"choices\":[],\"usage\":{}}\n\n",
        "data: [DONE]\n\n",
    );

    fn read(is_stream: bool, parts: &[&[u8]]) -> Option<Text> {
        let now = Instant::now();
        let mut reading = Reading::new(is_stream);
        for part in parts {
            reading.feed(part, now);
        }
        reading.text(now)
    }

    #[test]
    fn a_stream_says_what_the_same_answer_in_one_piece_says_however_it_is_cut() {
        let whole =
            br#"{"id":"b","choices":[{"index":0,"message":{"role":"assistant","content":"caf\u00e9\n"}},
            {"index":1,"message":{"content":"tea"}}]}"#;
        let expected = read(false, &[whole]).unwrap();
        assert_eq!(expected.characters, 8);
        for cut in 0..=STREAM.len() {
            let (one, other) = STREAM.as_bytes().split_at(cut);
            assert_eq!(read(true, &[one, other]), Some(expected), "cut at {cut}");
        }
        let completion = br#"{"choices":[{"index":1,"text":"tea"},{"index":0,"text":"caf\u00e9\n"}]}"#;
        assert_eq!(read(false, &[completion]), Some(expected));
    }

    #[test]
    fn other_texts_and_texts_of_other_choices_differ() {
        let said = |text: &str, index: u32| {
            let answer = format!(r#"{{"choices":[{{"index":{index},"text":"{text}"}}]}}"#);
            read(false, &[answer.as_bytes()]).unwrap().hash
        };
        assert_ne!(said("tea", 0), said("Tea", 0));
        assert_ne!(said("tea", 0), said("tea", 1));
    }

    #[test]
    fn a_first_text_is_a_streams_first_that_is_not_empty() {
        let (early, late) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
        let mut reading = Reading::new(true);
        let (role, rest) = STREAM.split_at(STREAM.find("caf").unwrap());
        reading.feed(role.as_bytes(), early);
        assert_eq!(reading.first, None);
        reading.feed(rest.as_bytes(), late);
        assert_eq!(reading.first, Some(late));
    }

    #[test]
    fn what_is_not_whole_or_no_answer_or_too_long_is_not_read() {
        let unfinished = STREAM.strip_suffix("data: [DONE]\n\n").unwrap();
        assert_eq!(read(true, &[unfinished.as_bytes()]), None);
        assert_eq!(read(false, &[b"<html>"]), None);
        assert_eq!(read(false, &[b"{\"choices\":[{\"text\":\"x\"}"]), None);
        let long = "x".repeat(PIECE_BYTES_MAX);
        let answer = format!(r#"{{"choices":[{{"text":"{long}"}}]}}"#);
        assert_eq!(read(false, &[answer.as_bytes()]), None);
    }
}
