import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../..');
/** Tests that throw all fields at the server, or read descriptions, say nothing of what a field means. */
const MEANINGLESS = /fuzz|bodies\.test|openapi\.test|api-table/;

/** None of the schemas is of a model that is pooled. */
const OTHER_SCHEMAS = /pooling/;

/** Where tests of a schema's fields are, best first. */
const FILES: Readonly<Record<string, readonly string[]>> = {
  ChatCompletionRequest: ['chat-completions', 'tool-calls', 'beam-search', 'structured-outputs'],
  CompletionRequest: ['completions', 'beam-search', 'structured-outputs'],
  ResponsesRequest: ['responses', 'responses-messages-sdk'],
  AnthropicMessagesRequest: ['server/messages', 'responses-messages-sdk'],
  AnthropicCountTokensRequest: ['server/messages'],
  StructuredOutputsParams: ['structured-output'],
  ChatCompletionToolsParam: ['tool-calls', 'tool-loop'],
  ChatCompletionNamedToolChoiceParam: ['tool-calls', 'tool-loop'],
};

/** Finds the tests that speak of fields and routes. */
export class TestIndex {
  private readonly files: { path: string; text: string }[];

  constructor() {
    this.files = [...new Bun.Glob('test/{server,e2e,entrypoints,sampling}/**/*.test.ts').scanSync(ROOT)]
      .filter((path) => !MEANINGLESS.test(path))
      .sort()
      .map((path) => ({ path, text: withPaths(readFileSync(resolve(ROOT, path), 'utf8')) }));
  }

  /** The test file that has a request with the field, of the schema's own tests where they do; null where none has. */
  ofField(schema: string, field: string): string | null {
    const preferred = [...(FILES[schema] ?? []), 'sampling/', 'openai-sdk', 'reference-examples', 'server/'];
    const rank = (path: string) => {
      const at = preferred.findIndex((part) => path.includes(part));
      return at < 0 ? preferred.length : at;
    };
    const word = new RegExp(`\\b${field}\\b`);
    return (
      this.files
        .filter(({ path, text }) => !OTHER_SCHEMAS.test(path) && word.test(text))
        .sort((a, b) => rank(a.path) - rank(b.path))[0]?.path ?? null
    );
  }

  /** The test file that asks the route; null where none does. */
  ofRoute(path: string): string | null {
    const pattern = path
      .split(/\{\w+\}/)
      .map(RegExp.escape)
      .join('[^\'"`]+');
    const asked = new RegExp(`['"\`}]${pattern}(?![\\w/])`);
    return this.files.find(({ text }) => asked.test(text))?.path ?? null;
  }
}

/** Tests name most paths by the constants of test/server/http.ts. */
function withPaths(text: string): string {
  const constants = readFileSync(resolve(ROOT, 'test/server/http.ts'), 'utf8').matchAll(
    /^export const ([A-Z]+) = '(.*)';$/gm,
  );
  return [...constants].reduce(
    (replaced, [, name, path]) =>
      replaced.replaceAll(`\${${name}}`, path!).replace(new RegExp(`\\b${name}\\b`, 'g'), `'${path}'`),
    text,
  );
}
