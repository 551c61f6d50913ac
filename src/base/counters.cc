#include "base/counters.h"

#include <algorithm>
#include <cassert>

namespace penstock {

CounterPage::~CounterPage() {
    for (auto& chunk : chunks_) delete chunk.load(std::memory_order_relaxed);
}

CounterPage::Chunk* CounterPage::grow(uint32_t at) {
    auto* chunk = new Chunk;
    chunks_[at].store(chunk, std::memory_order_release);  // its zeros become visible with it
    return chunk;
}

void CounterPage::observe(SeriesId histogram, Duration d) {
    if (histogram.cell == 0) return;
    d = std::max(d, Duration::zero());
    uint32_t bucket = 0;
    for (Duration bound : histogram_bounds) bucket += d > bound;  // no branch to guess: bounds are few
    add({histogram.cell + bucket});
    add({histogram.cell + histogram_buckets}, static_cast<uint64_t>(d.count()));
}

uint64_t CounterPage::read(uint32_t cell) const {
    const Chunk* chunk = chunks_[cell / chunk_cells].load(std::memory_order_acquire);
    return chunk ? chunk->cells[cell % chunk_cells].load(std::memory_order_relaxed) : 0;
}

FamilyId SeriesBook::family(SeriesKind kind, std::string_view name, std::string_view help,
                            std::initializer_list<std::string_view> labels, double unit) {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < families_.size(); ++i)
        if (families_[i]->name == name) return static_cast<FamilyId>(i);
    families_.push_back(std::make_unique<Family>(
        Family{kind, unit, std::string(name), std::string(help), {labels.begin(), labels.end()}}));
    return static_cast<FamilyId>(families_.size() - 1);
}

SeriesId SeriesBook::series(FamilyId family, std::initializer_list<std::string_view> label_values) {
    // Each value with its size before it: no two lists of values make the same key.
    std::string key = std::to_string(family);
    for (std::string_view value : label_values)
        key.append(1, ' ').append(std::to_string(value.size())).append(1, ':').append(value);

    std::lock_guard lock(mutex_);
    assert(family < families_.size() && families_[family]->labels.size() == label_values.size());
    auto known = by_key_.find(key);
    if (known != by_key_.end()) return {known->second->cell};

    // The cells of a histogram lie in one chunk or in two: each is found by its own number.
    uint32_t cells = families_[family]->kind == SeriesKind::histogram ? histogram_cells : 1;
    if (next_cell_ + cells > CounterPage::max_cells) {
        ++refused_;
        return {};
    }
    series_.push_back(
        std::make_unique<Series>(Series{family, next_cell_, {label_values.begin(), label_values.end()}}));
    next_cell_ += cells;
    by_key_.emplace(std::move(key), series_.back().get());
    return {series_.back()->cell};
}

CounterPage& SeriesBook::open_page() {
    auto page = std::make_unique<CounterPage>();
    std::lock_guard lock(mutex_);
    pages_.push_back(std::move(page));
    return *pages_.back();
}

std::vector<SeriesBook::FamilyReading> SeriesBook::read() const {
    // The lock is held for copying pointers only: adding up thousands of series must not make a data loop
    // wait that has met a new label set. What the pointers name lives as long as the book.
    std::vector<FamilyReading> result;
    std::vector<const Series*> series;
    std::vector<const CounterPage*> pages;
    {
        std::lock_guard lock(mutex_);
        for (auto& f : families_) result.push_back({f.get(), {}});
        series.reserve(series_.size());
        for (auto& s : series_) series.push_back(s.get());
        for (auto& p : pages_) pages.push_back(p.get());
    }
    auto total = [&pages](uint32_t cell) {
        uint64_t sum = 0;
        for (const CounterPage* page : pages) sum += page->read(cell);
        return sum;
    };
    for (const Series* s : series) {
        FamilyReading& family = result[s->family];
        Reading& reading = family.series.emplace_back();
        reading.labels = s->labels;
        switch (family.family->kind) {
            case SeriesKind::counter:
                reading.value = static_cast<double>(total(s->cell)) * family.family->unit;
                break;
            case SeriesKind::gauge:  // ups and downs on different pages: only their sum is a number
                reading.value =
                    static_cast<double>(static_cast<int64_t>(total(s->cell))) * family.family->unit;
                break;
            case SeriesKind::histogram:
                for (uint32_t i = 0; i < histogram_buckets; ++i) reading.buckets[i] = total(s->cell + i);
                reading.sum = static_cast<double>(total(s->cell + histogram_buckets)) * family.family->unit;
                break;
        }
    }
    return result;
}

uint64_t SeriesBook::refused_series() const {
    std::lock_guard lock(mutex_);
    return refused_;
}

bool KeyIndex::insert(uint64_t key, uint32_t value) {
    assert(key != 0 && find(key) == none);
    if (full()) return false;
    if ((count_ + 1) * 2 > slots_.size()) {
        std::vector<Slot> old(slots_.size() * 2);
        old.swap(slots_);
        count_ = 0;
        for (const Slot& slot : old)
            if (slot.key) insert(slot.key, slot.value);
    }
    size_t at = place(key);
    while (slots_[at].key) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = {key, value};
    ++count_;
    return true;
}

}  // namespace penstock
