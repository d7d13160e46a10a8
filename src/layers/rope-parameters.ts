/** Rotary embedding as config.json describes it, of transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`), in one form. */
export interface RopeParameters {
  ropeType: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longrope';
  theta: number;
  /** Share of head_dim that is rotated. */
  partialRotaryFactor: number;
  factor: number;
  originalMaxPositionEmbeddings: number | null;
  lowFreqFactor: number;
  highFreqFactor: number;
  betaFast: number;
  betaSlow: number;
  attentionFactor: number | null;
  mscale: number | null;
  mscaleAllDim: number | null;
  truncate: boolean;
  shortFactor: number[] | null;
  longFactor: number[] | null;
}
