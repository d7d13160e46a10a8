import type { FlagTable } from './flag.ts';

export const modelFlags = {
  model: {
    type: 'string',
    default: 'demo',
    help: 'The model: a folder, a Hugging Face Hub id, or an embedded model (demo, demo-draft). The same as the argument behind `bao serve`.',
  },
  'served-model-name': {
    type: 'list',
    default: [],
    metavar: 'NAME',
    help: 'Names under which clients ask for the model; the first one is in the answers. By default the model as it was given.',
  },
  tokenizer: {
    type: 'string',
    default: null,
    metavar: 'MODEL',
    help: "Folder or Hub id of the tokenizer, where it is not the model's own.",
  },
  'tokenizer-mode': {
    type: 'string',
    choices: ['auto', 'native', 'js'],
    default: 'auto',
    help: "Implementation of the tokenizer: native (the tokenizers library), js (@huggingface/tokenizers), or auto: js, and native for what js can't read.",
  },
  'skip-tokenizer-init': {
    type: 'boolean',
    default: false,
    help: 'Serve without a tokenizer: prompts are token ids, and so are the answers.',
  },
  revision: {
    type: 'string',
    default: null,
    help: 'Branch, tag or commit of the model on the Hub.',
  },
  'tokenizer-revision': {
    type: 'string',
    default: null,
    metavar: 'REVISION',
    help: 'Branch, tag or commit of the tokenizer on the Hub.',
  },
  'hf-token': {
    type: 'string',
    default: null,
    secret: true,
    metavar: 'TOKEN',
    help: 'Access token for the Hub. By default HF_TOKEN of the environment, or the one that `hf auth login` has stored.',
  },
  'trust-remote-code': {
    type: 'boolean',
    default: false,
    help: "Changes nothing: a model's own code is never run. Taken because command lines made for vLLM have it.",
  },
  'hf-overrides': {
    type: 'json',
    default: {},
    help: 'Members of config.json to replace before it is read; objects are merged.',
  },
  dtype: {
    type: 'string',
    choices: ['auto', 'bfloat16', 'float16', 'float32', 'half', 'float'],
    default: 'auto',
    help: 'Type of weights and computation. auto: float16 for float16 checkpoints, bfloat16 for bfloat16 and float32 ones. half is float16, float is float32.',
  },
  quantization: {
    type: 'string',
    default: null,
    aliases: ['-q'],
    metavar: 'int8|int4|fp8|NAME',
    help: 'Quantize the weights of linear layers while they are loaded: to 8 bits (int8), to 4 bits (int4), to 8-bit floats (fp8), or with a method of a plugin. A checkpoint that is quantized already needs none. See docs/quantization.md.',
  },
  runner: {
    type: 'string',
    choices: ['auto', 'generate', 'pooling', 'draft'],
    default: 'auto',
    help: 'What the model is run for: to generate text, or for its hidden states to be pooled (embeddings, scores, classes). auto: as its architecture and files say. See docs/pooling.md.',
  },
  convert: {
    type: 'string',
    choices: ['auto', 'none', 'embed', 'classify'],
    default: 'auto',
    help: 'What a pooled model makes: embeddings, or classes by its classification head. auto: as its architecture says. embed and classify imply --runner pooling.',
  },
  'pooler-config': {
    type: 'json',
    default: {},
    help: "How hidden states are pooled: task, pooling_type (CLS, LAST, MEAN; or seq_pooling_type and tok_pooling_type), use_activation, dimensions, logit_mean, logit_sigma. By default as the model's files say.",
  },
  'max-model-len': {
    type: 'tokens',
    default: null,
    min: -1,
    auto: true,
    help: 'Longest prompt and output together. Takes 32k (32,000) and 32K (32,768); auto or -1 is the longest that the KV cache has room for. By default what config.json says.',
  },
  seed: {
    type: 'int',
    default: 0,
    min: 0,
    help: 'Seed from which requests without one of their own draw theirs.',
  },
  'enable-sleep-mode': {
    type: 'boolean',
    default: false,
    help: 'Let the engine be put to sleep so deep that weights and KV cache are freed (levels 1 and 2).',
  },
  'max-logprobs': {
    type: 'int',
    default: 20,
    min: -1,
    help: 'Most log probabilities that a request may ask for at a position; -1: the whole vocabulary.',
  },
  'logprobs-mode': {
    type: 'string',
    choices: ['raw_logprobs', 'processed_logprobs', 'raw_logits', 'processed_logits'],
    default: 'raw_logprobs',
    help: "What log probabilities are taken of: the model's own logits (raw) or those after penalties, bias and temperature (processed); or these logits themselves.",
  },
  'generation-config': {
    type: 'string',
    default: 'auto',
    metavar: 'auto|vllm|FOLDER',
    help: "Where default sampling parameters come from: the model's generation_config.json (auto), nowhere (vllm), or the file in another folder.",
  },
  'override-generation-config': {
    type: 'json',
    default: {},
    help: 'Default sampling parameters that go before those of generation_config.json: \'{"temperature": 0.5}\'.',
  },
} as const satisfies FlagTable;
