//! From the bytes of tokens to text: joins UTF-8 scalars that tokens have split, and finds stop strings across
//! tokens. Holds back no more than could still become a stop string. Pure: must not know tokens.

/// The text of one sequence on its way out.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<Vec<u8>>,
    /// Bytes that could be the beginning of a stop string.
    held: Vec<u8>,
    /// Bytes that are the beginning of a scalar; at most three.
    partial: Vec<u8>,
    released: u64,
    is_stopped: bool,
}

impl TextStream {
    /// Empty stop strings would stop at once and are ignored.
    pub fn new(stops: &[String]) -> TextStream {
        let stops =
            stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.clone().into_bytes()).collect();
        TextStream { stops, held: Vec::new(), partial: Vec::new(), released: 0, is_stopped: false }
    }

    /// Adds a token's bytes; returns the text that is certain now. After the stop nothing comes out any more.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.is_stopped {
            return String::new();
        }
        // A stop string can begin in `held` at the earliest: everything before has been shown to belong to none.
        self.held.extend_from_slice(bytes);
        if let Some(at) = self.first_stop() {
            self.is_stopped = true;
            self.held.truncate(at);
            return self.release(at, true);
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        self.release(self.held.len() - kept, false)
    }

    /// The end without a stop string: what was held back comes out.
    pub fn finish(&mut self) -> String {
        self.release(self.held.len(), true)
    }

    /// Whether a stop string has been seen.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// How many of the pushed bytes are out, or on their way out as the beginning of a scalar.
    pub fn released_bytes(&self) -> u64 {
        self.released
    }

    /// Where the stop string begins that is complete first, and of those that end together the longest: the
    /// text must not depend on how it was split into tokens.
    fn first_stop(&self) -> Option<usize> {
        let found = |stop: &Vec<u8>| find(&self.held, stop).map(|at| (at + stop.len(), at));
        self.stops.iter().filter_map(found).min().map(|(_, at)| at)
    }

    fn release(&mut self, count: usize, is_end: bool) -> String {
        self.released += count as u64;
        self.partial.extend(self.held.drain(..count));
        let mut text = String::with_capacity(self.partial.len());
        let incomplete = decode_lossy(&self.partial, &mut text);
        self.partial.drain(..self.partial.len() - incomplete);
        if is_end && !self.partial.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.partial.clear();
        }
        text
    }
}

/// Appends the text of `bytes` and returns how many bytes at the end are an unfinished scalar.
fn decode_lossy(bytes: &[u8], text: &mut String) -> usize {
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        if chunks.peek().is_none() && is_scalar_prefix(invalid) {
            return invalid.len();
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    0
}

/// Whether more bytes could make a scalar of these.
fn is_scalar_prefix(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The length of the longest end of `text` that is a beginning of `stop`, and not all of it.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    (1..stop.len().min(text.len() + 1)).rev().find(|length| text.ends_with(&stop[..*length])).unwrap_or(0)
}

fn find(text: &[u8], stop: &[u8]) -> Option<usize> {
    text.windows(stop.len()).position(|window| window == stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(stops: &[&str], pushes: &[&[u8]], expected: &[&str], end: &str) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(&stops);
        let texts: Vec<String> = pushes.iter().map(|bytes| stream.push(bytes)).collect();
        assert_eq!(texts, expected);
        assert_eq!(stream.finish(), end);
    }

    #[test]
    fn text_without_stop_strings_comes_out_at_once() {
        check(&[], &[b"one", b" two"], &["one", " two"], "");
    }

    #[test]
    fn a_scalar_split_between_tokens_comes_out_whole() {
        check(&[], &[b"caf\xc3", b"\xa9", b"\xf0\x9f", b"\x8c\x8d!"], &["caf", "é", "", "🌍!"], "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        check(
            &[],
            &[b"a\xffb", b"\xc3", b"(", b"\xe2\x82"],
            &["a\u{fffd}b", "", "\u{fffd}(", ""],
            "\u{fffd}",
        );
    }

    #[test]
    fn a_stop_string_is_found_across_tokens_and_cut_away() {
        check(&["END"], &[b"go E", b"N", b"D more"], &["go ", "", ""], "");
    }

    #[test]
    fn what_only_looked_like_a_stop_string_comes_out_later() {
        check(&["END"], &[b"E", b"NE", b"X"], &["", "EN", "EX"], "");
    }

    #[test]
    fn the_held_back_rest_comes_out_at_the_end() {
        check(&["</s>"], &[b"a </"], &["a "], "</");
    }

    #[test]
    fn of_two_stop_strings_the_one_that_is_complete_first_counts() {
        check(&["cd", "bcde"], &[b"abcde"], &["ab"], "");
        check(&["cd", "bcde"], &[b"a", b"b", b"c", b"d"], &["a", "", "", "b"], "");
        check(&["cd", "bcd"], &[b"abcd"], &["a"], "");
    }

    proptest! {
        #[test]
        fn the_output_is_the_text_before_the_stop_that_is_complete_first_however_it_is_split(
            text in "[abé🌍]{0,40}",
            stops in proptest::collection::vec("[abé🌍]{1,4}", 0..4),
            cuts in proptest::collection::vec(1usize..6, 1..40),
        ) {
            let mut stream = TextStream::new(&stops);
            let mut out = String::new();
            let mut rest = text.as_bytes();
            let mut fed = 0;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || stream.is_stopped() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                fed += now.len() as u64;
                out.push_str(&stream.push(now));
                // Never holds more than the longest stop string less one byte, plus a partial scalar.
                let longest = stops.iter().map(String::len).max().unwrap_or(1);
                prop_assert!(stream.is_stopped() || fed - stream.released_bytes() < longest as u64);
            }
            out.push_str(&stream.finish());
            let found = |stop: &String| text.find(stop.as_str()).map(|at| (at + stop.len(), at));
            let end = stops.iter().filter_map(found).min().map(|(_, at)| at);
            prop_assert_eq!(stream.is_stopped(), end.is_some());
            prop_assert_eq!(out, &text[..end.unwrap_or(text.len())]);
        }

        #[test]
        fn any_bytes_come_out_as_the_standard_library_would_show_them(bytes in proptest::collection::vec(any::<u8>(), 0..60), size in 1usize..5) {
            let mut stream = TextStream::new(&[]);
            let mut out: String = bytes.chunks(size).map(|chunk| stream.push(chunk)).collect();
            out.push_str(&stream.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
