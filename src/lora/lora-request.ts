/** An adapter that a request runs with. */
export interface LoRARequest {
  /** Of this loading of the adapter: another one, of the same name or folder, has another. Keys and values of different ids are never shared. */
  id: number;
  /** What clients call it. */
  name: string;
  /** Folder with adapter_config.json and adapter_model.safetensors. */
  path: string;
}
