//! Bounds the white space between the tokens of JSON. llguidance takes any amount of it wherever it takes some, and whatever `whitespace_pattern`
//! says may come again and again; a small model that likes line breaks then writes nothing else until its last token.

use llguidance::toktrie::TokTrie;

/// In one gap: line breaks, and other white space (less what an indentation by `INDENT` characters a level takes).
const MAX_LINE_BREAKS: usize = 1;
const MAX_SPACES: usize = 2;
const INDENT: usize = 8;

/// Tokens of a vocabulary that begin with white space, as masks.
pub struct SpaceTokens {
    any: Vec<u32>,
    /// Those whose white space has a line break.
    line_breaks: Vec<u32>,
}

impl SpaceTokens {
    pub fn of(trie: &TokTrie) -> Self {
        let words = trie.vocab_size().div_ceil(32);
        let mut tokens = Self { any: vec![0; words], line_breaks: vec![0; words] };
        for id in 0..trie.vocab_size() {
            let space = trie.token(id as u32).iter().take_while(|byte| is_space(**byte));
            let (mut len, mut breaks) = (0, false);
            for byte in space {
                len += 1;
                breaks |= *byte == b'\n' || *byte == b'\r';
            }
            if len > 0 {
                tokens.any[id / 32] |= 1 << (id % 32);
            }
            if breaks {
                tokens.line_breaks[id / 32] |= 1 << (id % 32);
            }
        }
        tokens
    }
}

/// Where a text stands in its JSON.
#[derive(Clone)]
pub struct Whitespace {
    /// Texts behind which a JSON value begins; none: the whole text is one.
    begins: Vec<Vec<u8>>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// With the last bytes of the text.
    Outside(Vec<u8>),
    Inside(Value),
}

#[derive(Clone, Default)]
struct Value {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// At depth 0: a number or a word has begun, or the value has ended.
    in_scalar: bool,
    ended: bool,
    line_breaks: usize,
    spaces: usize,
}

impl Whitespace {
    pub fn new(begins: Vec<Vec<u8>>) -> Self {
        let place = if begins.is_empty() { Place::Inside(Value::default()) } else { Place::Outside(Vec::new()) };
        Self { begins, place }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take_byte(*byte);
        }
    }

    fn take_byte(&mut self, byte: u8) {
        match &mut self.place {
            Place::Inside(value) => {
                if !value.take(byte) && !self.begins.is_empty() {
                    self.place = Place::Outside(vec![byte]);
                }
            }
            Place::Outside(tail) => {
                tail.push(byte);
                if self.begins.iter().any(|begin| tail.ends_with(begin)) {
                    self.place = Place::Inside(Value::default());
                    return;
                }
                let longest = self.begins.iter().map(Vec::len).max().unwrap_or(0);
                // Not with every byte, so that a long text stays linear.
                if tail.len() > 2 * longest + 64 {
                    tail.drain(..tail.len() - longest);
                }
            }
        }
    }

    /// Takes out of a mask what would make a gap too long, unless nothing else is left.
    pub fn restrict(&self, mask: &mut [u32], tokens: &SpaceTokens) {
        let Place::Inside(value) = &self.place else { return };
        if value.in_string {
            return;
        }
        let refused = if value.spaces >= MAX_SPACES + INDENT * value.depth {
            &tokens.any
        } else if value.line_breaks >= MAX_LINE_BREAKS {
            &tokens.line_breaks
        } else {
            return;
        };
        if mask.iter().zip(refused).any(|(allowed, refused)| allowed & !refused != 0) {
            for (allowed, refused) in mask.iter_mut().zip(refused) {
                *allowed &= !refused;
            }
        }
    }
}

impl Value {
    /// False where the byte is no longer the value's.
    fn take(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.take_in_string(byte);
            return true;
        }
        if is_space(byte) {
            self.ended |= self.in_scalar;
            if byte == b'\n' {
                self.line_breaks += 1;
            } else {
                self.spaces += 1;
            }
            return true;
        }
        if self.ended {
            return false;
        }
        self.line_breaks = 0;
        self.spaces = 0;
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.ended = self.depth == 0;
            }
            _ if self.depth == 0 => {
                if self.in_scalar && !is_of_scalar(byte) {
                    return false;
                }
                self.in_scalar = true;
            }
            _ => {}
        }
        true
    }

    fn take_in_string(&mut self, byte: u8) {
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
            self.ended = self.depth == 0;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_of_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}
