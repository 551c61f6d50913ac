// A stream of bytes, cut into lines of bounded length. Pure. One LineCutter a stream.
//
// A carriage return alone starts the line anew, as on a terminal: of a progress bar only the last state is
// a line.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

class LineCutter {
  public:
    static constexpr size_t longest_line = 4096;  // what is beyond is cut, and said so

    // Calls take(line) for each line that these bytes complete. The view is good during the call only.
    template <class Take>
    void feed(std::string_view bytes, Take&& take) {
        for (size_t end; (end = bytes.find('\n')) != bytes.npos; bytes.remove_prefix(end + 1)) {
            add(bytes.substr(0, end));
            finish(take);
        }
        add(bytes);
    }

    // The stream has ended: what has no newline yet is a line too.
    template <class Take>
    void finish(Take&& take) {
        if (cut_ > 0) mark_cut();
        take(std::string_view(line_));
        clear();
    }
    bool is_empty() const { return line_.empty(); }

  private:
    void add(std::string_view piece);
    void append(std::string_view piece);
    void mark_cut();
    void clear() {
        line_.clear();
        cut_ = 0;
        returned_ = false;
    }

    std::string line_;
    size_t cut_ = 0;         // bytes of this line that were left out
    bool returned_ = false;  // a carriage return came: newline ends the line, anything else starts it anew
};

// The last lines of a worker, for the message about its end. They are kept as they come, and shown short, as
// clean UTF-8 and without control characters: /status shows them too.
class LastLines {
  public:
    static constexpr size_t lines = 10;
    static constexpr size_t line_bytes = 300;

    void add(std::string_view line);
    // "a" | "b" | "c"; empty: it said nothing. The newest `most` of them.
    std::string text(size_t most = lines) const;

  private:
    std::array<std::string, lines> ring_;
    size_t added_ = 0;
};

}  // namespace penstock
