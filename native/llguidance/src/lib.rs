//! C functions over llguidance for `bun:ffi`.
//!
//! One process, several JavaScript threads: vocabularies and compiled grammars live here, once for all of them. Grammars are compiled by threads
//! of this library, so no JavaScript thread ever waits for one, and are found again by their content. A matcher belongs to one thread.

mod compile;
mod vocabulary;

use compile::{Grammar, Status};
use llguidance::Matcher;
use std::slice;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;

/// Grammars and matchers that have been given out and not freed.
static LIVE: AtomicI32 = AtomicI32::new(0);

/// # Safety
/// `data` points to `len` bytes, or `len` is 0.
unsafe fn text<'a>(data: *const u8, len: usize) -> &'a str {
    if len == 0 {
        return "";
    }
    std::str::from_utf8(slice::from_raw_parts(data, len)).unwrap_or("\u{fffd}")
}

/// Writes as much of a text as fits; returns the bytes written.
///
/// # Safety
/// `dest` has room for `room` bytes.
unsafe fn write_text(text: &str, dest: *mut u8, room: usize) -> i32 {
    let mut len = text.len().min(room);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    std::ptr::copy_nonoverlapping(text.as_ptr(), dest, len);
    len as i32
}

/// 1 when a vocabulary of this name is there.
///
/// # Safety
/// `name` points to `name_len` bytes.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_has_vocabulary(name: *const u8, name_len: usize) -> i32 {
    vocabulary::find(text(name, name_len)).is_some() as i32
}

/// Adds a vocabulary: token i is the next `lens[i]` bytes of `bytes`. Returns 0, or -1 where it makes no sense.
///
/// # Safety
/// `lens` has `size` entries, `bytes` as many as they add up to, `eos` `num_eos`.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_add_vocabulary(
    name: *const u8,
    name_len: usize,
    lens: *const u32,
    size: usize,
    bytes: *const u8,
    eos: *const u32,
    num_eos: usize,
) -> i32 {
    let lens = slice::from_raw_parts(lens, size);
    let bytes = slice::from_raw_parts(bytes, lens.iter().map(|len| *len as usize).sum());
    let eos = slice::from_raw_parts(eos, num_eos);
    match vocabulary::add(text(name, name_len), lens, bytes, eos) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Compiles a grammar of kind `json_schema`, `regex` or `lark` on another thread, or finds it compiled. Free it with `bao_llg_free_grammar`.
/// null when there is no such vocabulary.
///
/// # Safety
/// The pointers have as many bytes as said.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_compile(
    name: *const u8,
    name_len: usize,
    kind: *const u8,
    kind_len: usize,
    data: *const u8,
    data_len: usize,
) -> *const Grammar {
    match vocabulary::find(text(name, name_len)) {
        Some(vocabulary) => {
            LIVE.fetch_add(1, Ordering::Relaxed);
            Arc::into_raw(compile::start(vocabulary, text(kind, kind_len), text(data, data_len)))
        }
        None => std::ptr::null(),
    }
}

/// 0: not yet, 1: compiled, -1: failed.
#[no_mangle]
pub extern "C" fn bao_llg_grammar_status(grammar: &Grammar) -> i32 {
    match grammar.status() {
        Status::Pending => {
            compile::attend();
            0
        }
        Status::Ready => 1,
        Status::Failed => -1,
    }
}

/// Why it failed or, where it is compiled, what was read more loosely than written; returns the bytes written.
///
/// # Safety
/// `dest` has room for `room` bytes.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_grammar_message(grammar: &Grammar, dest: *mut u8, room: usize) -> i32 {
    write_text(&grammar.message(), dest, room)
}

/// # Safety
/// `grammar` came from `bao_llg_compile` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_free_grammar(grammar: *const Grammar) {
    LIVE.fetch_sub(1, Ordering::Relaxed);
    drop(Arc::from_raw(grammar));
}

/// A matcher at the start of a compiled grammar; null where it is not compiled. It outlives the grammar.
#[no_mangle]
pub extern "C" fn bao_llg_new_matcher(grammar: &Grammar) -> *mut Matcher {
    match grammar.matcher() {
        Some(matcher) => {
            LIVE.fetch_add(1, Ordering::Relaxed);
            Box::into_raw(Box::new(matcher))
        }
        None => std::ptr::null_mut(),
    }
}

/// # Safety
/// `matcher` came from `bao_llg_new_matcher` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_free_matcher(matcher: *mut Matcher) {
    LIVE.fetch_sub(1, Ordering::Relaxed);
    drop(Box::from_raw(matcher));
}

/// Masks of several matchers, one after another, `words` words each: bit i % 32 of word i / 32 is set where token i may come next. At the end of
/// a grammar only EOS may. Returns the number of matchers done: less than `count` where one can't go on.
///
/// # Safety
/// `matchers` has `count` matchers of this thread, `dest` room for `count * words` words.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_fill_masks(matchers: *const *mut Matcher, count: usize, dest: *mut u32, words: usize) -> i32 {
    for (i, matcher) in slice::from_raw_parts(matchers, count).iter().enumerate() {
        let Ok(mask) = (**matcher).compute_mask_or_eos() else {
            return i as i32;
        };
        let mask = mask.as_slice();
        let len = mask.len().min(words);
        let row = slice::from_raw_parts_mut(dest.add(i * words), words);
        row[..len].copy_from_slice(&mask[..len]);
        row[len..].fill(0);
    }
    count as i32
}

/// Advances over one token: 0 where the text may go on, 1 where it is complete and nothing but its end may follow, -1 where the token is not allowed.
#[no_mangle]
pub extern "C" fn bao_llg_accept(matcher: &mut Matcher, token: u32) -> i32 {
    if matcher.consume_token(token).is_err() {
        return -1;
    }
    matcher.is_stopped() as i32
}

/// Grammars and matchers of this process that have not been freed yet.
#[no_mangle]
pub extern "C" fn bao_llg_num_live() -> i32 {
    LIVE.load(Ordering::Relaxed)
}
