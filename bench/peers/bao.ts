import { VERSION } from '../../src/version.ts';
import { baoUrl, ServerProcess } from '../server-process.ts';
import { HttpSession, hasTokenizer, MODEL_NAME, streamsOf } from './http-session.ts';
import type { Peer } from './peer.ts';

export const bao: Peer = {
  name: 'bao',
  version: async () => VERSION,
  async start({ model, dummyWeights, quantization, threads, maxModelLen, maxBatchSize }, signal) {
    const server = ServerProcess.bao([
      model,
      ...(dummyWeights ? ['--load-format', 'dummy'] : []),
      ...(hasTokenizer(model) ? [] : ['--skip-tokenizer-init']),
      ...(quantization === 'none' ? [] : ['--quantization', quantization]),
      ...['--served-model-name', MODEL_NAME],
      ...['--cpu-threads', String(threads), '--max-num-seqs', String(maxBatchSize)],
      ...['--max-model-len', String(maxModelLen), '--no-enable-prefix-caching', '--disable-uvicorn-access-log'],
    ]);
    return HttpSession.open({ server, ready: baoUrl(server), extraBody: streamsOf(model) }, signal);
  },
};
