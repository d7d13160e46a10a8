// The stand-in libcudart: an executable graph takes over the parameters of another graph of the same shape.
#include "state.h"

using namespace bao::emulation;

namespace {

constexpr int32_t kGraphExecUpdateFailure = 910;
// Values of enum cudaGraphExecUpdateResult.
enum : int32_t { kUpdated = 0, kTopologyChanged = 2, kNodeTypeChanged = 3 };

struct UpdateResult {
  int32_t result;
  const void *error_node, *error_from_node;
};

enum class Node { kKernel, kCopy, kFill };

Node node_of(const Operation& operation) {
  if (operation.name == "cudaMemcpyAsync" || operation.name == "cudaMemcpyPeerAsync") return Node::kCopy;
  return operation.name == "cudaMemsetAsync" ? Node::kFill : Node::kKernel;
}

int32_t difference(const EmulatedGraph& a, const EmulatedGraph& b) {
  if (a.operations.size() != b.operations.size() || a.device != b.device) return kTopologyChanged;
  for (size_t i = 0; i < a.operations.size(); i++) {
    if (node_of(a.operations[i]) != node_of(b.operations[i])) return kNodeTypeChanged;
  }
  return kUpdated;
}

}  // namespace

// Launches that were enqueued before keep what they had.
EXPORT int32_t cudaGraphExecUpdate(EmulatedGraph* executable, EmulatedGraph* graph, UpdateResult* result) {
  const Lock lock(runtime().mutex);
  *result = {};
  if (const int32_t code = enter("cudaGraphExecUpdate")) return remember(code);
  if (!executable || !graph) return remember(kInvalidValue);
  result->result = difference(*executable, *graph);
  if (result->result != kUpdated) return remember(kGraphExecUpdateFailure);
  executable->operations = graph->operations;
  return kSuccess;
}
