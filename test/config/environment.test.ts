import { expect, test } from 'bun:test';
import { environmentWarnings } from '../../src/config/environment.ts';

test("a variable of vLLM's that Bao has under another name is told", async () => {
  expect(await environmentWarnings({ VLLM_API_KEY: 'sk-1', VLLM_LOGGING_LEVEL: 'DEBUG', PATH: '/bin' })).toEqual([
    'VLLM_API_KEY is set, which Bao does not read: its own variable is BAO_API_KEY.',
  ]);
  expect(await environmentWarnings({ VLLM_API_KEY: 'sk-1', BAO_API_KEY: 'sk-1' })).toEqual([]);
});

test('a misspelt variable is told, others of that prefix are not', async () => {
  expect(await environmentWarnings({ BAO_API_KYE: 'sk-1', BAO_CACHE_DIR: '/tmp', BAO_PORT: '80' })).toEqual([
    'BAO_API_KYE is set, which Bao does not read: did you mean BAO_API_KEY?',
  ]);
  expect(await environmentWarnings({ BAO_API_KYE: '', BAO_ENGINE_STEP_TIMEOUT_S: '5' })).toEqual([]);
});
