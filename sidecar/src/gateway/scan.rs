//! Where an event stream stands, told from its bytes as they pass: whether anything but comments came, and whether the
//! end was announced. Incremental: lines may be cut anywhere. Looks at the beginning of each line only.

/// What an OpenAI-type stream says at its end.
const DONE: &[u8] = b"[DONE]";
/// How an error frame begins, ours and the pods'.
const ERROR: &[u8] = b"{\"error\"";
/// The field that carries both.
const DATA: &[u8] = b"data:";

/// The state; fed with everything that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan {
    at: At,
    /// Whether any line but comments and empty ones has begun.
    pub has_content: bool,
    /// Whether `data: [DONE]` came.
    pub is_done: bool,
    /// Whether an error frame began.
    pub has_error: bool,
}

/// Where in a line the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// At its beginning.
    #[default]
    Start,
    /// So many bytes of `data:` have come.
    Field(u8),
    /// After `data:`; one space may come.
    Value,
    /// So many bytes of `[DONE]` have come.
    Done(u8),
    /// So many bytes of `{"error"` have come.
    Error(u8),
    /// In a part that says nothing here.
    Rest,
}

impl Scan {
    /// Takes the next bytes. Returns where in them the first content begins, if it does.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let had_content = self.has_content;
        let mut first = None;
        let mut position = 0;
        while let Some(byte) = bytes.get(position) {
            if self.at == At::Rest {
                let Some(skipped) = memchr::memchr(b'\n', &bytes[position..]) else { break };
                position += skipped + 1;
                self.at = At::Start;
                continue;
            }
            if self.at == At::Start && !matches!(byte, b':' | b'\r' | b'\n') {
                self.has_content = true;
                first = first.or(Some(position));
            }
            self.at = self.after(*byte);
            position += 1;
        }
        first.filter(|_| !had_content)
    }

    /// Whether the last line is whole, so that something else may follow.
    pub fn is_between_lines(&self) -> bool {
        self.at == At::Start
    }

    fn after(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            // The end of a line may follow each byte; `[DONE]` is one only when it is all of its line.
            (At::Done(6), b'\n' | b'\r') => {
                self.is_done = true;
                if byte == b'\n' { At::Start } else { At::Rest }
            }
            (_, b'\n') => At::Start,
            (At::Start, b'd') => At::Field(1),
            (At::Field(seen), _) => follow(DATA, seen, byte, At::Field).unwrap_or(At::Rest),
            (At::Value, b' ') => At::Value,
            (At::Value, b'[') => At::Done(1),
            (At::Value, b'{') => At::Error(1),
            (At::Done(seen), _) => follow(DONE, seen, byte, At::Done).unwrap_or(At::Rest),
            (At::Error(seen), _) => match follow(ERROR, seen, byte, At::Error) {
                Some(At::Value) => {
                    self.has_error = true;
                    At::Rest
                }
                next => next.unwrap_or(At::Rest),
            },
            (At::Start | At::Value | At::Rest, _) => At::Rest,
        }
    }
}

/// The state after one more byte of `text`; `Value` when it is whole (of `[DONE]` only the line's end makes it so).
fn follow(text: &[u8], seen: u8, byte: u8, state: fn(u8) -> At) -> Option<At> {
    if text.get(usize::from(seen)) != Some(&byte) {
        return None;
    }
    let is_whole = usize::from(seen) + 1 == text.len();
    Some(if is_whole && text != DONE { At::Value } else { state(seen + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the text whole, and cut at each byte; the outcome must be the same.
    fn check(text: &str, has_content: bool, is_done: bool, has_error: bool) {
        for cut in 0..=text.len() {
            let mut scan = Scan::default();
            scan.feed(&text.as_bytes()[..cut]);
            scan.feed(&text.as_bytes()[cut..]);
            let found = (scan.has_content, scan.is_done, scan.has_error);
            assert_eq!(found, (has_content, is_done, has_error), "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn comments_and_empty_lines_are_no_content() {
        check(": queued, 3 ahead\n\n: working\r\n\r\n", false, false, false);
        check(": data: [DONE]\n\n", false, false, false);
    }

    #[test]
    fn the_end_is_found_in_each_way_of_writing_it() {
        check("data: {}\n\ndata: [DONE]\n\n", true, true, false);
        check("data:[DONE]\r\n\r\n", true, true, false);
        check("id: 4\ndata: [DONE]\n", true, true, false);
    }

    #[test]
    fn what_only_looks_like_the_end_is_none() {
        check("data: {\"content\":\"data: [DONE]\"}\n\n", true, false, false);
        check("data: [DONE]x\n\n", true, false, false);
        check("data: [DONE", true, false, false);
        check("date: [DONE]\n\n", true, false, false);
    }

    #[test]
    fn an_error_frame_is_found() {
        check(": queued\n\ndata: {\"error\":{\"message\":\"lost\"}}\n\n", true, false, true);
        check("data: {\"errors\":1}\n\n", true, false, false);
    }

    #[test]
    fn content_begins_where_it_begins() {
        let mut scan = Scan::default();
        assert_eq!(scan.feed(b": working\n\n"), None);
        assert_eq!(scan.feed(b": working\n\ndata: {}\n\n"), Some(11));
        assert!(scan.is_between_lines());
        assert_eq!(scan.feed(b"data: {}\n\n"), None);
    }
}
