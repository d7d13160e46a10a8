import fc from 'fast-check';
import { collectEvents, type OutputEvent, type ParsedMessage } from '../../src/parsers/output-events.ts';
import { OutputParser, type OutputParserOptions, parseMessage } from '../../src/parsers/output-parser.ts';

let numIds = 0;

export function parserOptions(given: Partial<OutputParserOptions>): OutputParserOptions {
  return {
    reasoning: null,
    dropsReasoning: false,
    promptText: '<|im_start|>assistant\n',
    templateKwargs: {},
    tools: null,
    functions: [],
    parallelToolCalls: true,
    newToolCallId: () => `call-${numIds++}`,
    ...given,
  };
}

/** Ids are random; the rest of a message is not. */
export interface PlainMessage {
  reasoning: string;
  content: string;
  calls: [name: string, args: string][];
}

export function plain(message: ParsedMessage): PlainMessage {
  const { reasoning, content, toolCalls } = message;
  return { reasoning, content, calls: toolCalls.map((call) => [call.name, call.arguments]) };
}

export function streamEvents(pieces: Iterable<string>, options: OutputParserOptions): OutputEvent[] {
  const parser = new OutputParser(options);
  const events: OutputEvent[] = [];
  for (const piece of pieces) events.push(...parser.push(piece));
  return [...events, ...parser.finish()];
}

/** What a stream of the pieces adds up to. */
export function streamed(pieces: Iterable<string>, options: OutputParserOptions): PlainMessage {
  return plain(collectEvents(streamEvents(pieces, options)));
}

/** The text in one piece, in single UTF-16 units, and cut at random. */
export function* cuttings(text: string): Generator<string[]> {
  yield [text];
  yield text.split('');
  const cuts = fc.array(fc.integer({ min: 0, max: text.length }), { maxLength: 12 });
  for (const points of fc.sample(cuts, { numRuns: 20, seed: 7 })) {
    const sorted = [0, ...points.sort((a, b) => a - b), text.length];
    yield sorted.slice(1).map((end, i) => text.slice(sorted[i], end));
  }
}

export function whole(text: string, options: OutputParserOptions): PlainMessage {
  return plain(parseMessage(text, options));
}
