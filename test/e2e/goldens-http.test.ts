import { describe, expect, test } from 'bun:test';
import { complete, post, startBao } from './bao-process.ts';

interface Golden {
  prompts: { ids: number[]; logprobs: (number | null)[]; greedy: [id: number, margin: number][] }[];
}

/** The reference results over HTTP: a model without a tokenizer, prompts and answers as token ids. */
describe('--skip-tokenizer-init', () => {
  test.each(['qwen3', 'gpt_oss'])('prompt log probabilities and greedy tokens of the golden %s', async (family) => {
    const folder = `test/goldens/${family}`;
    const golden = (await Bun.file(`${folder}/golden.json`).json()) as Golden;
    const server = await startBao([
      folder,
      '--skip-tokenizer-init',
      '--dtype',
      'float32',
      '--served-model-name',
      'm',
      '--max-num-batched-tokens',
      '64',
    ]);
    for (const prompt of golden.prompts) {
      const answer = await complete(server, {
        model: 'm',
        prompt: prompt.ids,
        max_tokens: prompt.greedy.length,
        temperature: 0,
        ignore_eos: true,
        prompt_logprobs: 0,
        return_token_ids: true,
      });
      const choice = answer.choices[0] as unknown as {
        token_ids: number[];
        prompt_logprobs: (Record<string, { logprob: number }> | null)[];
      };
      const errors = prompt.ids
        .slice(1)
        .map((id, i) => Math.abs(choice.prompt_logprobs[i + 1]![id]!.logprob - prompt.logprobs[i + 1]!));
      expect(errors.reduce((sum, error) => sum + error, 0) / errors.length).toBeLessThan(1e-3);
      expect(choice.token_ids).toEqual(prompt.greedy.map(([id]) => id));
    }
    const refused = await post(`${server.url}/v1/chat/completions`, {
      model: 'm',
      messages: [{ role: 'user', content: 'Hi' }],
    });
    expect(refused.status).toBe(400);
    expect(JSON.stringify(refused.body)).toContain('--skip-tokenizer-init');
    await server.stop();
  });
});
