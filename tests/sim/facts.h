// What is known of each request, beside what penstock knows, and what must be true of it; and the tally of
// how all of them ended.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace penstock::sim {

struct Facts {
    bool repeatable = false;     // may be run twice: by its method, or the settings say so
    bool answer_begun = false;   // a byte of an answer came
    bool drops_answers = false;  // it may be sent again after an answer with some statuses
    bool passed_on = false;      // something of an answer went to its client
    bool left = false;           // its client is gone, and penstock knows
    uint8_t most_begun = 1;      // connections on which it may be begun
    uint8_t begun = 0;
    uint8_t ran = 0;  // processes that saw it
    uint8_t ends = 0;
    size_t answered_by = 0;  // the process whose head came last
};

// Bodies have a content that tells whose they are and where: byte i of number n is pattern_of(n)[i % 251],
// and there is always a run of this size to compare with.
constexpr size_t longest_run = 20 * 1024;
const char* pattern(uint32_t number, uint64_t position);

class Tally {
  public:
    void count(std::string_view what, uint64_t n = 1) {
        auto at = counts_.find(what);
        if (at == counts_.end()) at = counts_.emplace(std::string(what), 0).first;
        at->second += n;
    }
    uint64_t of(std::string_view what) const {
        auto at = counts_.find(what);
        return at == counts_.end() ? 0 : at->second;
    }
    void add(const Tally& other) {
        for (const auto& [what, n] : other.counts_) count(what, n);
    }
    const auto& counts() const { return counts_; }

  private:
    std::map<std::string, uint64_t, std::less<>> counts_;
};

}  // namespace penstock::sim
