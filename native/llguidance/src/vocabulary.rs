use crate::whitespace::SpaceTokens;
use anyhow::{anyhow, ensure, Result};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::ParserFactory;
use std::sync::{Arc, Mutex, OnceLock};

/// Tokens as bytes, with what llguidance precomputes for them.
pub struct Vocabulary {
    pub name: String,
    tokens: Mutex<Vec<Vec<u8>>>,
    eos: Vec<u32>,
    factory: OnceLock<Result<ParserFactory, String>>,
    space: OnceLock<SpaceTokens>,
}

/// A process has one or two.
static VOCABULARIES: Mutex<Vec<Arc<Vocabulary>>> = Mutex::new(Vec::new());

pub fn find(name: &str) -> Option<Arc<Vocabulary>> {
    VOCABULARIES.lock().unwrap().iter().find(|each| each.name == name).cloned()
}

/// Notes the tokens. What is made of them waits for the first grammar, since it takes a while and this is a JavaScript thread.
pub fn add(name: &str, lens: &[u32], bytes: &[u8], eos: &[u32]) -> Result<()> {
    ensure!(!eos.is_empty() && eos.iter().all(|id| (*id as usize) < lens.len()));
    let mut tokens = Vec::with_capacity(lens.len());
    let mut rest = bytes;
    for len in lens {
        let (token, after) = rest.split_at(*len as usize);
        tokens.push(token.to_vec());
        rest = after;
    }
    let mut all = VOCABULARIES.lock().unwrap();
    if !all.iter().any(|each| each.name == name) {
        all.push(Arc::new(Vocabulary {
            name: name.to_string(),
            tokens: Mutex::new(tokens),
            eos: eos.to_vec(),
            factory: OnceLock::new(),
            space: OnceLock::new(),
        }));
    }
    Ok(())
}

impl Vocabulary {
    /// For threads that compile: the first one makes it, others wait for it.
    pub fn factory(&self) -> Result<&ParserFactory> {
        let made = self.factory.get_or_init(|| {
            let tokens = std::mem::take(&mut *self.tokens.lock().unwrap());
            make_factory(&tokens, &self.eos).map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// What the tokens are, and which of them are white space.
    pub fn tokens(&self) -> Result<(&TokTrie, &SpaceTokens)> {
        let trie = self.factory()?.tok_env().tok_trie();
        Ok((trie, self.space.get_or_init(|| SpaceTokens::of(trie))))
    }
}

fn make_factory(tokens: &[Vec<u8>], eos: &[u32]) -> Result<ParserFactory> {
    let trie = TokTrie::from(&TokRxInfo::new(tokens.len() as u32, eos[0]), tokens).with_eos_tokens(eos);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &SlicedBiasComputer::general_slices())?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    Ok(factory)
}
