use crate::vocabulary::Vocabulary;
use llguidance::api::TopLevelGrammar;
use llguidance::Matcher;
use std::collections::{HashMap, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Grammars kept for whoever asks for them again.
const CACHE_SIZE: usize = 256;
/// Compiles at once; the others queue.
const MAX_THREADS: usize = 4;
/// llguidance can't be told to give a compile up. One that takes longer than this no longer counts, so that others get their turn …
const SLOW: Duration = Duration::from_millis(500);
/// … up to this many threads in all.
const MAX_THREADS_WITH_SLOW: usize = 16;
/// Grammars nest, and so do the functions that read them.
const STACK_BYTES: usize = 256 << 20;

#[derive(Clone, Copy)]
pub enum Status {
    Pending,
    Ready,
    Failed,
}

enum State {
    Pending,
    Ready { matcher: Box<Matcher>, warnings: String },
    Failed(String),
}

/// With the vocabulary that it is for.
pub struct Grammar(Mutex<State>, pub Arc<Vocabulary>);

impl Grammar {
    pub fn status(&self) -> Status {
        match *self.0.lock().unwrap() {
            State::Pending => Status::Pending,
            State::Ready { .. } => Status::Ready,
            State::Failed(_) => Status::Failed,
        }
    }

    pub fn message(&self) -> String {
        match &*self.0.lock().unwrap() {
            State::Pending => String::new(),
            State::Ready { warnings, .. } => warnings.clone(),
            State::Failed(message) => message.clone(),
        }
    }

    pub fn matcher(&self) -> Option<Matcher> {
        match &*self.0.lock().unwrap() {
            State::Ready { matcher, .. } => Some(matcher.deep_clone()),
            _ => None,
        }
    }
}

type Key = (String, String, String);

struct Job {
    vocabulary: Arc<Vocabulary>,
    kind: String,
    data: String,
    grammar: Arc<Grammar>,
}

#[derive(Default)]
struct Compiler {
    /// By vocabulary, kind and text, with the time of the last use.
    cache: HashMap<Key, (Arc<Grammar>, u64)>,
    uses: u64,
    queue: VecDeque<Job>,
    /// One for each thread: when it took the job that it is at.
    threads: HashMap<u64, Thread>,
    num_spawned: u64,
}

struct Thread {
    since: Instant,
    /// 0 until the thread runs.
    os_id: i32,
    is_slow: bool,
}

static COMPILER: Mutex<Option<Compiler>> = Mutex::new(None);

fn with_compiler<T>(f: impl FnOnce(&mut Compiler) -> T) -> T {
    f(COMPILER.lock().unwrap().get_or_insert_with(Compiler::default))
}

pub fn start(vocabulary: Arc<Vocabulary>, kind: &str, data: &str) -> Arc<Grammar> {
    with_compiler(|compiler| {
        compiler.uses += 1;
        let now = compiler.uses;
        let key = (vocabulary.name.clone(), kind.to_string(), data.to_string());
        if let Some((grammar, used)) = compiler.cache.get_mut(&key) {
            *used = now;
            return grammar.clone();
        }
        let grammar = Arc::new(Grammar(Mutex::new(State::Pending), vocabulary.clone()));
        compiler.evict();
        compiler.cache.insert(key, (grammar.clone(), now));
        compiler.queue.push_back(Job { vocabulary, kind: kind.to_string(), data: data.to_string(), grammar: grammar.clone() });
        compiler.ensure_thread();
        grammar
    })
}

impl Compiler {
    /// Drops what was not used for longest, of what is compiled. Who holds such a grammar keeps it.
    fn evict(&mut self) {
        if self.cache.len() < CACHE_SIZE {
            return;
        }
        let compiled = self.cache.iter().filter(|(_, (grammar, _))| !matches!(grammar.status(), Status::Pending));
        let oldest = compiled.min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.cache.remove(&key);
        }
    }

    /// Sees to it that what is queued gets a thread, if it may have one.
    fn ensure_thread(&mut self) {
        for thread in self.threads.values_mut() {
            if !thread.is_slow && thread.since.elapsed() > SLOW {
                thread.is_slow = true;
                yield_to_others(thread.os_id);
            }
        }
        let num_quick = self.threads.values().filter(|thread| !thread.is_slow).count();
        if self.queue.is_empty() || num_quick >= MAX_THREADS || self.threads.len() >= MAX_THREADS_WITH_SLOW {
            return;
        }
        let id = self.num_spawned;
        let spawned =
            std::thread::Builder::new().name("grammars".to_string()).stack_size(STACK_BYTES).spawn(move || work(id));
        match spawned {
            Ok(_) => {
                self.num_spawned += 1;
                self.threads.insert(id, Thread { since: Instant::now(), os_id: 0, is_slow: false });
            }
            // Those that run take the queue; with none, nobody will.
            Err(_) if num_quick > 0 => {}
            Err(error) => {
                for job in self.queue.drain(..) {
                    *job.grammar.0.lock().unwrap() = State::Failed(format!("no thread to compile the grammar: {error}"));
                }
            }
        }
    }

    /// The next job that somebody waits for, for a thread that is done with the one before. None: the thread ends.
    fn next_job(&mut self, id: u64) -> Option<Job> {
        let thread = self.threads.get_mut(&id)?;
        // Its low priority stays with it.
        if !thread.is_slow {
            *thread = Thread { since: Instant::now(), os_id: os_thread_id(), is_slow: false };
            while let Some(job) = self.queue.pop_front() {
                if job.is_wanted() {
                    return Some(job);
                }
                self.cache.remove(&job.key());
            }
        }
        self.threads.remove(&id);
        self.ensure_thread();
        None
    }
}

impl Job {
    fn key(&self) -> Key {
        (self.vocabulary.name.clone(), self.kind.clone(), self.data.clone())
    }

    /// Somebody holds the grammar but the job itself and the cache, which holds it until it is evicted.
    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.grammar) > 2
    }
}

/// Called while somebody waits: time alone makes a compile slow and so gives the next one a thread.
pub fn attend() {
    with_compiler(Compiler::ensure_thread);
}

fn work(id: u64) {
    while let Some(job) = with_compiler(|compiler| compiler.next_job(id)) {
        let state = compile(&job);
        *job.grammar.0.lock().unwrap() = state;
    }
}

#[cfg(target_os = "linux")]
mod os {
    extern "C" {
        fn gettid() -> i32;
        fn setpriority(which: i32, who: u32, priority: i32) -> i32;
    }
    const PRIO_PROCESS: i32 = 0;
    const LOWEST: i32 = 19;

    pub fn os_thread_id() -> i32 {
        // SAFETY: no arguments, always succeeds.
        unsafe { gettid() }
    }

    /// On Linux a priority is a thread's.
    pub fn yield_to_others(os_id: i32) {
        if os_id != 0 {
            // SAFETY: plain numbers; a thread that is gone is an error that changes nothing.
            unsafe { setpriority(PRIO_PROCESS, os_id as u32, LOWEST) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    pub fn os_thread_id() -> i32 {
        0
    }
    pub fn yield_to_others(_: i32) {}
}

use os::{os_thread_id, yield_to_others};

fn compile(job: &Job) -> State {
    let compiled = catch_unwind(AssertUnwindSafe(|| {
        let grammar = TopLevelGrammar::from_tagged_str(&job.kind, &job.data)?;
        let mut matcher = Matcher::new(job.vocabulary.factory()?.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(anyhow::anyhow!(error)),
            None => {
                let warnings = matcher.grammar_warnings().join("; ");
                // The first mask builds most of the lexer: here nobody waits for it.
                matcher.compute_mask_or_eos()?;
                Ok(State::Ready { matcher: Box::new(matcher), warnings })
            }
        }
    }));
    match compiled {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => State::Failed(error.to_string()),
        Err(_) => State::Failed("the grammar can't be compiled".to_string()),
    }
}
