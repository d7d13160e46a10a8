import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { resolveParsers } from '../../src/parsers/resolve-parsers.ts';
import { loadPlugins } from '../../src/plugins/plugins.ts';
import { parserOptions, whole } from './harness.ts';

const DEMO = join(import.meta.dir, '../../models/demo');
const PLUGIN = join(import.meta.dir, '../fixtures/parser-plugin.ts');

test('parsers of a plugin file are found by their names', async () => {
  const config = await new EngineArgs({
    model: DEMO,
    toolParserPlugin: PLUGIN,
    toolCallParser: 'shout',
    reasoningParserPlugin: PLUGIN,
    reasoningParser: 'aside',
  }).createEngineConfig();
  expect(() => resolveParsers(config.frontend)).toThrow('there is no parser shout');
  await loadPlugins(config.plugins.plugin);
  const { tools, reasoning } = resolveParsers(config.frontend);
  expect(whole('(hm)!now', parserOptions({ tools, reasoning }))).toEqual({
    reasoning: 'hm',
    content: '',
    calls: [['now', '{}']],
  });
});

test('--enable-auto-tool-choice alone is refused', async () => {
  const args = new EngineArgs({ model: DEMO, enableAutoToolChoice: true });
  expect(args.createEngineConfig()).rejects.toThrow('--enable-auto-tool-choice needs --tool-call-parser');
});
