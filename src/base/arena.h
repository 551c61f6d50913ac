// An Arena gives out memory that is freed all at once: what one exchange must remember (its heads, a few
// texts). It starts in the `inline_bytes` that lie inside its owner and goes on in chunks of the loop's pool,
// so in steady state it allocates nothing. Nothing in it has a destructor that matters.
#pragma once

#include <cstddef>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "base/chunk.h"

namespace penstock {

class Arena {
  public:
    Arena(ChunkPool& pool, char* first, size_t bytes)
        : pool_(pool), first_(first), at_(first), end_(first + bytes), first_end_(end_) {}
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() { clear(); }

    void* allocate(size_t bytes, size_t align = alignof(void*)) {
        char* at = aligned(at_, align);
        if (at > end_ || bytes > static_cast<size_t>(end_ - at)) {
            grow(bytes + align);
            at = aligned(at_, align);
        }
        at_ = at + bytes;
        return at;
    }
    template <class T>
    T* array(size_t count) {
        static_assert(std::is_trivially_destructible_v<T>);
        return static_cast<T*>(allocate(count * sizeof(T), alignof(T)));
    }
    char* copy(std::string_view text) {
        char* to = static_cast<char*>(allocate(text.size(), 1));
        if (!text.empty()) std::memcpy(to, text.data(), text.size());
        return to;
    }
    std::string_view keep(std::string_view text) { return {copy(text), text.size()}; }

    void clear() {
        while (more_) more_ = std::move(*reinterpret_cast<ChunkRef*>(more_->data()));
        at_ = first_;
        end_ = first_end_;
    }

  private:
    static char* aligned(char* at, size_t align) {
        auto bits = reinterpret_cast<uintptr_t>(at);
        return at + ((align - bits % align) % align);
    }
    // Each further chunk begins with the reference to the one before it.
    void grow(size_t bytes) {
        ChunkRef fresh = pool_.take_for(bytes + sizeof(ChunkRef));
        new (fresh->data()) ChunkRef(std::move(more_));
        more_ = std::move(fresh);
        at_ = more_->data() + sizeof(ChunkRef);
        end_ = more_->data() + more_->capacity;
    }

    ChunkPool& pool_;
    char* first_;
    char* at_;
    char* end_;
    char* first_end_;
    ChunkRef more_;
};

}  // namespace penstock
