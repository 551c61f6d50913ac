// Slab<T>: objects of one kind in pages that never move. make() and free() allocate nothing in steady
// state. Each object has a slot number, and the slot a generation that changes when it is freed: a Handle
// kept elsewhere (also in another thread's letter) finds the object or learns that it is gone.
// One thread. Must be empty when it dies (asserted).
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/poison.h"

namespace penstock {

struct Handle {
    uint32_t slot = UINT32_MAX;
    uint32_t generation = 0;
    bool operator==(const Handle&) const = default;
};

template <class T, size_t per_page = 64>
class Slab {
  public:
    Slab() = default;
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;
    ~Slab() {
        assert(live_ == 0);
        for (auto& page : pages_) PENSTOCK_UNPOISON(page.get(), per_page * sizeof(Cell));
    }

    template <class... A>
    T* make(A&&... args) {
        if (free_.empty()) add_page();
        Cell& cell = *free_.back();
        free_.pop_back();
        cell.live = true;
        ++live_;
        PENSTOCK_UNPOISON(cell.object, sizeof(T));
        return new (cell.object) T(std::forward<A>(args)...);
    }

    void free(T* object) {
        Cell& cell = cell_of(object);
        assert(cell.live);
        object->~T();
        PENSTOCK_POISON(cell.object, sizeof(T));
        cell.live = false;
        ++cell.generation;
        --live_;
        free_.push_back(&cell);
    }

    Handle handle(const T* object) const {
        const Cell& cell = cell_of(const_cast<T*>(object));
        return {cell.slot, cell.generation};
    }
    T* find(Handle h) const {
        if (h.slot >= pages_.size() * per_page) return nullptr;
        Cell& cell = pages_[h.slot / per_page][h.slot % per_page];
        return cell.live && cell.generation == h.generation ? object_in(cell) : nullptr;
    }
    size_t live() const { return live_; }

    // Visits every live object, in slot order. The visitor may free the one that it is given.
    template <class F>
    void for_each(F&& visit) {
        for (auto& page : pages_)
            for (size_t i = 0; i < per_page; ++i)
                if (page[i].live) visit(*object_in(page[i]));
    }

  private:
    struct Cell {
        alignas(T) std::byte object[sizeof(T)];
        uint32_t slot;
        uint32_t generation;
        bool live;
    };

    static T* object_in(Cell& cell) { return std::launder(reinterpret_cast<T*>(cell.object)); }
    static Cell& cell_of(T* object) {
        return *reinterpret_cast<Cell*>(object);
    }  // object is its first member
    void add_page() {
        pages_.push_back(std::make_unique_for_overwrite<Cell[]>(per_page));
        free_.reserve(pages_.size() * per_page);
        for (size_t i = per_page; i-- > 0;) {
            Cell& cell = pages_.back()[i];
            cell.slot = static_cast<uint32_t>((pages_.size() - 1) * per_page + i);
            cell.generation = 1;
            cell.live = false;
            PENSTOCK_POISON(cell.object, sizeof(T));
            free_.push_back(&cell);
        }
    }

    std::vector<std::unique_ptr<Cell[]>> pages_;
    std::vector<Cell*> free_;  // the last freed is the next used: its memory is warm
    size_t live_ = 0;
};

}  // namespace penstock
