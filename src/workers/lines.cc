#include "workers/lines.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/utf8.h"

namespace penstock {

namespace {

void append_clean(std::string& text, std::string_view line) {
    while (!line.empty()) {
        CodePoint c = first_code_point(line);
        if (c.size == 0 || is_control(c.value)) {
            text.push_back(c.value == '\t' ? ' ' : '?');
        } else {
            text.append(line.substr(0, c.size));
        }
        line.remove_prefix(std::max<size_t>(c.size, 1));
    }
}

}  // namespace

void LineCutter::add(std::string_view piece) {
    for (size_t end; (end = piece.find('\r')) != piece.npos; piece.remove_prefix(end + 1)) {
        append(piece.substr(0, end));
        returned_ = true;
    }
    append(piece);
}

void LineCutter::append(std::string_view piece) {
    if (piece.empty()) return;
    if (returned_) clear();
    size_t kept = std::min(piece.size(), longest_line - line_.size());
    cut_ += piece.size() - kept;
    line_.append(piece.substr(0, kept));
}

void LineCutter::mark_cut() { line_ += fmt::format("... [{} bytes cut]", cut_); }

void LastLines::add(std::string_view line) {
    if (line.find_first_not_of(" \t") == line.npos) return;  // an empty line says nothing
    ring_[added_++ % lines] = line.substr(0, line_bytes + 1);
}

std::string LastLines::text(size_t most) const {
    std::string text;
    for (size_t i = added_ - std::min({most, added_, lines}); i < added_; ++i) {
        text += text.empty() ? "\"" : " | \"";
        std::string_view line = ring_[i % lines];
        bool cut = line.size() > line_bytes;
        append_clean(text, line.substr(0, line_bytes));
        text += cut ? "...\"" : "\"";
    }
    return text;
}

}  // namespace penstock
