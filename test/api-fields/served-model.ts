import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../..');
const DEMO = join(ROOT, 'models/demo');
/** What begins a prompt where special tokens are asked for. */
const BOS = '<|endoftext|>';
/** Token 2046, with a space in front, as the vocabulary writes it. */
const SPACED = 'Ġ<tool_response>';

/** A server on which each field of the API has an effect that an answer shows. */
export function serverFlags(): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'bao-api-fields-'));
  writeTokenizer(folder);
  const template = join(folder, 'template.jinja');
  writeFileSync(template, chatTemplate());
  return [
    'demo',
    ...['--tokenizer', folder, '--chat-template', template, '--trust-request-chat-template'],
    ...['--generation-config', 'vllm', '--logprobs-mode', 'processed_logprobs', '--max-logprobs', '-1'],
    // One after another, so that priorities tell.
    ...['--scheduling-policy', 'priority', '--max-num-seqs', '1', '--max-model-len', '768'],
    ...[
      '--enable-auto-tool-choice',
      '--exclude-tools-when-tool-choice-none',
      '--tool-call-parser',
      'hermes',
      '--reasoning-parser',
      '<think>...</think>',
    ],
    ...['--enable-lora', '--lora-modules', 'pirate=demo-pirate', '--allow-runtime-lora-updating'],
    ...[
      '--server-dev-mode',
      '--enable-sleep-mode',
      '--enable-tokenizer-info-endpoint',
      '--enable-prompt-tokens-details',
    ],
    ...['--enable-server-load-tracking', '--plugin', join(ROOT, 'test/fixtures/no-repeat-ngram-plugin.ts')],
  ];
}

/** The demo's tokenizer with a token that begins a text. */
function writeTokenizer(folder: string): void {
  const tokenizer = JSON.parse(readFileSync(join(DEMO, 'tokenizer.json'), 'utf8')) as {
    added_tokens: { id: number; content: string }[];
    post_processor: unknown;
    decoder: unknown;
  };
  const { id } = tokenizer.added_tokens.find(({ content }) => content === BOS)!;
  tokenizer.post_processor = {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: BOS, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { [BOS]: { id: BOS, ids: [id], tokens: [BOS] } },
  };
  // One that shows whether there are spaces between special tokens.
  Object.assign(tokenizer.added_tokens.find(({ content }) => content === '<tool_response>')!, {
    content: SPACED,
    special: true,
  });
  tokenizer.decoder = { type: 'Sequence', decoders: [tokenizer.decoder, { type: 'Fuse' }] };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  writeFileSync(join(folder, 'tokenizer_config.json'), readFileSync(join(DEMO, 'tokenizer_config.json')));
}

/** The demo's template, which also shows what else a request gives it. */
function chatTemplate(): string {
  const { chat_template: template } = JSON.parse(readFileSync(join(DEMO, 'tokenizer_config.json'), 'utf8')) as {
    chat_template: string;
  };
  const variables = ['reasoning_effort', 'enable_thinking', 'topic'];
  const shown = variables.map((name) => `{%- if ${name} is defined %}{{- '[${name} ' ~ ${name} ~ ']' }}{%- endif %}`);
  const documents = "{%- for document in documents %}{{- '[' ~ document.text ~ ']' }}{%- endfor %}";
  return [...shown, `{%- if documents %}${documents}{%- endif %}`, template].join('\n');
}
