#include "codec/h2_memory.h"

#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/poison.h"

namespace penstock {

namespace {
constexpr size_t smallest = 64;
constexpr size_t largest = 20 * 1024;
constexpr size_t most_kept = 8 << 20;
constexpr uint32_t unpooled = UINT32_MAX;

size_t size_of(uint32_t size_class, size_t classes) {
    return size_class + 1 == classes ? largest : smallest << size_class;
}
}  // namespace

// In front of each block; what follows is aligned as malloc aligns.
struct alignas(std::max_align_t) H2Memory::Block {
    Block* next;
    uint32_t size_class;
    uint32_t asked;
};

H2Memory::H2Memory() {
    functions_.mem_user_data = this;
    functions_.malloc = [](size_t size, void* self) { return static_cast<H2Memory*>(self)->take(size); };
    functions_.free = [](void* block, void* self) { static_cast<H2Memory*>(self)->give_back(block); };
    functions_.calloc = [](size_t count, size_t size, void* self) -> void* {
        if (size && count > SIZE_MAX / size) return nullptr;
        void* block = static_cast<H2Memory*>(self)->take(count * size);
        if (block) std::memset(block, 0, count * size);
        return block;
    };
    functions_.realloc = [](void* block, size_t size, void* self) {
        return static_cast<H2Memory*>(self)->resize(block, size);
    };
}

H2Memory::~H2Memory() {
    assert(in_use_ == 0);
    for (size_t i = 0; i < classes; ++i)
        while (Block* block = kept_[i]) {
            kept_[i] = block->next;
            PENSTOCK_UNPOISON(block + 1, size_of(static_cast<uint32_t>(i), classes));
            std::free(block);
        }
}

void* H2Memory::take(size_t bytes) {
    if (bytes > UINT32_MAX - sizeof(Block)) return nullptr;
    uint32_t size_class = unpooled;
    if (bytes <= largest) {
        size_class = 0;
        while (size_of(size_class, classes) < bytes) ++size_class;
    }
    size_t room = size_class == unpooled ? bytes : size_of(size_class, classes);
    Block* block = size_class == unpooled ? nullptr : kept_[size_class];
    if (block) {
        kept_[size_class] = block->next;
        kept_bytes_ -= room;
        PENSTOCK_UNPOISON(block + 1, room);
    } else {
        block = static_cast<Block*>(std::malloc(sizeof(Block) + room));
        if (!block) return nullptr;
    }
    block->size_class = size_class;
    block->asked = static_cast<uint32_t>(bytes);
    in_use_ += bytes;
    return block + 1;
}

void H2Memory::give_back(void* memory) {
    if (!memory) return;
    Block* block = static_cast<Block*>(memory) - 1;
    in_use_ -= block->asked;
    if (block->size_class == unpooled) return std::free(block);
    size_t room = size_of(block->size_class, classes);
    if (kept_bytes_ + room > most_kept) return std::free(block);
    kept_bytes_ += room;
    block->next = kept_[block->size_class];
    kept_[block->size_class] = block;
    PENSTOCK_POISON(memory, room);
}

void* H2Memory::resize(void* memory, size_t bytes) {
    if (!memory) return take(bytes);
    Block* block = static_cast<Block*>(memory) - 1;
    void* larger = take(bytes);
    if (!larger) return nullptr;
    std::memcpy(larger, memory, block->asked < bytes ? block->asked : bytes);
    give_back(memory);
    return larger;
}

}  // namespace penstock
