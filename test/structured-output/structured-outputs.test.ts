import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { createGrammarBackend, type GrammarBackendName } from '../../src/structured-output/create-backend.ts';
import type { GrammarBackend } from '../../src/structured-output/grammar.ts';
import type { Constraint } from '../../src/structured-output/grammar-spec.ts';
import { StructuredOutputs } from '../../src/structured-output/structured-outputs.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const DEMO = join(import.meta.dir, '../../models/demo');
const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
const options = { disableAnyWhitespace: false, disableAdditionalProperties: false, whitespacePattern: null };

/** The engine that a constraint ends up with. @param missing an engine that can't be had */
async function chosen(constraint: Constraint, backend: string, strict = false, missing?: GrammarBackendName) {
  const args = new EngineArgs({ model: DEMO, structuredOutputsConfig: { backend } });
  const config = await args.createEngineConfig();
  const opened: GrammarBackend[] = [];
  const structured = new StructuredOutputs(config, tokenizer, (name, given) => {
    if (name === missing) throw new Error(`the library of ${name} is not there`);
    const created = createGrammarBackend(name, given);
    opened.push(created);
    return created;
  });
  try {
    return (await structured.resolve({ constraint, strict, options }))!.kind;
  } finally {
    for (const each of opened) each.close?.();
  }
}

const UNIQUE: Constraint = { kind: 'json', schema: { type: 'array', items: { type: 'integer' }, uniqueItems: true } };
const PLAIN: Constraint = { kind: 'json', schema: { type: 'array', items: { type: 'integer' } } };
const EBNF: Constraint = { kind: 'ebnf', ebnf: 'root ::= "a"' };
const LARK: Constraint = { kind: 'grammar', lark: 'start: "a"' };

describe('the engine of a grammar', () => {
  test('auto: llguidance for all that it knows, XGrammar for EBNF', async () => {
    expect(await chosen(PLAIN, 'auto')).toBe('json_schema');
    expect(await chosen(UNIQUE, 'auto')).toBe('json_schema');
    expect(await chosen(LARK, 'auto')).toBe('lark');
    expect(await chosen(EBNF, 'auto')).toBe('ebnf');
    expect(chosen(UNIQUE, 'auto', true)).rejects.toThrow('uniqueItems');
  });

  test('auto without the library of llguidance: XGrammar, but for what it can not do', async () => {
    expect(await chosen(PLAIN, 'auto', true, 'guidance')).toBe('xgrammar_json');
    expect(await chosen({ kind: 'regex', pattern: 'a+' }, 'auto', false, 'guidance')).toBe('xgrammar_tag');
    expect(chosen(UNIQUE, 'auto', true, 'guidance')).rejects.toThrow('XGrammar can not keep to "uniqueItems"');
    expect(chosen(LARK, 'auto', false, 'guidance')).rejects.toThrow('the library of guidance is not there');
  });

  test('one that the operator has chosen, and no other', async () => {
    expect(await chosen(PLAIN, 'xgrammar')).toBe('xgrammar_json');
    expect(chosen(LARK, 'xgrammar')).rejects.toThrow('Lark needs llguidance');
    expect(chosen(EBNF, 'guidance')).rejects.toThrow('EBNF needs XGrammar');
  });
});
