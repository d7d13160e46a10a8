import type { Device, DevicePtr } from '../device/device.ts';

/** Stages of a forward pass whose scratch memory is never needed at the same time. */
export type WorkspacePhase = 'attention' | 'mlp' | 'logits';

/** A scratch buffer. Its address is known once the workspace is allocated. */
export interface WorkspaceBuffer {
  ptr: DevicePtr;
}

interface Reservation extends WorkspaceBuffer {
  bytes: number;
}

/** Cache line and vector width of every device here. */
const ALIGNMENT = 256;

/**
 * Scratch memory of a model: layers reserve buffers by name while they are built, then one allocation serves them all.
 * Layers that reserve the same name share the buffer, at the largest size asked for; buffers of different phases share memory.
 * `persistent` buffers live through the whole forward pass.
 */
export class Workspace {
  private readonly persistentBuffers = new Map<string, Reservation>();
  private readonly phases = new Map<WorkspacePhase, Map<string, Reservation>>();
  private allocated = false;

  constructor(private readonly device: Device) {}

  persistent(name: string, bytes: number): WorkspaceBuffer {
    return this.reserve(this.persistentBuffers, name, bytes);
  }

  scratch(phase: WorkspacePhase, name: string, bytes: number): WorkspaceBuffer {
    const buffers = this.phases.get(phase) ?? new Map<string, Reservation>();
    this.phases.set(phase, buffers);
    return this.reserve(buffers, name, bytes);
  }

  /** Allocates what was reserved and fills in the addresses; nothing can be reserved afterwards. */
  allocate(): void {
    const persistentBytes = totalBytes(this.persistentBuffers);
    let sharedBytes = 0;
    for (const buffers of this.phases.values()) sharedBytes = Math.max(sharedBytes, totalBytes(buffers));
    const base = this.device.alloc(persistentBytes + sharedBytes, 'workspace');
    place(this.persistentBuffers, base);
    for (const buffers of this.phases.values()) place(buffers, base + persistentBytes);
    this.allocated = true;
  }

  private reserve(buffers: Map<string, Reservation>, name: string, bytes: number): WorkspaceBuffer {
    if (this.allocated) throw new Error(`Workspace buffer "${name}" was reserved after the workspace was allocated.`);
    const known = buffers.get(name);
    if (known !== undefined) {
      known.bytes = Math.max(known.bytes, bytes);
      return known;
    }
    const reservation = { ptr: 0, bytes };
    buffers.set(name, reservation);
    return reservation;
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function totalBytes(buffers: ReadonlyMap<string, Reservation>): number {
  let total = 0;
  for (const { bytes } of buffers.values()) total += aligned(bytes);
  return total;
}

function place(buffers: ReadonlyMap<string, Reservation>, base: DevicePtr): void {
  let ptr = base;
  for (const buffer of buffers.values()) {
    buffer.ptr = ptr;
    ptr += aligned(buffer.bytes);
  }
}
