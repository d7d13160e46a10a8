import { ValidationError } from '../../errors/validation-error.ts';
import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import {
  type Constraint,
  checkedSchema,
  type FramedJson,
  type JsonOptions,
  type StructuralTag,
} from '../grammar-spec.ts';

/** A constraint as XGrammar takes it. */
export type XGrammarSpec = GrammarSpec & { kind: 'ebnf' | 'xgrammar_json' | 'xgrammar_tag' };

export function isXGrammarSpec(spec: GrammarSpec): spec is XGrammarSpec {
  return spec.kind === 'ebnf' || spec.kind === 'xgrammar_json' || spec.kind === 'xgrammar_tag';
}

/** @throws ValidationError for what only llguidance knows */
export function xgrammarSpec(constraint: Constraint, options: JsonOptions): XGrammarSpec {
  switch (constraint.kind) {
    case 'json':
      return jsonSpec(constraint.schema, options);
    case 'json_object':
      return jsonSpec({ type: 'object' }, options);
    case 'regex':
      return tagSpec({ type: 'regex', pattern: constraint.pattern });
    case 'choice':
      return { kind: 'ebnf', text: `root ::= ${constraint.choices.map(ebnfText).join(' | ')}` };
    case 'ebnf':
      return { kind: 'ebnf', text: constraint.ebnf };
    case 'framed':
      return tagSpec(framedTags(constraint.pieces, constraint.repeats, options));
    case 'structural_tag':
      return tagSpec(triggeredTags(constraint.tags, options));
    case 'grammar':
      throw new ValidationError('Grammar error: a grammar in Lark needs llguidance; XGrammar takes EBNF');
  }
}

function jsonSpec(schema: unknown, options: JsonOptions): XGrammarSpec {
  if (options.whitespacePattern !== null) {
    throw new ValidationError('Grammar error: whitespace_pattern needs llguidance, XGrammar has no such option');
  }
  const text = { schema: checkedSchema(schema, options), any_whitespace: !options.disableAnyWhitespace };
  return { kind: 'xgrammar_json', text: JSON.stringify(text) };
}

function tagSpec(format: object): XGrammarSpec {
  return { kind: 'xgrammar_tag', text: JSON.stringify({ type: 'structural_tag', format }) };
}

function triggeredTags(tags: readonly StructuralTag[], options: JsonOptions): object {
  const triggers = [...new Set(tags.map(({ trigger }) => trigger))];
  return { type: 'triggered_tags', triggers, tags: tags.map((each) => tag(each, options)) };
}

function framedTags(pieces: readonly FramedJson[], repeats: boolean, options: JsonOptions): object {
  const tags = pieces.map((piece) => tag(piece, options));
  if (!repeats) return { type: 'or', elements: tags };
  return { type: 'tags_with_separator', tags, separator: '\n', at_least_one: true };
}

function tag({ begin, schema, end }: FramedJson, options: JsonOptions): object {
  return { type: 'tag', begin, content: { type: 'json_schema', json_schema: checkedSchema(schema, options) }, end };
}

/** A terminal of EBNF. Control characters have no other way to be written. */
function ebnfText(text: string): string {
  const escaped = Array.from(text, (char) => {
    if (char === '"' || char === '\\') return `\\${char}`;
    const code = char.codePointAt(0)!;
    return code < 0x20 || code === 0x7f ? `\\x${code.toString(16).padStart(2, '0')}` : char;
  });
  return `"${escaped.join('')}"`;
}
