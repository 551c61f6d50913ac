// The memory of nghttp2's sessions on one loop: freed blocks are kept by size for the next request, so that
// in steady state none comes from the heap. Outlives its sessions.
#pragma once

#include <cstddef>
#include <nghttp2/nghttp2.h>
#include <vector>

namespace penstock {

class H2Memory {
  public:
    H2Memory();
    ~H2Memory();
    H2Memory(const H2Memory&) = delete;
    H2Memory& operator=(const H2Memory&) = delete;

    // Scratch for one head on its way to nghttp2.
    std::vector<nghttp2_nv>& fields() { return fields_; }
    nghttp2_mem* functions() { return &functions_; }
    size_t bytes_in_use() const { return in_use_; }

    void* take(size_t bytes);
    void give_back(void* block);
    void* resize(void* block, size_t bytes);

  private:
    struct Block;
    static constexpr size_t classes = 9;  // 64 bytes to 16 KiB, and one for a frame of 16 KiB with its header

    nghttp2_mem functions_{};
    std::vector<nghttp2_nv> fields_;
    Block* kept_[classes] = {};
    size_t kept_bytes_ = 0;
    size_t in_use_ = 0;
};

}  // namespace penstock
