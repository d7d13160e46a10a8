import { describe, expect, test } from 'bun:test';
import { CHAT, COMPLETIONS, messages, testServer } from './http.ts';

/** The last token decides: after the prompt 300 is likely and leads to doubt, 301 less so and leads to certainty. */
const NEXT: Record<number, [id: number, p: number][]> = {
  300: [
    [302, 0.5],
    [303, 0.5],
  ],
  301: [
    [304, 0.99],
    [302, 0.01],
  ],
};

function server(table = NEXT) {
  return testServer({
    script: ({ promptTokenIds, params }) => {
      const next = table[promptTokenIds.at(-1)!] ?? [
        [300, 0.6],
        [301, 0.4],
      ];
      const entries = next.map(([tokenId, p], i) => ({
        tokenId,
        logprob: Math.log(p),
        rank: i + 1,
        decodedToken: 't',
      }));
      expect(params).toMatchObject({ maxTokens: 1, temperature: 0 });
      return { tokenIds: [next[0]![0]], logprobs: [[entries[0]!, ...entries]] };
    },
  });
}

const BEAM = { use_beam_search: true, max_tokens: 2, return_token_ids: true };

describe('use_beam_search', () => {
  test('answers with the n most probable continuations, also of several prompts', async () => {
    const { postJson } = await server();
    const prompt = [[1], [2]];
    const { body } = await postJson(COMPLETIONS, { ...BEAM, prompt, n: 2, temperature: 0, logprobs: 1 });
    expect(body.choices.map((choice: { token_ids: number[] }) => choice.token_ids)).toEqual([
      ...[
        [301, 304],
        [300, 302],
      ],
      ...[
        [301, 304],
        [300, 302],
      ],
    ]);
    expect(body.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3]);
    expect(body.choices[0].logprobs.token_logprobs[0]).toBeCloseTo(Math.log(0.4), 6);
    const chat = await postJson(CHAT, { ...BEAM, messages, n: 2 });
    expect(chat.body.choices[0].token_ids).toEqual([301, 304]);
  });

  test('a width of one is greedy', async () => {
    const { postJson } = await server();
    expect((await postJson(CHAT, { ...BEAM, messages })).body.choices[0].token_ids).toEqual([300, 302]);
  });

  test('length_penalty is the exponent of the length by which answers are ranked', async () => {
    const eos = (await testServer()).engine.config.model.eosTokenIds[0]!;
    // At once EOS is likelier than any longer answer; the longer ones win where length counts for them.
    const { postJson } = await server({
      1: [
        [300, 0.6],
        [eos, 0.4],
      ],
      300: [
        [302, 0.5],
        [303, 0.5],
      ],
    });
    const best = async (lengthPenalty: number) => {
      const request = { ...BEAM, prompt: [1], n: 2, length_penalty: lengthPenalty };
      return (await postJson(COMPLETIONS, request)).body.choices[0].token_ids;
    };
    expect(await best(0)).toEqual([eos]);
    expect(await best(2)).toEqual([300, 302]);
  });

  test.each<[field: string, fields: Record<string, unknown>]>([
    ['stream', { stream: true }],
    ['stop', { stop: ['x'] }],
    ['min_tokens', { min_tokens: 1 }],
    ['logit_bias', { logit_bias: { 300: 1 } }],
    ['presence_penalty', { presence_penalty: 1 }],
    ['repetition_penalty', { repetition_penalty: 1.1 }],
    ['allowed_token_ids', { allowed_token_ids: [300] }],
    ['prompt_logprobs', { prompt_logprobs: 1 }],
    ['logprobs', { n: 11 }],
  ])('is refused beside %s', async (field, fields) => {
    const { postJson } = await server();
    const { status, body } = await postJson(COMPLETIONS, { ...BEAM, prompt: 'x', ...fields });
    expect(status).toBe(400);
    expect(body.error.param).toBe(field);
  });
});
