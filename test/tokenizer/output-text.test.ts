import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { OutputText, type OutputTextParams } from '../../src/tokenizer/output-text.ts';
import { StopChecker, type StopCheckerOptions } from '../../src/tokenizer/stop-checker.ts';
import { DEMO } from './tokenizer-folder.ts';

const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
const encode = (text: string) => [...tokenizer.encode(text, { addSpecialTokens: false })];

const stopOptions = (changes: Partial<StopCheckerOptions>): StopCheckerOptions => ({
  stop: [],
  includeStopStrInOutput: false,
  minTokens: 0,
  ...changes,
});

/** What is let through piece by piece, until a stop string. */
function check(pieces: string[], options: StopCheckerOptions): { texts: string[]; stop: string | null } {
  const checker = new StopChecker(options);
  const texts: string[] = [];
  for (const [index, piece] of pieces.entries()) {
    const { text, stop } = checker.append(piece, index + 1);
    texts.push(text);
    if (stop !== null) return { texts, stop };
  }
  return { texts: [...texts, checker.flush()], stop: null };
}

describe('StopChecker', () => {
  test.each<
    [what: string, pieces: string[], options: Partial<StopCheckerOptions>, texts: string[], stop: string | null]
  >([
    ['no stop strings', ['a', 'b'], {}, ['a', 'b', ''], null],
    ['within a piece', ['abXcd'], { stop: ['X'] }, ['ab'], 'X'],
    ['at the start', ['X'], { stop: ['X'] }, [''], 'X'],
    ['across pieces', ['ab S', 'TO', 'P cd'], { stop: ['STOP'] }, ['ab ', '', ''], 'STOP'],
    ['included', ['ab S', 'TO', 'P cd'], { stop: ['STOP'], includeStopStrInOutput: true }, ['ab S', 'TO', 'P'], 'STOP'],
    [
      'what turns out not to be one is let go',
      ['ab S', 'TO', 'X', 'y'],
      { stop: ['STOP'] },
      ['ab ', '', 'STOX', 'y', ''],
      null,
    ],
    ['held back to the end', ['ab ST'], { stop: ['STOP'] }, ['ab ', 'ST'], null],
    ['a beginning within a beginning', ['aab', 'aabc'], { stop: ['aabc'] }, ['', 'aab'], 'aabc'],
    ['the one listed first, in one piece', ['a12'], { stop: ['2', '1'] }, ['a1'], '2'],
    ['the one that comes first, in two', ['a1', '2'], { stop: ['2', '1'] }, ['a'], '1'],
    ['empty pieces', ['', 'a', '', 'X'], { stop: ['X'] }, ['', 'a', '', ''], 'X'],
    ['not within min_tokens', ['X', 'X', 'aX'], { stop: ['X'], minTokens: 2 }, ['X', 'X', 'a'], 'X'],
    ['begun within min_tokens, ended after', ['aS', 'T'], { stop: ['ST'], minTokens: 1 }, ['a', ''], 'ST'],
    ['ended within min_tokens', ['ST', 'a'], { stop: ['ST'], minTokens: 1 }, ['ST', 'a', ''], null],
    ['an emoji', ['a😀', 'b'], { stop: ['😀b'] }, ['a', ''], '😀b'],
  ])('%s', (_what, pieces, options, texts, stop) => {
    expect(check(pieces, stopOptions(options))).toEqual({ texts, stop });
  });

  test('any text in any pieces: cut at the stop string that ends first', () => {
    const text = fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 40 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 }), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(text, stops, fc.boolean(), (characters, stop, includeStopStrInOutput) => {
        const { texts, stop: found } = check(characters, stopOptions({ stop, includeStopStrInOutput }));
        const whole = characters.join('');
        const ends = stop.map((each) =>
          whole.includes(each) ? whole.indexOf(each) + each.length : Number.POSITIVE_INFINITY,
        );
        const end = Math.min(...ends);
        if (end === Number.POSITIVE_INFINITY) {
          expect({ text: texts.join(''), found }).toEqual({ text: whole, found: null });
          return;
        }
        const expected = stop[ends.indexOf(end)]!;
        const cut = includeStopStrInOutput ? end : end - expected.length;
        expect({ text: texts.join(''), found }).toEqual({ text: whole.slice(0, cut), found: expected });
      }),
      { numRuns: 2000 },
    );
  });
});

describe('OutputText', () => {
  const params = (changes: Partial<OutputTextParams> = {}): OutputTextParams => ({
    stop: [],
    includeStopStrInOutput: false,
    minTokens: 0,
    skipSpecialTokens: true,
    spacesBetweenSpecialTokens: true,
    ...changes,
  });
  const EOS = 2041;

  test('as recorded of vLLM: stop "4" of "1, 2, 3, 4", in and out', () => {
    const ids = encode('1, 2, 3, 4, 5');
    const cut = new OutputText(tokenizer, params({ stop: ['4'] }), []).push(ids);
    expect(cut).toEqual({ text: '1, 2, 3, ', stop: '4', numTokens: encode('1, 2, 3, 4').length });
    const whole = new OutputText(tokenizer, params({ stop: ['4'], includeStopStrInOutput: true }), []).push(ids);
    expect(whole.text).toBe('1, 2, 3, 4');
  });

  test('how many tokens a step brings changes nothing', () => {
    const ids = encode('Once upon a time there was a 😀 and a STOP sign STOP.');
    const run = (sizes: number[], stop: string[], minTokens: number) => {
      const output = new OutputText(tokenizer, params({ stop, minTokens }), []);
      let text = '';
      for (let at = 0, step = 0; at < ids.length; step++) {
        const pushed = ids.slice(at, at + sizes[step % sizes.length]!);
        const result = output.push(pushed);
        text += result.text;
        if (result.stop !== null) return { text, stop: result.stop, numTokens: at + result.numTokens };
        at += pushed.length;
      }
      return { text: text + output.finish(), stop: null, numTokens: ids.length };
    };
    const stops = fc.subarray(['STOP', 'sign', '😀', 'a time', 'zzz', '.'], { minLength: 1 });
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 8 }),
        stops,
        fc.nat(20),
        (sizes, stop, minTokens) => {
          expect(run(sizes, stop, minTokens)).toEqual(run([1], stop, minTokens));
        },
      ),
    );
  });

  test('the token that ended it is text only with include_stop_str_in_output', () => {
    const ids = [...encode('Hi'), 300];
    expect(new OutputText(tokenizer, params(), []).push(ids, true)).toEqual({
      text: 'Hi',
      stop: null,
      numTokens: ids.length,
    });
    const included = params({ includeStopStrInOutput: true, skipSpecialTokens: false });
    expect(new OutputText(tokenizer, included, []).push([...encode('Hi'), EOS], true).text).toBe('Hi<|im_end|>');
  });

  test('held back text comes at the end, half a character never', () => {
    const output = new OutputText(tokenizer, params({ stop: ['time!'] }), []);
    const half = encode('😀').slice(0, 1);
    expect(output.push([...encode('a ti'), ...half]).text).toBe('a ');
    expect(output.finish()).toBe('ti');
  });
});
