/**
 * `bun scripts/gpu/check-demo.ts DEVICE FILE`: serves the demo model on the device and on the CPU, asks both the same, and writes how many answers are equal. Ends
 * with 1 where the device's server does not answer, is not healthy, or does not know the capital of France.
 */
import { baoUrl, ServerProcess } from '../../bench/server-process.ts';

const QUESTIONS = [
  'What is the capital of France?',
  'What is the opposite of hot?',
  'What day comes after Monday?',
  'Tell me a story about an owl named Carol.',
];
const MAX_TOKENS = 32;

async function ask(url: string, question: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({
      model: 'demo',
      messages: [{ role: 'user', content: question }],
      temperature: 0,
      max_tokens: MAX_TOKENS,
    }),
  });
  if (!response.ok) throw new Error(`${question} was answered ${response.status}: ${await response.text()}`);
  const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
  return choices[0]!.message.content;
}

/** Answers given one by one, and the same questions asked all at once. */
async function answersOf(device: string): Promise<{ alone: string[]; together: string[]; readyMs: number }> {
  const server = ServerProcess.bao(['demo', '--device', device, '--max-model-len', '256', '--max-num-seqs', '8']);
  try {
    const url = await baoUrl(server);
    const readyMs = performance.now() - server.started;
    const alone: string[] = [];
    for (const question of QUESTIONS) alone.push(await ask(url, question));
    const together = await Promise.all(QUESTIONS.map((question) => ask(url, question)));
    const health = await fetch(`${url}/health`);
    if (health.status !== 200) throw new Error(`/health answers ${health.status}: ${await health.text()}`);
    return { alone, together, readyMs };
  } finally {
    await server.stop();
  }
}

const [device, path] = process.argv.slice(2);
if (device === undefined || path === undefined) throw new Error('usage: check-demo.ts DEVICE FILE');
const expected = await answersOf('cpu');
const actual = await answersOf(device);
const equal = (a: readonly string[], b: readonly string[]) => a.filter((answer, i) => answer === b[i]).length;
const figures = {
  questions: QUESTIONS.length,
  equal_to_cpu: equal(actual.alone, expected.alone),
  equal_together: equal(actual.together, actual.alone),
  ready_ms: actual.readyMs,
  answers: actual.alone,
};
console.log(JSON.stringify(figures, null, 2));
await Bun.write(path, JSON.stringify(figures));
process.exit(actual.alone[0]!.includes('Paris') ? 0 : 1);
