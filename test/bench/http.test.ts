import { describe, expect, test } from 'bun:test';
import { HttpPool } from '../../bench/load/http-connection.ts';
import { HttpResponseParser } from '../../bench/load/http-response-parser.ts';
import { SseParser } from '../../bench/load/sse-parser.ts';

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n';

function read(response: string, pieceLength: number): { body: string; done: boolean; parser: HttpResponseParser } {
  let body = '';
  const parser = new HttpResponseParser((bytes) => {
    body += Buffer.from(bytes).toString();
  });
  const bytes = Buffer.from(response);
  let done = false;
  for (let at = 0; at < bytes.length; at += pieceLength) done = parser.push(bytes.subarray(at, at + pieceLength));
  return { body, done, parser };
}

describe('HTTP responses', () => {
  test('are the same however they are cut', () => {
    for (let length = 1; length <= CHUNKED.length; length++) {
      const { body, done, parser } = read(CHUNKED, length);
      expect({ body, done, status: parser.status }).toEqual({ body: 'hello, world', done: true, status: 200 });
    }
  });

  test('end by their length', () => {
    const { body, done, parser } = read(
      'HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\nConnection: close\r\n\r\nabc',
      4,
    );
    expect([body, done, parser.status, parser.closes]).toEqual(['abc', true, 404, true]);
  });

  test('without a length end with the connection', () => {
    const { body, done, parser } = read('HTTP/1.1 200 OK\r\n\r\nabc', 100);
    expect([body, done, parser.endsWithConnection]).toEqual(['abc', false, true]);
  });

  test('that are none are errors', () => {
    expect(() => read('SSH-2.0-OpenSSH\r\n\r\n', 100)).toThrow(/does not speak HTTP/);
    expect(() => read('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', 100)).toThrow(/no size/);
  });
});

test('events are the same however they are cut', () => {
  const stream = Buffer.from('data: {"text":"ä"}\n\n: comment\n\ndata:[DONE]\n\n');
  for (let length = 1; length <= stream.length; length++) {
    const events: string[] = [];
    const parser = new SseParser((data) => events.push(data));
    for (let at = 0; at < stream.length; at += length) parser.push(stream.subarray(at, at + length));
    expect(events).toEqual(['{"text":"ä"}', '[DONE]']);
  }
});

describe('connections', () => {
  /** A server that answers the first request of each connection with `first` and ends the connection at the second one, with `second`; counts both. */
  async function against(first: string, second: string, check: (pool: HttpPool, counts: number[]) => Promise<void>) {
    const counts = [0, 0];
    const server = Bun.listen<{ requests: number }>({
      ...{ hostname: '127.0.0.1', port: 0 },
      socket: {
        open: (socket) => {
          socket.data = { requests: 0 };
        },
        data: (socket) => {
          counts[socket.data.requests > 0 ? 1 : 0]! += 1;
          if (socket.data.requests++ === 0 && first !== '') socket.write(first);
          else socket.end(second);
        },
      },
    });
    const pool = new HttpPool(new URL(`http://127.0.0.1:${server.port}`));
    try {
      await check(pool, counts);
    } finally {
      pool.close();
      server.stop(true);
    }
  }

  const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

  test('that the server closed in between are replaced', () =>
    against(ANSWER, '', async (pool, counts) => {
      for (let i = 0; i < 3; i++) {
        let body = '';
        const onBody = (bytes: Uint8Array) => {
          body += Buffer.from(bytes).toString();
        };
        expect(await pool.post('/', {}, '{}', onBody)).toEqual({ status: 200 });
        expect(body).toBe('ok');
      }
      expect(counts).toEqual([3, 2]);
    }));

  test('that end within an answer are errors, and so are new ones without any', async () => {
    await against(ANSWER, ANSWER.slice(0, -1), async (pool, counts) => {
      await pool.post('/', {}, '{}', () => {});
      await expect(pool.post('/', {}, '{}', () => {})).rejects.toThrow('before its answer was complete');
      expect(counts).toEqual([1, 1]);
    });
    await against('', '', async (pool, counts) => {
      await expect(pool.post('/', {}, '{}', () => {})).rejects.toThrow('before its answer was complete');
      expect(counts).toEqual([1, 0]);
    });
  });
});
