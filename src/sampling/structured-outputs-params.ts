export const GRAMMAR_KINDS = ['json_schema', 'regex', 'lark', 'ebnf', 'xgrammar_json', 'xgrammar_tag'] as const;

/** A constraint as an engine takes it. */
export interface GrammarSpec {
  /**
   * llguidance's: a JSON schema with its options as a member, a regular expression, a grammar in its dialect of Lark. XGrammar's: EBNF, a JSON schema as
   * `{"schema", "any_whitespace"}`, a structural tag.
   */
  kind: (typeof GRAMMAR_KINDS)[number];
  text: string;
  /**
   * Where white space is bounded, which llguidance's grammars say nothing of: behind each of these texts a JSON value begins; without any, the whole text is
   * one. Absent: nowhere.
   */
  jsonBegins?: string[];
}

/** What a request's output must match: part of its SamplingParams. */
export interface StructuredOutputsParams extends GrammarSpec {
  /** Output tokens behind which the constraint begins (the end of the model's thinking); null: from the first token. */
  startsAfter: number[] | null;
}
