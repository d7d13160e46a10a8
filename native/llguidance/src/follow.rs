//! Texts that follow a grammar. Taking tokens and making the mask behind them mostly takes microseconds and sometimes much longer, so threads of this
//! library do it; the JavaScript thread asks, does something else, and looks.

use crate::compile::Grammar;
use crate::vocabulary::Vocabulary;
use crate::whitespace::Whitespace;
use llguidance::Matcher;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// At once. All but one of these threads may be at texts that have been slow, so that quick ones find another.
const MAX_THREADS: usize = 4;
const SLOW: Duration = Duration::from_millis(2);
/// A thread that had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 64 << 20;

pub const PENDING: i32 = 0;
/// The text may go on.
pub const OPEN: i32 = 1;
/// Nothing but its end may follow.
pub const COMPLETE: i32 = 2;
/// A token came that is not allowed, or the engine can't go on.
pub const REFUSED: i32 = -1;

pub struct Follower {
    status: AtomicI32,
    /// Its last job took long.
    is_slow: AtomicBool,
    /// Nobody wants to know any more.
    is_freed: AtomicBool,
    /// Held by the thread that works on it; elsewhere only while the status is not PENDING.
    text: Mutex<Text>,
}

struct Text {
    vocabulary: Arc<Vocabulary>,
    grammar: Option<Arc<Grammar>>,
    matcher: Option<Matcher>,
    whitespace: Option<Whitespace>,
    tokens: Vec<u32>,
    mask: Vec<u32>,
}

#[derive(Default)]
struct Queue {
    quick: VecDeque<Arc<Follower>>,
    slow: VecDeque<Arc<Follower>>,
    num_threads: usize,
    num_idle: usize,
    num_at_slow: usize,
}

static QUEUE: Mutex<Option<Queue>> = Mutex::new(None);
static QUEUED: Condvar = Condvar::new();
/// Guards nothing: who waits for DONE looks at statuses under it, and who has set one takes it before notifying.
static LOOKING: Mutex<()> = Mutex::new(());
static DONE: Condvar = Condvar::new();

impl Follower {
    /// At the start of a compiled grammar. `whitespace`: where its JSON is, if its white space is to be bounded.
    pub fn start(grammar: Arc<Grammar>, vocabulary: Arc<Vocabulary>, whitespace: Option<Whitespace>) -> Arc<Self> {
        let text =
            Text { vocabulary, grammar: Some(grammar), matcher: None, whitespace, tokens: Vec::new(), mask: Vec::new() };
        let follower = Arc::new(Self {
            status: AtomicI32::new(PENDING),
            is_slow: AtomicBool::new(false),
            is_freed: AtomicBool::new(false),
            text: Mutex::new(text),
        });
        enqueue(follower.clone());
        follower
    }

    pub fn status(&self) -> i32 {
        self.status.load(Ordering::Acquire)
    }

    /// Takes tokens. False while it is pending.
    pub fn advance(self: &Arc<Self>, tokens: &[u32]) -> bool {
        match self.status() {
            PENDING => false,
            REFUSED => true,
            _ => {
                self.text.lock().unwrap().tokens.extend_from_slice(tokens);
                self.status.store(PENDING, Ordering::Release);
                enqueue(self.clone());
                true
            }
        }
    }

    /// The next token's mask, of one that is neither pending nor refused.
    pub fn copy_mask(&self, dest: &mut [u32]) -> bool {
        if !matches!(self.status(), OPEN | COMPLETE) {
            return false;
        }
        let text = self.text.lock().unwrap();
        let len = text.mask.len().min(dest.len());
        dest[..len].copy_from_slice(&text.mask[..len]);
        dest[len..].fill(0);
        true
    }

    pub fn free(&self) {
        self.is_freed.store(true, Ordering::Relaxed);
    }

    fn work(&self) {
        let started = Instant::now();
        let status = if self.is_freed.load(Ordering::Relaxed) {
            REFUSED
        } else {
            let mut text = self.text.lock().unwrap();
            catch_unwind(AssertUnwindSafe(|| text.proceed())).unwrap_or(REFUSED)
        };
        self.is_slow.store(started.elapsed() > SLOW, Ordering::Relaxed);
        self.status.store(status, Ordering::Release);
        drop(LOOKING.lock().unwrap());
        DONE.notify_all();
    }
}

impl Text {
    fn proceed(&mut self) -> i32 {
        if let Some(grammar) = self.grammar.take() {
            self.matcher = grammar.matcher();
        }
        let Some(matcher) = &mut self.matcher else { return REFUSED };
        let tokens = std::mem::take(&mut self.tokens);
        if !tokens.is_empty() && matcher.consume_tokens(&tokens).is_err() {
            return REFUSED;
        }
        let Ok(mask) = matcher.compute_mask_or_eos() else { return REFUSED };
        self.mask.clear();
        self.mask.extend_from_slice(mask.as_slice());
        if matcher.is_stopped() {
            return COMPLETE;
        }
        if let Some(whitespace) = &mut self.whitespace {
            let Ok((trie, space)) = self.vocabulary.tokens() else { return REFUSED };
            for id in tokens {
                whitespace.take(trie.token(id));
            }
            whitespace.restrict(&mut self.mask, space);
        }
        OPEN
    }
}

/// Does on the calling thread what no other has begun yet. For who has nothing else to do: waking two threads takes longer than most masks.
pub fn work_now(follower: &Arc<Follower>) {
    let is_queued = |queue: &mut VecDeque<Arc<Follower>>| {
        let at = queue.iter().position(|each| Arc::ptr_eq(each, follower));
        at.and_then(|at| queue.remove(at)).is_some()
    };
    let is_taken = match QUEUE.lock().unwrap().as_mut() {
        Some(queue) => is_queued(&mut queue.quick) || is_queued(&mut queue.slow),
        None => false,
    };
    if is_taken {
        follower.work();
    }
}

/// Blocks until none of them is pending, at most so long.
pub fn wait(followers: &[&Follower], timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut looking = LOOKING.lock().unwrap();
    while followers.iter().any(|follower| follower.status() == PENDING) {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
        looking = DONE.wait_timeout(looking, left).unwrap().0;
    }
}

fn enqueue(follower: Arc<Follower>) {
    let mut queue = QUEUE.lock().unwrap();
    let queue = queue.get_or_insert_with(Queue::default);
    if follower.is_slow.load(Ordering::Relaxed) {
        queue.slow.push_back(follower);
    } else {
        queue.quick.push_back(follower);
    }
    if queue.num_idle > 0 {
        QUEUED.notify_one();
    }
    if queue.quick.len() + queue.slow.len() <= queue.num_idle || queue.num_threads >= MAX_THREADS {
        return;
    }
    let spawned = std::thread::Builder::new().name("masks".to_string()).stack_size(STACK_BYTES).spawn(run);
    if spawned.is_ok() {
        queue.num_threads += 1;
    } else if queue.num_threads == 0 {
        for follower in queue.quick.drain(..).chain(queue.slow.drain(..)) {
            follower.status.store(REFUSED, Ordering::Release);
        }
    }
}

fn run() {
    let mut guard = QUEUE.lock().unwrap();
    loop {
        let queue = guard.as_mut().unwrap();
        let quick = queue.quick.pop_front();
        let is_slow = quick.is_none();
        let may_be_slow = queue.num_at_slow + 1 < MAX_THREADS;
        let next = quick.or_else(|| if may_be_slow { queue.slow.pop_front() } else { None });
        if let Some(follower) = next {
            queue.num_at_slow += is_slow as usize;
            drop(guard);
            follower.work();
            drop(follower);
            guard = QUEUE.lock().unwrap();
            guard.as_mut().unwrap().num_at_slow -= is_slow as usize;
            continue;
        }
        queue.num_idle += 1;
        let (woken, timeout) = QUEUED.wait_timeout(guard, IDLE).unwrap();
        guard = woken;
        let queue = guard.as_mut().unwrap();
        queue.num_idle -= 1;
        if timeout.timed_out() && queue.quick.is_empty() && queue.slow.is_empty() {
            queue.num_threads -= 1;
            return;
        }
    }
}
