import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, type CompletionBody, complete, post, startBao, untilWaiting } from './bao-process.ts';

/** What fields of generation mean on a real model, one test a field. */
const PROMPT = 'The capital of France is';
const GREEDY = { prompt: PROMPT, max_tokens: 12, temperature: 0, ignore_eos: true, return_token_ids: true };

interface Logprobs {
  text_offset: number[];
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
}

const PARTS = ['text_offset', 'tokens', 'token_logprobs'] as const;
type Told = { text: string } & Pick<Logprobs, (typeof PARTS)[number]>;

interface Detailed extends CompletionBody {
  choices: (CompletionBody['choices'][number] & {
    logprobs: Logprobs | null;
    prompt_token_ids?: number[];
    prompt_logprobs?: (Record<string, { logprob: number; rank: number }> | null)[];
  })[];
}

describe('fields of generation', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao(['demo', '--generation-config', 'vllm', '--scheduling-policy', 'priority']);
  });
  afterAll(() => server.stop());

  const generate = async (extra: object) => (await complete(server, { ...GREEDY, ...extra })) as Detailed;
  const ask = async (path: string, body: object) => {
    const answer = await post(`${server.url}${path}`, body);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    return answer.body;
  };
  const tokenize = async (prompt: string) =>
    ((await ask('/tokenize', { model: 'demo', prompt })) as { tokens: number[] }).tokens;

  test('n: each answer is that of a request of its own, with the next seed', async () => {
    const sampled = { temperature: 1, seed: 40 };
    const { choices, usage } = await generate({ ...sampled, n: 3 });
    for (const choice of choices) {
      const alone = await generate({ ...sampled, seed: 40 + choice.index });
      expect(choice.token_ids).toEqual(alone.choices[0]!.token_ids!);
    }
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
    expect(usage).toMatchObject({ prompt_tokens: (await tokenize(PROMPT)).length, completion_tokens: 36 });
  });

  test('use_beam_search: the best beam is at least as probable as the greedy answer, and the beams are in order', async () => {
    const sum = ({ logprobs }: Detailed['choices'][number]) =>
      logprobs!.token_logprobs.reduce<number>((total, value) => total + value!, 0);
    const request = { max_tokens: 6, logprobs: 1 };
    const greedy = await generate(request);
    const beams = await generate({ ...request, use_beam_search: true, n: 3, temperature: 1 });
    const sums = beams.choices.map(sum);
    expect(sums).toHaveLength(3);
    expect(sums[0]!).toBeGreaterThanOrEqual(sum(greedy.choices[0]!) - 1e-4);
    expect(sums).toEqual([...sums].sort((a, b) => b - a));
  });

  test('prompt_logprobs: what the model thought of each prompt token, as echo with logprobs tells it', async () => {
    const { choices } = await generate({ prompt_logprobs: 2, echo: true, logprobs: 1, max_tokens: 1 });
    const [choice] = choices;
    const ids = await tokenize(PROMPT);
    expect(choice!.prompt_logprobs).toHaveLength(ids.length);
    expect(choice!.prompt_logprobs![0]).toBeNull();
    ids.slice(1).forEach((id, i) => {
      const position = choice!.prompt_logprobs![i + 1]!;
      expect(position[id]!.logprob).toBeCloseTo(choice!.logprobs!.token_logprobs[i + 1]!, 5);
      expect(Object.values(position).filter(({ rank }) => rank <= 2)).toHaveLength(2);
    });
  });

  test('echo: the prompt in front of the answer', async () => {
    const plain = await generate({});
    // With token ids asked for the prompt is there as those.
    const echo = { echo: true, return_token_ids: false };
    expect((await generate(echo)).choices[0]!.text).toBe(PROMPT + plain.choices[0]!.text);
    const promptOnly = await generate({ ...echo, max_tokens: 0 });
    expect(promptOnly.choices[0]!.text).toBe(PROMPT);
  });

  test('echo: a stream begins every choice with the prompt and its log probabilities, as an answer in one piece', async () => {
    const sampled = {
      prompt: [PROMPT, 'One 🦉'],
      n: 2,
      echo: true,
      logprobs: 1,
      max_tokens: 3,
      temperature: 1,
      seed: 5,
    };
    // What might be a stop string is held back in the text, not among the tokens.
    const request = { ...sampled, stop: ['Paris is', '🦉'] };
    const whole = (await ask('/v1/completions', request)) as Detailed;
    for (const interval of [1, 3]) {
      const streamed = await fetch(`${server.url}/v1/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ ...request, stream: true, stream_interval: interval }),
      });
      const got = whole.choices.map(() => ({ text: '', text_offset: [], tokens: [], token_logprobs: [] }) as Told);
      for (const [, data] of (await streamed.text()).matchAll(/^data: (\{.*)$/gm)) {
        for (const { index, text, logprobs } of (JSON.parse(data!) as Detailed).choices) {
          got[index]!.text += text;
          for (const part of PARTS) (got[index]![part] as unknown[]).push(...(logprobs?.[part] ?? []));
        }
      }
      expect(got).toEqual(
        whole.choices.map(({ text, logprobs }) => {
          const { text_offset, tokens, token_logprobs } = logprobs!;
          return { text, text_offset, tokens, token_logprobs };
        }),
      );
    }
  });

  test('return_token_ids: the ids of prompt and answer', async () => {
    const [choice] = (await generate({})).choices;
    expect(choice!.prompt_token_ids).toEqual(await tokenize(PROMPT));
    // Its EOS tokens, which are ignored here, are no text.
    const { prompt } = (await ask('/detokenize', { model: 'demo', tokens: choice!.token_ids })) as { prompt: string };
    expect(prompt.replaceAll('<|im_end|>', '')).toBe(choice!.text);
  });

  test('truncate_prompt_tokens: the last tokens of the prompt, or the first', async () => {
    const ids = await tokenize(PROMPT);
    for (const [truncation_side, kept] of [
      ['left', ids.slice(-3)],
      ['right', ids.slice(0, 3)],
    ] as const) {
      const cut = await generate({ truncate_prompt_tokens: 3, truncation_side });
      expect(cut.usage.prompt_tokens).toBe(3);
      expect(cut.choices[0]!.token_ids).toEqual((await generate({ prompt: kept })).choices[0]!.token_ids!);
    }
    expect((await generate({ truncate_prompt_tokens: 2 })).choices[0]!.token_ids).toEqual(
      (await generate({ prompt: ids.slice(-2) })).choices[0]!.token_ids!,
    );
  });

  test('logit_bias, allowed_token_ids, bad_words: what is sure to come, and what never does', async () => {
    const first = (await generate({})).choices[0]!.token_ids![0]!;
    expect((await generate({ logit_bias: { [first]: -100 } })).choices[0]!.token_ids).not.toContain(first);
    expect(new Set((await generate({ logit_bias: { 321: 100 } })).choices[0]!.token_ids)).toEqual(new Set([321]));
    const allowed = (await generate({ temperature: 1, seed: 1, allowed_token_ids: [300, 301] })).choices[0]!;
    for (const id of allowed.token_ids!) expect([300, 301]).toContain(id);
    expect((await generate({})).choices[0]!.text).toContain('Paris');
    expect((await generate({ bad_words: ['Paris'] })).choices[0]!.text).not.toContain('Paris');
  });

  test('stop_token_ids, min_tokens, include_stop_str_in_output', async () => {
    const ids = (await generate({})).choices[0]!.token_ids!;
    const stop = ids[4]!;
    const at = ids.indexOf(stop);
    const stopped = (await generate({ stop_token_ids: [stop] })).choices[0]!;
    expect(stopped).toMatchObject({ finish_reason: 'stop', stop_reason: stop, token_ids: ids.slice(0, at + 1) });
    const later = (await generate({ stop_token_ids: [stop], min_tokens: at + 2 })).choices[0]!;
    expect(later.token_ids!.indexOf(stop) === -1 || later.token_ids!.indexOf(stop) > at).toBe(true);
    const { text } = (await generate({})).choices[0]!;
    const word = text.slice(5, 8);
    const upTo = text.slice(0, text.indexOf(word));
    expect((await generate({ stop: word })).choices[0]!.text).toBe(upTo);
    expect((await generate({ stop: word, include_stop_str_in_output: true })).choices[0]!.text).toBe(upTo + word);
  });

  test('continue_final_message: the answer goes on where the message ends', async () => {
    const messages = [
      { role: 'user', content: 'What is the capital of France?' },
      { role: 'assistant', content: 'The capital of France is' },
    ];
    const chat = { messages, max_tokens: 12, temperature: 0, return_token_ids: true };
    const continued = (await ask('/v1/chat/completions', {
      ...{ ...chat, add_generation_prompt: false, continue_final_message: true, echo: true, return_prompt_text: true },
    })) as { prompt_text: string; choices: { message: { content: string } }[] };
    expect(continued.prompt_text).toEndWith('The capital of France is');
    expect(continued.choices[0]!.message.content).toStartWith('The capital of France is Paris');
  });

  test('a penalty changes what is repeated', async () => {
    const loop = { prompt: 'One, two, one, two, one, two,', max_tokens: 40 };
    const variety = async (extra: object) =>
      new Set((await generate({ ...loop, ...extra })).choices[0]!.token_ids).size;
    const plain = await variety({});
    for (const penalty of [{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repetition_penalty: 2 }]) {
      expect(await variety(penalty), JSON.stringify(penalty)).toBeGreaterThan(plain);
    }
  });

  test('skip_special_tokens: the end of the text is part of it, or not', async () => {
    const end = 2041;
    const request = { logit_bias: { [end]: 100 }, max_tokens: 1, ignore_eos: false };
    expect((await generate(request)).choices[0]).toMatchObject({ text: '', finish_reason: 'stop' });
    const request2 = { ...request, ignore_eos: true, skip_special_tokens: false };
    expect((await generate(request2)).choices[0]!.text).toBe('<|im_end|>');
  });
});

describe('fields that need a server of their own', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([
      ...['demo', '--generation-config', 'vllm', '--scheduling-policy', 'priority', '--max-num-seqs', '1'],
      ...['--logprobs-mode', 'processed_logprobs', '--server-dev-mode'],
    ]);
  });
  afterAll(() => server.stop());

  test('priority: of those that wait the lowest number goes first, whoever came first', async () => {
    const order: string[] = [];
    const send = async (name: string, fields: object) => {
      await complete(server, { ...GREEDY, max_tokens: 200, ...fields });
      order.push(name);
    };
    await fetch(`${server.url}/sleep?level=0&mode=keep`, { method: 'POST' });
    const waiting: Promise<void>[] = [];
    for (const [name, fields] of [
      ['late', { priority: 5 }],
      ['plain', {}],
      ['soon', { priority: -5 }],
    ] as const) {
      waiting.push(send(name, fields));
      await untilWaiting(server, waiting.length);
    }
    await fetch(`${server.url}/wake_up`, { method: 'POST' });
    await Promise.all(waiting);
    expect(order).toEqual(['soon', 'plain', 'late']);
  });

  test('logprobs_mode processed_logprobs: of what the token was drawn from', async () => {
    const answer = (await complete(server, {
      ...{ ...GREEDY, temperature: 1, seed: 3, allowed_token_ids: [300, 301], logprobs: 3 },
    })) as Detailed;
    for (const position of answer.choices[0]!.logprobs!.top_logprobs) {
      const probabilities = Object.values(position!)
        .map(Math.exp)
        .filter((value) => value > 0);
      expect(probabilities.length).toBeLessThanOrEqual(2);
      expect(probabilities.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 4);
    }
  });
});
