import { afterEach, describe, expect, test } from 'bun:test';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectPlainly } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { connect } from 'node:tls';
import { EngineArgs } from '../../../src/config/engine-args.ts';
import type { FlagValues } from '../../../src/config/flags/index.ts';
import { type FetchHandler, type Listener, listen } from '../../../src/server/process/listener.ts';

const FIXTURES = resolve(import.meta.dir, '../../fixtures/tls');
const open: Listener[] = [];
const folders: string[] = [];
afterEach(async () => {
  for (const listener of open.splice(0)) await listener.stop(true);
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

async function listenWith(flags: Partial<FlagValues>, handler: FetchHandler = () => new Response('answer')) {
  const { frontend } = await new EngineArgs({
    model: 'demo',
    host: '127.0.0.1',
    port: 0,
    ...flags,
  }).createEngineConfig();
  const listener = listen(frontend, handler, { reusePort: frontend.enableSslRefresh });
  open.push(listener);
  return listener;
}

/** A folder with the key and certificate of a name, which can be changed. */
function tlsFolder(name: string) {
  const folder = mkdtempSync(join(tmpdir(), 'bao-tls-'));
  folders.push(folder);
  const keyfile = join(folder, 'tls.key');
  const certfile = join(folder, 'tls.crt');
  const use = (key: string, cert = key) => {
    copyFileSync(join(FIXTURES, `${key}.key`), keyfile);
    copyFileSync(join(FIXTURES, `${cert}.crt`), certfile);
  };
  use(name);
  return { keyfile, certfile, use, flags: { sslKeyfile: keyfile, sslCertfile: certfile } };
}

/** The common name of the certificate that a new connection is shown. */
function certificateOf({ port }: Pick<Listener, 'port'>): Promise<string> {
  return new Promise((resolve, reject) => {
    let isSecure = false;
    const socket = connect({ port: port!, host: '127.0.0.1', rejectUnauthorized: false }, () => {
      isSecure = true;
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.end();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (isSecure) return;
      // One that waits to be accepted while a listener takes another's place is reset.
      if (error.code === 'ECONNRESET') resolve(certificateOf({ port }));
      else reject(error);
    });
  });
}

const until = async (condition: () => Promise<boolean>) => {
  while (!(await condition())) await Bun.sleep(50);
};

test.each([
  ['HTTP/1.0', ''],
  ['HTTP/1.0', 'Host: \r\n'],
  ['HTTP/1.1', 'Host: a b\r\n'],
  ['HTTP/1.1', 'Host: [::1\r\n'],
  ['HTTP/1.1', 'Host: x:99999\r\n'],
])('%s with %j for a host: path, query and body are read all the same', async (version, host) => {
  const { port } = await listenWith({}, async (request) => {
    const { pathname, search } = new URL(request.url);
    return new Response(`${pathname} ${search} ${await request.text()}`);
  });
  const heard = await new Promise<string>((resolve, reject) => {
    const socket = connectPlainly(port!, '127.0.0.1', () => {
      socket.write(`POST /v1/models?a=1 ${version}\r\n${host}Connection: close\r\nContent-Length: 4\r\n\r\nbody`);
    });
    let text = '';
    socket.on('data', (data) => {
      text += data;
    });
    socket.on('close', () => resolve(text));
    socket.on('error', reject);
  });
  expect(heard).toStartWith('HTTP/1.1 200 OK');
  expect(heard).toEndWith('/v1/models ?a=1 body');
});

test('a body above --request-body-limit reaches the handler, which has the words to refuse it', async () => {
  const listener = await listenWith({ requestBodyLimit: 1000 });
  const response = await fetch(listener.url, { method: 'POST', body: 'x'.repeat(100_000) });
  expect([response.status, await response.text()]).toEqual([200, 'answer']);
});

describe('--enable-ssl-refresh', () => {
  test('gives new connections the changed certificate, and lets open ones go on', async () => {
    const files = tlsFolder('first');
    const listener = await listenWith({ ...files.flags, enableSslRefresh: true });
    expect(await certificateOf(listener)).toBe('first');
    const kept = connect({ port: listener.port!, host: '127.0.0.1', rejectUnauthorized: false });
    await new Promise((resolve) => kept.once('secureConnect', resolve));
    files.use('second');
    await until(async () => (await certificateOf(listener)) === 'second');
    const answer = new Promise<string>((resolve) => kept.once('data', (data) => resolve(String(data))));
    kept.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    expect(await answer).toContain('200 OK');
  });

  test('keeps the old one while the files do not fit', async () => {
    const files = tlsFolder('first');
    const listener = await listenWith({ ...files.flags, enableSslRefresh: true });
    files.use('second', 'first');
    await Bun.sleep(1200);
    expect(await certificateOf(listener)).toBe('first');
    writeFileSync(files.certfile, 'no certificate');
    await Bun.sleep(1200);
    expect(await certificateOf(listener)).toBe('first');
    files.use('second');
    await until(async () => (await certificateOf(listener)) === 'second');
  });

  test('without it a change has no effect before a restart', async () => {
    const files = tlsFolder('first');
    const listener = await listenWith(files.flags);
    files.use('second');
    await Bun.sleep(1200);
    expect(await certificateOf(listener)).toBe('first');
  });
});

test('a key that is not the certificate’s is the operator’s mistake, told at once', async () => {
  const files = tlsFolder('first');
  files.use('second', 'first');
  await expect(listenWith(files.flags)).rejects.toThrow('is not that of the certificate');
});

test.each([
  ['tls.key', 'holds no private key'],
  ['tls.crt', 'holds no certificate'],
  ['ca.crt', 'holds no certificate'],
])('%s that is no PEM is named', async (name, problem) => {
  const files = tlsFolder('first');
  const sslCaCerts = join(dirname(files.keyfile), 'ca.crt');
  copyFileSync(files.certfile, sslCaCerts);
  const path = join(dirname(files.keyfile), name);
  writeFileSync(path, 'no PEM');
  await expect(listenWith({ ...files.flags, sslCaCerts })).rejects.toThrow(`${path} ${problem} in PEM format`);
});
