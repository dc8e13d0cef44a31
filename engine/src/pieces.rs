//! Cuts a long text before control tokens. llama.cpp's search for control tokens takes time with the square of
//! their number in one text, so that a megabyte of them would occupy the tokenizer for half a minute; a control
//! token separates what is before it from what is behind it, so the pieces' tokens are the text's tokens.
//! Pure; must not know llama.cpp.

use aho_corasick::{AhoCorasick, MatchKind};

/// Control tokens in one piece. A conversation of a hundred turns stays whole.
const PER_PIECE_MAX: usize = 256;

/// The texts before which a text may be cut.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// `None` if there are no such texts.
    marks: Option<AhoCorasick>,
}

impl Pieces {
    pub(crate) fn new(mut marks: Vec<Vec<u8>>) -> Pieces {
        marks.retain(|mark| !mark.is_empty());
        if marks.is_empty() {
            return Pieces { marks: None };
        }
        // Longest first, as the tokenizer looks for them: no cut in the middle of a longer one.
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(marks);
        Pieces { marks: search.ok() }
    }

    /// The pieces of the text in order; none is empty.
    pub(crate) fn cut<'text>(&self, text: &'text str) -> Vec<&'text str> {
        let mut pieces = Vec::new();
        let mut begin = 0;
        if let Some(marks) = &self.marks {
            for found in marks.find_iter(text).skip(PER_PIECE_MAX).step_by(PER_PIECE_MAX) {
                // Marks are any bytes; a cut inside a scalar is none.
                if text.is_char_boundary(found.start()) {
                    pieces.push(&text[begin..found.start()]);
                    begin = found.start();
                }
            }
        }
        pieces.push(&text[begin..]);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks() -> Pieces {
        Pieces::new(vec![b"<a>".to_vec(), b"<a><b>".to_vec(), Vec::new()])
    }

    #[test]
    fn short_texts_stay_whole() {
        assert_eq!(marks().cut("x<a>y"), ["x<a>y"]);
        assert_eq!(marks().cut(""), [""; 0]);
        assert_eq!(Pieces::new(Vec::new()).cut("<a>"), ["<a>"]);
    }

    #[test]
    fn a_longer_mark_is_not_cut() {
        let text = "<a><b>".repeat(PER_PIECE_MAX * 2);
        assert!(marks().cut(&text).iter().all(|piece| piece.starts_with("<a><b>")));
        assert_eq!(marks().cut(&text).len(), 2);
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_text_and_begin_with_marks(parts in proptest::collection::vec("(<a>|<b>|é|x){0,4}", 0..900)) {
            let text = parts.concat();
            let pieces = marks().cut(&text);
            prop_assert_eq!(&pieces.concat(), &text);
            for piece in pieces.iter().skip(1) {
                prop_assert!(piece.starts_with("<a>"));
            }
            for piece in &pieces {
                prop_assert!(piece.matches("<a>").count() <= PER_PIECE_MAX);
            }
        }
    }
}
