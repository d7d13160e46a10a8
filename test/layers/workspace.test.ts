import { describe, expect, test } from 'bun:test';
import { activationKind } from '../../src/layers/mlp.ts';
import { Workspace } from '../../src/layers/workspace.ts';
import { ReferenceDevice } from '../models/reference-device.ts';

describe('workspace', () => {
  test('buffers of one phase are apart, of different phases together, persistent ones alone', () => {
    const device = new ReferenceDevice();
    const workspace = new Workspace(device);
    const hidden = workspace.persistent('hidden', 1000);
    const qkv = workspace.scratch('attention', 'qkv', 300);
    const attended = workspace.scratch('attention', 'attended', 100);
    const gateUp = workspace.scratch('mlp', 'gate_up', 700);
    workspace.allocate();
    expect(qkv.ptr).toBe(gateUp.ptr);
    expect(qkv.ptr).toBeGreaterThanOrEqual(hidden.ptr + 1000);
    expect(attended.ptr).toBeGreaterThanOrEqual(qkv.ptr + 300);
    // 1000 is rounded up to 1024, 300 + 100 to 512 + 256, 700 to 768.
    expect(device.memoryReport()).toEqual({ workspace: 1024 + 768 });
  });

  test('a name that is reserved again is the same buffer, at the larger size', () => {
    const device = new ReferenceDevice();
    const workspace = new Workspace(device);
    const first = workspace.scratch('mlp', 'gate_up', 256);
    expect(workspace.scratch('mlp', 'gate_up', 512)).toBe(first);
    expect(workspace.scratch('mlp', 'gate_up', 128)).toBe(first);
    workspace.allocate();
    expect(device.memoryReport()).toEqual({ workspace: 512 });
  });

  test('nothing is reserved after allocation', () => {
    const workspace = new Workspace(new ReferenceDevice());
    workspace.persistent('hidden', 8);
    workspace.allocate();
    expect(() => workspace.scratch('mlp', 'gate_up', 8)).toThrow('"gate_up" was reserved after');
  });
});

test('an unknown activation is named with the known ones', () => {
  expect(() => activationKind('relu2')).toThrow(/hidden_act is "relu2"; known activations: silu, .*gelu/);
});
