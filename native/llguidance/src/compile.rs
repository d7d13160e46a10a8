use crate::vocabulary::Vocabulary;
use llguidance::api::TopLevelGrammar;
use llguidance::Matcher;
use std::collections::{HashMap, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

/// Grammars kept for whoever asks for them again.
const CACHE_SIZE: usize = 256;
/// Compiles at once; the others queue.
const MAX_THREADS: usize = 4;
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

pub struct Grammar(Mutex<State>);

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
    threads: usize,
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
        let grammar = Arc::new(Grammar(Mutex::new(State::Pending)));
        compiler.evict();
        compiler.cache.insert(key, (grammar.clone(), now));
        compiler.queue.push_back(Job { vocabulary, kind: kind.to_string(), data: data.to_string(), grammar: grammar.clone() });
        compiler.ensure_thread();
        grammar
    })
}

impl Compiler {
    /// Drops what was not used for longest. Who holds such a grammar keeps it.
    fn evict(&mut self) {
        if self.cache.len() < CACHE_SIZE {
            return;
        }
        let oldest = self.cache.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.cache.remove(&key);
        }
    }

    fn ensure_thread(&mut self) {
        if self.threads == MAX_THREADS {
            return;
        }
        let spawned = std::thread::Builder::new().name("grammars".to_string()).stack_size(STACK_BYTES).spawn(work);
        match spawned {
            Ok(_) => self.threads += 1,
            // Those that run take the queue; with none, nobody will.
            Err(_) if self.threads > 0 => {}
            Err(error) => {
                for job in self.queue.drain(..) {
                    *job.grammar.0.lock().unwrap() = State::Failed(format!("no thread to compile the grammar: {error}"));
                }
            }
        }
    }
}

/// Takes jobs until there are none. A job whose asker is gone (only the cache holds its grammar) is done all the same: it may come again.
fn work() {
    loop {
        let job = with_compiler(|compiler| {
            let job = compiler.queue.pop_front();
            if job.is_none() {
                compiler.threads -= 1;
            }
            job
        });
        let Some(job) = job else { return };
        let state = compile(&job);
        *job.grammar.0.lock().unwrap() = state;
    }
}

fn compile(job: &Job) -> State {
    let compiled = catch_unwind(AssertUnwindSafe(|| {
        let grammar = TopLevelGrammar::from_tagged_str(&job.kind, &job.data)?;
        let mut matcher = Matcher::new(job.vocabulary.factory.create_parser(grammar));
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
