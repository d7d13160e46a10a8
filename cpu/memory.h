// Memory straight from the operating system.
#pragma once

#include <cstddef>

namespace bao {

// Zero-filled memory of whole pages, backed when first touched; huge pages where it is large. nullptr where it can't be had.
void* map_memory(size_t bytes);
// What map_memory returned for as many bytes, or nullptr.
void unmap_memory(void* data, size_t bytes);

}  // namespace bao
