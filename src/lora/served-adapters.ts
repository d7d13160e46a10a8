import type { BaoConfig } from '../config/bao-config.ts';
import { ValidationError } from '../errors/validation-error.ts';
import { logger } from '../logging/logger.ts';
import { findAdapterFolder } from './adapter-folder.ts';
import { AdapterTable, type ServedAdapter } from './adapter-table.ts';
import type { LoRARequest } from './lora-request.ts';

const log = logger('lora');

/** A name or folder that has no adapter: HTTP 404. */
export class AdapterNotFoundError extends ValidationError {
  override name = 'AdapterNotFoundError';
}

/** Where adapters are loaded: an EngineClient. */
interface AdapterEngine {
  addLora(request: LoRARequest): Promise<void>;
  removeLora(id: number): Promise<void>;
}

export interface LoadOptions {
  name: string;
  path: string;
  /** An adapter of that name is replaced; what runs with it goes on with the old one. */
  loadInplace?: boolean;
}

/** The adapters that clients may ask for by name, and their coming and going while the engine runs: vLLM's OpenAIServingModels. */
export class ServedAdapters {
  constructor(
    private readonly engine: AdapterEngine,
    private readonly config: BaoConfig,
    readonly table = AdapterTable.fromConfig(config),
  ) {}

  list(): ServedAdapter[] {
    return this.table.list();
  }

  get(name: string): ServedAdapter | null {
    return this.table.get(name);
  }

  /**
   * Settles when every core has the adapter and every front end knows its name.
   *
   * @throws AdapterNotFoundError, ValidationError for what else the caller got wrong; EngineDeadError
   */
  async load({ name, path, loadInplace = false }: LoadOptions): Promise<ServedAdapter> {
    this.check(name, path);
    return this.table.exclusively(async () => {
      const before = this.table.get(name);
      if (before !== null && !loadInplace) {
        throw new ValidationError(
          `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`,
          'lora_name',
          name,
        );
      }
      return this.replace(before, name, path);
    });
  }

  /** The adapter of that name, loaded first where there is none or one of another path. Throws as `load`. */
  async ensure({ name, path }: Omit<LoadOptions, 'loadInplace'>): Promise<ServedAdapter> {
    this.check(name, path);
    return this.table.exclusively(async () => {
      const known = this.table.get(name);
      return known?.root === path ? known : this.replace(known, name, path);
    });
  }

  /** New requests can't name the adapter any more; those that have it end with it. Throws AdapterNotFoundError, ValidationError. */
  async unload(name: string): Promise<void> {
    if (name === '') throw new ValidationError("'lora_name' needs to be provided to unload a LoRA adapter.");
    await this.table.exclusively(async () => {
      const adapter = this.table.get(name);
      if (adapter === null) {
        throw new AdapterNotFoundError(`The lora adapter '${name}' cannot be found.`, 'lora_name', name);
      }
      this.table.delete(name);
      await this.engine.removeLora(adapter.id);
      log.info('Removed a LoRA adapter', { name });
    });
  }

  private check(name: string, path: string): void {
    const { model, lora } = this.config;
    if (!lora.enableLora) throw new ValidationError('LoRA is not enabled (--enable-lora).');
    if (name === '' || path === '') throw new ValidationError("Both 'lora_name' and 'lora_path' must be provided.");
    if (model.servedModelName.includes(name)) {
      throw new ValidationError(`The name '${name}' is that of the base model.`, 'lora_name', name);
    }
  }

  private async replace(before: ServedAdapter | null, name: string, path: string): Promise<ServedAdapter> {
    const adapter = this.newAdapter(name, path, before);
    await this.engine.addLora(requestOf(adapter));
    this.table.set(adapter);
    if (before !== null) await this.engine.removeLora(before.id);
    log.info('Loaded a LoRA adapter', { name, path });
    return adapter;
  }

  private newAdapter(name: string, root: string, before: ServedAdapter | null): ServedAdapter {
    const path = findAdapterFolder(root);
    if (path === null) {
      throw new AdapterNotFoundError(`Loading lora ${name} failed: No adapter found for ${root}`, 'lora_path', root);
    }
    const parent = before?.parent ?? this.config.model.servedModelName[0]!;
    const adapter = { id: this.table.newId(), name, path, root, parent };
    if (!this.table.hasRoomFor(adapter)) {
      throw new ValidationError('There are too many adapters: unload some first.', 'lora_name', name);
    }
    return adapter;
  }
}

/** What the engine is told of a served adapter. */
export function requestOf({ id, name, path }: LoRARequest): LoRARequest {
  return { id, name, path };
}
