// Counters: what the data path counts, and how a scrape adds it up.
//
// A SeriesBook knows every series of the process: its family, its label values, and its id, which is the
// place of its first cell. A CounterPage is the cells of one thread, at the same places. One thread writes a
// page (load, add, store, all relaxed: no locked instruction, no shared cache line); a scrape reads all
// pages and adds. Ids are handed out under the book's mutex, when a label set is seen for the first time;
// after that a KeyIndex of the thread's own finds them without lock and without allocation.
//
// The book outlives its pages, and both outlive every thread that counts. The surprising part: id 0 is a
// sink. Where the book is full, new series get the sink, so counting never fails and memory stays bounded.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace penstock {

struct SeriesId {
    uint32_t cell = 0;  // 0: the sink
    bool operator==(const SeriesId&) const = default;
};

// Histograms of durations: upper bounds of the buckets; one more, without bound, follows. They serve a cache
// hit of 1 ms and a long generation of 10 minutes, at most a factor of 2.5 apart.
constexpr std::array<Duration, 20> histogram_bounds = {
    1ms,    2500us, 5ms, 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s,
    2500ms, 5s,     10s, 20s,  30s,  60s,  120s,  180s,  300s,  600s,
};
constexpr uint32_t histogram_buckets = histogram_bounds.size() + 1;
constexpr uint32_t histogram_cells = histogram_buckets + 1;  // the sum, in nanoseconds, comes last

class CounterPage {
  public:
    static constexpr uint32_t chunk_cells = 512;  // 4 KiB
    static constexpr uint32_t max_chunks = 2048;  // 8 MiB a thread at the very most
    static constexpr uint32_t max_cells = chunk_cells * max_chunks;

    CounterPage() = default;
    ~CounterPage();
    CounterPage(const CounterPage&) = delete;
    CounterPage& operator=(const CounterPage&) = delete;

    // Only the thread that owns the page calls these two. A gauge counts up and down on any page: only the
    // sum over all pages means something.
    void add(SeriesId id, uint64_t n = 1) {
        std::atomic<uint64_t>& c = cell(id.cell);
        c.store(c.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    void subtract(SeriesId id, uint64_t n = 1) { add(id, ~n + 1); }
    void observe(SeriesId histogram, Duration d);

    uint64_t read(uint32_t cell) const;  // any thread; 0 where this thread never counted

  private:
    struct Chunk {
        std::array<std::atomic<uint64_t>, chunk_cells> cells{};
    };

    std::atomic<uint64_t>& cell(uint32_t at) {
        Chunk* chunk = chunks_[at / chunk_cells].load(std::memory_order_relaxed);
        if (!chunk) [[unlikely]]
            chunk = grow(at / chunk_cells);
        return chunk->cells[at % chunk_cells];
    }
    Chunk* grow(uint32_t chunk);

    std::array<std::atomic<Chunk*>, max_chunks> chunks_{};
};

enum class SeriesKind : uint8_t { counter, gauge, histogram };

struct Family {
    SeriesKind kind;
    double unit;  // a cell's value times this is what a scrape shows; 1e-9 for seconds kept in nanoseconds
    std::string name;
    std::string help;
    std::vector<std::string> labels;
};
using FamilyId = uint32_t;

class SeriesBook {
  public:
    struct Reading {  // one series, summed over all pages
        std::span<const std::string> labels;
        double value = 0;                                   // counter, gauge
        std::array<uint64_t, histogram_buckets> buckets{};  // histogram: each bucket alone
        double sum = 0;                                     // histogram: in the family's unit
    };
    struct FamilyReading {
        const Family* family;
        std::vector<Reading> series;
    };

    // Any thread; each takes the mutex. The same name or labels give the same id again.
    FamilyId family(SeriesKind kind, std::string_view name, std::string_view help,
                    std::initializer_list<std::string_view> labels, double unit = 1);
    SeriesId series(FamilyId family, std::initializer_list<std::string_view> label_values);
    CounterPage& open_page();  // one for each thread; lives as long as the book

    std::vector<FamilyReading> read() const;
    uint64_t refused_series() const;  // how many label sets went to the sink because the book was full

  private:
    struct Series {
        FamilyId family;
        uint32_t cell;
        std::vector<std::string> labels;
    };

    mutable std::mutex mutex_;
    std::vector<std::unique_ptr<Family>> families_;
    std::map<std::string, const Series*, std::less<>> by_key_;  // family and label values, joined
    std::vector<std::unique_ptr<Series>> series_;
    std::vector<std::unique_ptr<CounterPage>> pages_;
    uint32_t next_cell_ = 1;
    uint64_t refused_ = 0;
};

// Numbers by key for one thread: open addressing, grows only while new keys come, never shrinks. Key 0 is
// not allowed.
class KeyIndex {
  public:
    static constexpr uint32_t none = UINT32_MAX;

    explicit KeyIndex(size_t max_keys = 1 << 16) : max_keys_(max_keys), slots_(64) {}

    uint32_t find(uint64_t key) const {
        for (size_t at = place(key);; at = (at + 1) & (slots_.size() - 1)) {
            if (slots_[at].key == key) return slots_[at].value;
            if (slots_[at].key == 0) return none;
        }
    }
    bool insert(uint64_t key, uint32_t value);  // false: max_keys are there already
    bool full() const { return count_ >= max_keys_; }
    size_t size() const { return count_; }

  private:
    struct Slot {
        uint64_t key = 0;
        uint32_t value = 0;
    };

    size_t place(uint64_t key) const {
        key *= 0x9E3779B97F4A7C15u;
        return (key ^ key >> 32) & (slots_.size() - 1);
    }

    size_t max_keys_;
    size_t count_ = 0;
    std::vector<Slot> slots_;
};

}  // namespace penstock
