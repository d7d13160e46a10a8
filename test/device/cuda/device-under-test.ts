/** The CUDA device of the tests: the emulation, or the GPU of the machine where scripts/gpu-verify runs them. */
export const CUDA_DEVICE = process.env.BAO_TEST_CUDA_DEVICE === 'cuda' ? 'cuda' : 'cuda-emulation';
