import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '../../src/cli/version.ts';
import { baoUrl, ServerProcess } from '../server-process.ts';
import { HttpSession } from './http-session.ts';
import type { Peer } from './peer.ts';

const MODEL_NAME = 'model';

export const bao: Peer = {
  name: 'bao',
  version: async () => VERSION,
  async start({ model, dummyWeights, threads, maxModelLen, maxBatchSize }) {
    const server = ServerProcess.bao([
      model,
      ...(dummyWeights ? ['--load-format', 'dummy'] : []),
      ...(existsSync(join(model, 'tokenizer.json')) ? [] : ['--skip-tokenizer-init']),
      ...['--served-model-name', MODEL_NAME],
      ...['--cpu-threads', String(threads), '--max-num-seqs', String(maxBatchSize)],
      ...['--max-model-len', String(maxModelLen), '--no-enable-prefix-caching', '--disable-uvicorn-access-log'],
    ]);
    return new HttpSession(server, await baoUrl(server), MODEL_NAME);
  },
};
