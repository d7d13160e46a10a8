import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import { createCpuDevice } from '../../src/device/cpu-device.ts';
import { availableThreads, physicalCores, systemMemory } from '../../src/device/cpu-resources.ts';
import { coresToBind, createDevice, shareOfThreads } from '../../src/device/create-device.ts';
import { finish, floats, openDevice, readFloats } from './harness.ts';

describe('the CPU device', () => {
  test('allocates zeroed memory, reports it by purpose and frees it', () => {
    const device = openDevice();
    const weights = device.alloc(1000, 'weights');
    device.alloc(500, 'weights');
    const cache = device.staging(64 << 20, 'kv cache');
    expect(new Float64Array(cache.host).every((value) => value === 0)).toBe(true);
    expect(device.memoryReport()).toEqual({ weights: 1500, 'kv cache': 64 << 20 });
    device.free(weights);
    cache.free();
    expect(device.memoryReport()).toEqual({ weights: 500 });
    expect(() => device.free(weights)).toThrow('not allocated here');
    device.close();
  });

  test('says what memory was for when there is none', () => {
    const device = openDevice();
    expect(() => device.alloc(2 ** 50, 'the KV cache')).toThrow('(1048576.00 GiB) for the KV cache');
    expect(() => device.alloc(0, 'nothing')).toThrow("can't allocate 0 bytes");
    device.close();
  });

  test('backs memory when it is touched, not before', () => {
    const device = openDevice();
    const before = process.memoryUsage.rss();
    device.alloc(8 * 2 ** 30, 'kv cache');
    expect(process.memoryUsage.rss() - before).toBeLessThan(256 << 20);
    device.close();
  });

  test('buffers of any size are zeroed, do not overlap, and give their memory back one by one', () => {
    const device = openDevice();
    const sizes = [1, 4096, 65_000, 65_536, 1_000_000, 4_194_303, 4_194_304];
    const zeros = Buffer.alloc(sizes.at(-1)!);
    for (let round = 0; round < 2; round++) {
      const staged = Array.from({ length: 28 }, (_, i) => device.staging(sizes[i % sizes.length]!, 'test'));
      const contents = staged.map(({ host }) => Buffer.from(host));
      for (const bytes of contents) expect(bytes.equals(zeros.subarray(0, bytes.length))).toBe(true);
      contents.forEach((bytes, i) => {
        bytes.fill(i + 1);
      });
      const touched = process.memoryUsage.rss();
      const isEven = (_: unknown, i: number) => i % 2 === 0;
      for (const each of staged.filter(isEven)) each.free();
      contents.forEach((bytes, i) => {
        if (!isEven(bytes, i)) expect([bytes.at(0), bytes.at(-1)]).toEqual([i + 1, i + 1]);
      });
      const [last, ...rest] = staged.filter((each, i) => !isEven(each, i));
      for (const each of rest) each.free();
      // Of 38 MB, of which one small buffer is in use still.
      expect(touched - process.memoryUsage.rss()).toBeGreaterThan(30e6);
      last!.free();
    }
    device.close();
  });

  test('staging beyond what the host can view is refused with its purpose, and gives its memory back', () => {
    const device = openDevice();
    expect(() => device.staging(2 ** 36, 'a dream')).toThrow(
      "can't allocate 68719476736 bytes (64.00 GiB) for a dream",
    );
    expect(device.memoryReport()).toEqual({});
    device.close();
  });

  test('uploads vectors, and staging is the same bytes on both sides', () => {
    const device = openDevice();
    expect([...readFloats(device.uploadVector(Float32Array.of(1, 2, 3), 'bias'), 3)]).toEqual([1, 2, 3]);
    const [from, to] = [device.staging(8, 'a'), device.staging(8, 'b')];
    new Float32Array(from.host).set([5, 6]);
    from.upload();
    device.ops.copy_bytes(from.ptr, to.ptr, 8);
    to.download();
    finish(device);
    expect([...new Float32Array(to.host)]).toEqual([5, 6]);
    device.close();
  });

  test('refuses weights and caches that no kernel reads, in words', () => {
    const device = openDevice();
    const source = (rows: number, cols: number) => ({ ptr: 1, dtype: 'float32' as const, rows, cols, ld: cols });
    expect(() => device.packLinear([source(2, 3), source(2, 4)], 'float32', 'qkv')).toThrow(
      "qkv: can't pack [2, 3], [2, 4] as float32",
    );
    expect(() => device.packLinear([], 'float32', 'qkv')).toThrow("qkv: can't pack nothing");
    expect(() => device.kvBlockBytes(2, 512, 16, 'bfloat16')).toThrow('head sizes go up to 256');
    expect(() => device.kvBlockBytes(2, 64, 16, 'int8')).toThrow('as int8');
    expect(device.kvBlockBytes(2, 64, 16, 'bfloat16')).toBe(2 * 2 * 64 * 16 * 2);
    expect(device.kvBlockBytes(2, 64, 16, 'fp8_e4m3')).toBe(2 * 2 * 64 * 16);
    device.close();
  });

  test('describes itself and keeps to the instruction set it was given', () => {
    const device = openDevice(1, 'portable');
    expect(device.isa).toBe('portable');
    expect(device.description).toBe('CPU, 1 thread, portable kernels');
    device.close();
    device.close();
    expect(() => openDevice(0)).toThrow('0 threads');
  });

  test('checks arguments in debug mode before they reach native code', async () => {
    const device = createCpuDevice({
      libraryPath: await ensureCpuLibrary({ sets: 'runnable' }),
      threads: 1,
      debug: true,
    });
    const x = floats(device, new Float32Array(8)).ptr;
    const { ops } = device;
    ops.rms_norm(x, x, x, 1, 8, 1e-6);
    ops.linear(x, 1, x, 0, 0, x + 4, 1, 1, 1, 1);
    expect(() => ops.rms_norm(12_345, x, x, 1, 8, 1e-6)).toThrow('rms_norm: x is 12345, not an address of this device');
    expect(() => ops.rms_norm(0, x, x, 1, 8, 1e-6)).toThrow('x is 0, a null pointer');
    expect(() => ops.rms_norm(x, x, x, 1.5, 8, 1e-6)).toThrow('rows is 1.5, not an integer');
    expect(() => ops.rms_norm(x, x, x, 1, 2 ** 31, 1e-6)).toThrow('n is 2147483648, beyond 32 bits');
    expect(() => ops.rms_norm(x, x, x, 1, 8, Number.NaN)).toThrow('eps is NaN, not a number');
    expect(() => ops.rms_norm(x, x, x, 1, 8)).toThrow('5 arguments, not 6');
    device.close();
  });

  test('is opened by the name that --device has for it', async () => {
    const device = await createDevice('cpu', { threads: 3, coreIndex: 0, numCores: 2 });
    expect(device.description).toStartWith('CPU, 2 threads');
    device.close();
    await expect(createDevice('tpu')).rejects.toThrow('unknown device "tpu"; known are: cpu, auto');
  });

  for (const threads of [1, 2, 3]) {
    test(`replays a step of more commands than its queue holds with the same effect on ${threads} threads`, () => {
      const device = openDevice(threads);
      const n = 3000;
      const [x, sum, one] = [new Float32Array(n), new Float32Array(n), new Float32Array(n).fill(1)].map((values) =>
        floats(device, values),
      );
      // Each command builds on the one before; the last ones are of one chunk, and follow each other.
      const step = () =>
        device.replayable(() => {
          for (let i = 0; i < 1500; i++) device.ops.add(sum!.ptr, one!.ptr, sum!.ptr, n);
          device.ops.copy_bytes(sum!.ptr, x!.ptr, n * 4);
          device.ops.add(x!.ptr, one!.ptr, x!.ptr, 5);
        });
      for (let round = 1; round <= 3; round++) {
        step();
        // Another step in flight, whose list goes while it may still run.
        device.replayable(() => device.ops.add(sum!.ptr, one!.ptr, sum!.ptr, 7));
        if (round === 2) device.forgetReplays();
        finish(device);
        expect(sum!.f32.every((value, i) => value === 1500 * round + (i < 7 ? round : 0))).toBe(true);
        expect(x!.f32[4]).toBe(1500 * round + round);
        expect(x!.f32[5]).toBe(1500 * round + round - 1);
      }
      device.close();
    });
  }

  test('a step with an op that is refused throws each time, and what follows is run', () => {
    const device = openDevice();
    const x = floats(device, [1, 2, 3, 4]);
    const step = () =>
      device.replayable(() => {
        device.ops.add(x.ptr, x.ptr, x.ptr, 4);
        device.ops.add(0, x.ptr, x.ptr, 4);
      });
    for (let i = 0; i < 2; i++) expect(step).toThrow('a pointer is null');
    device.ops.add(x.ptr, x.ptr, x.ptr, 4);
    finish(device);
    expect([...x.f32]).toEqual([8, 16, 24, 32]);
    device.close();
  });
});

test('threads are shared evenly between engine cores, one at least', () => {
  expect([0, 1, 2].map((core) => shareOfThreads(8, core, 3))).toEqual([3, 3, 2]);
  expect([0, 1].map((core) => shareOfThreads(1, core, 2))).toEqual([1, 1]);
});

test('threads are bound where each has a core of its own, and no core is left', () => {
  const cores = [
    [0, 2],
    [1, 3],
  ];
  expect(coresToBind(2, cores)).toEqual(cores);
  for (const numThreads of [1, 3]) expect(coresToBind(numThreads, cores)).toEqual([]);
  expect(coresToBind(2, null)).toEqual([]);
});

describe('resources of the machine', () => {
  const files = (contents: Record<string, string>) => (path: string) => contents[path];
  const status = (list: string) => ({ '/proc/self/status': `Name:\tbun\nCpus_allowed_list:\t${list}\n` });
  const siblings = (cpu: number, list: string) => ({
    [`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`]: `${list}\n`,
  });

  test('threads are the physical cores of the affinity mask', () => {
    expect(availableThreads(files(status('0-3,8')))).toBe(5);
    const smt = { ...siblings(0, '0,2'), ...siblings(1, '1,3'), ...siblings(2, '0,2'), ...siblings(3, '1,3') };
    expect(availableThreads(files({ ...status('0-3'), ...smt }))).toBe(2);
  });

  test('cores are told with the processors of the mask that they have', () => {
    const smt = { ...siblings(0, '0,2'), ...siblings(1, '1,3'), ...siblings(2, '0,2'), ...siblings(3, '1,3') };
    expect(physicalCores(files({ ...status('0-2'), ...smt }))).toEqual([[0, 2], [1]]);
    expect(physicalCores(files({}))).toBeNull();
  });

  test.skipIf((physicalCores()?.length ?? 1) < 2)(
    'bound threads run on their processors, and others are refused',
    () => {
      const run = Bun.spawnSync([process.execPath, join(import.meta.dir, 'run-bound-threads.ts')]);
      expect(run.stderr.toString()).toBe('');
      expect(JSON.parse(run.stdout.toString())).toEqual({
        before: 0,
        bound: 2,
        refused: "thread 0 can't be bound to processors 5000 on this system",
      });
    },
  );

  test('threads keep to a cgroup quota, of the process or of a parent', () => {
    const cgroup = { ...status('0-15'), '/proc/self/cgroup': '0::/kube/pod\n' };
    expect(availableThreads(files({ ...cgroup, '/sys/fs/cgroup/kube/pod/cpu.max': 'max 100000\n' }))).toBe(16);
    expect(availableThreads(files({ ...cgroup, '/sys/fs/cgroup/kube/cpu.max': '250000 100000\n' }))).toBe(3);
    const v1 = { ...status('0-15'), '/proc/self/cgroup': '3:cpu,cpuacct:/job\n' };
    const quota = {
      '/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us': '50000\n',
      '/sys/fs/cgroup/cpu/job/cpu.cfs_period_us': '100000\n',
    };
    expect(availableThreads(files({ ...v1, ...quota }))).toBe(1);
  });

  test('memory is the least of the system and the cgroups, less what is in use', () => {
    const meminfo = { '/proc/meminfo': 'MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n' };
    expect(systemMemory(files(meminfo))).toEqual({ totalBytes: 1_024_000, freeBytes: 614_400 });
    const limited = {
      ...meminfo,
      '/proc/self/cgroup': '0::/pod\n',
      '/sys/fs/cgroup/pod/memory.max': '500000\n',
      '/sys/fs/cgroup/pod/memory.current': '300000\n',
      '/sys/fs/cgroup/pod/memory.stat': 'anon 1\ninactive_file 100000\n',
    };
    expect(systemMemory(files(limited))).toEqual({ totalBytes: 500_000, freeBytes: 300_000 });
  });
});

describe('the build', () => {
  test('is found again by its content', async () => {
    expect(await ensureCpuLibrary()).toBe(await ensureCpuLibrary());
  });
});
