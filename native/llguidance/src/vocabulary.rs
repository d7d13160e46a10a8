use anyhow::{ensure, Result};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::earley::SlicedBiasComputer;
use llguidance::ParserFactory;
use std::sync::{Arc, Mutex};

/// Tokens as bytes, with what llguidance precomputes for them.
pub struct Vocabulary {
    pub name: String,
    pub factory: ParserFactory,
}

/// A process has one or two.
static VOCABULARIES: Mutex<Vec<Arc<Vocabulary>>> = Mutex::new(Vec::new());

pub fn find(name: &str) -> Option<Arc<Vocabulary>> {
    VOCABULARIES.lock().unwrap().iter().find(|each| each.name == name).cloned()
}

pub fn add(name: &str, lens: &[u32], bytes: &[u8], eos: &[u32]) -> Result<()> {
    ensure!(!eos.is_empty() && eos.iter().all(|id| (*id as usize) < lens.len()));
    let mut tokens = Vec::with_capacity(lens.len());
    let mut rest = bytes;
    for len in lens {
        let (token, after) = rest.split_at(*len as usize);
        tokens.push(token.to_vec());
        rest = after;
    }
    let trie = TokTrie::from(&TokRxInfo::new(lens.len() as u32, eos[0]), &tokens).with_eos_tokens(eos);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &SlicedBiasComputer::general_slices())?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    let mut all = VOCABULARIES.lock().unwrap();
    if !all.iter().any(|each| each.name == name) {
        all.push(Arc::new(Vocabulary { name: name.to_string(), factory }));
    }
    Ok(())
}
