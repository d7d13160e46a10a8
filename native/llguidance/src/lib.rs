//! C functions over llguidance for `bun:ffi`.
//!
//! One process, several JavaScript threads: vocabularies and compiled grammars live here, once for all of them. Grammars are compiled by threads
//! of this library, so no JavaScript thread ever waits for one, and are found again by their content. Matchers work on threads of this library too.

mod compile;
mod follow;
mod vocabulary;
mod whitespace;

use compile::{Grammar, Status};
use follow::Follower;
use std::slice;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::Arc;
use std::time::Duration;
use whitespace::Whitespace;

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

/// A matcher at the start of a compiled grammar, which is pending; null where the grammar is not compiled. It outlives the grammar.
///
/// `num_begins`: 0 where the text is one JSON value, more where one begins behind each of these texts, -1 where white space is not to be bounded.
///
/// # Safety
/// `grammar` came from `bao_llg_compile`; `lens` has `num_begins` entries, `begins` as many bytes as they add up to.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_new_matcher(
    grammar: *const Grammar,
    lens: *const u32,
    num_begins: i32,
    begins: *const u8,
) -> *const Follower {
    Arc::increment_strong_count(grammar);
    let grammar = Arc::from_raw(grammar);
    if !matches!(grammar.status(), Status::Ready) {
        return std::ptr::null();
    }
    let mut rest = begins;
    let lens = if num_begins > 0 { slice::from_raw_parts(lens, num_begins as usize) } else { &[] };
    let texts = lens.iter().map(|len| {
        let text = slice::from_raw_parts(rest, *len as usize).to_vec();
        rest = rest.add(*len as usize);
        text
    });
    let whitespace = if num_begins < 0 { None } else { Some(Whitespace::new(texts.collect())) };
    LIVE.fetch_add(1, Ordering::Relaxed);
    let vocabulary = grammar.1.clone();
    Arc::into_raw(Follower::start(grammar, vocabulary, whitespace))
}

/// # Safety
/// `matcher` came from `bao_llg_new_matcher` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_free_matcher(matcher: *const Follower) {
    LIVE.fetch_sub(1, Ordering::Relaxed);
    let matcher = Arc::from_raw(matcher);
    matcher.free();
}

/// 0: pending, 1: the text may go on, 2: nothing but its end may follow, -1: a token came that is not allowed, or the engine can't go on.
#[no_mangle]
pub extern "C" fn bao_llg_matcher_status(matcher: &Follower) -> i32 {
    matcher.status()
}

/// Asks it to take tokens: it is pending afterwards. -1 where it is pending now.
///
/// # Safety
/// `matcher` came from `bao_llg_new_matcher`, `tokens` has `count` entries.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_advance(matcher: *const Follower, tokens: *const u32, count: usize) -> i32 {
    Arc::increment_strong_count(matcher);
    let matcher = Arc::from_raw(matcher);
    if matcher.advance(slice::from_raw_parts(tokens, count)) { 0 } else { -1 }
}

/// Does on this thread what the matcher is to do, if no other has begun it.
///
/// # Safety
/// `matcher` came from `bao_llg_new_matcher`.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_work_now(matcher: *const Follower) {
    Arc::increment_strong_count(matcher);
    follow::work_now(&Arc::from_raw(matcher));
}

/// Blocks until none of the matchers is pending, at most so many microseconds.
///
/// # Safety
/// `matchers` has `count` matchers.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_wait(matchers: *const *const Follower, count: usize, timeout_us: u32) {
    let followers: Vec<&Follower> = slice::from_raw_parts(matchers, count).iter().map(|each| &**each).collect();
    follow::wait(&followers, Duration::from_micros(timeout_us as u64));
}

/// Masks of several matchers, one after another, `words` words each: bit i % 32 of word i / 32 is set where token i may come next. At the end of
/// a grammar only EOS may. Returns the number of matchers done: less than `count` where one is pending or can't go on.
///
/// # Safety
/// `matchers` has `count` matchers, `dest` room for `count * words` words.
#[no_mangle]
pub unsafe extern "C" fn bao_llg_copy_masks(
    matchers: *const *const Follower,
    count: usize,
    dest: *mut u32,
    words: usize,
) -> i32 {
    for (i, matcher) in slice::from_raw_parts(matchers, count).iter().enumerate() {
        let row = slice::from_raw_parts_mut(dest.add(i * words), words);
        if !(**matcher).copy_mask(row) {
            return i as i32;
        }
    }
    count as i32
}

/// Grammars and matchers of this process that have not been freed yet.
#[no_mangle]
pub extern "C" fn bao_llg_num_live() -> i32 {
    LIVE.load(Ordering::Relaxed)
}
