// A Problem is one thing that is wrong in a configuration, or looks wrong: where, and what would be right.
// Places remembers where each setting of a file stands, by its path (upstreams.ocr.queue.size,
// listen[0].address), so that what is found after reading still points at a line.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/yaml.h"

namespace penstock {

struct Problem {
    std::string file;
    Place place;
    std::string path;
    std::string message;  // what is wrong; what would be right

    std::string text() const;  // file:line:column: path: message
};

class Places {
  public:
    explicit Places(std::string file = {}) : file_(std::move(file)) {}

    void add(std::string path, Place place) { places_.emplace(std::move(path), place); }

    // True when the file gives this very setting.
    bool has(std::string_view path) const { return places_.find(path) != places_.end(); }

    // Of the setting, or of the nearest thing around it that the file has.
    Place of(std::string_view path) const;

    Problem problem(std::string path, std::string message) const;

  private:
    std::string file_;
    std::map<std::string, Place, std::less<>> places_;
};

void sort_by_place(std::vector<Problem>& problems);

}  // namespace penstock
