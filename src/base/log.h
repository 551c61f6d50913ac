// The program's own log: one line a message on stderr, through spdlog's formatting. The line is copied into
// a LineWriter's buffer, so a stderr that is full or broken stops nobody; what found no room is counted.
// Control characters are written as \xNN: no message, whatever a client or worker put into it, can make a
// second line or move a terminal's cursor. Any thread. Not for the data path: it has the access log.
//
// Before open() and after close() lines go to stderr at once, which is what tests and `penstock check` want.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <spdlog/common.h>
#include <string_view>

#include "base/time.h"

namespace penstock {
class LineWriter;
}

namespace penstock::log {

using Level = spdlog::level::level_enum;

void open();                                          // stderr
void open(std::unique_ptr<penstock::LineWriter> to);  // elsewhere
void close();                                         // waits a moment for what is still to be written
void flush();  // the same, and goes on; before a deliberate end of the process
uint64_t dropped_lines();

void set_level(Level level);
std::optional<Level> parse_level(std::string_view name);  // debug info warning error

bool is_on(Level level);
void write(Level level, std::string_view message);

template <class... A>
void at(Level level, fmt::format_string<A...> format, A&&... args) {
    if (!is_on(level)) return;
    fmt::memory_buffer message;
    fmt::format_to(fmt::appender(message), format, std::forward<A>(args)...);
    write(level, {message.data(), message.size()});
}
template <class... A>
void debug(fmt::format_string<A...> format, A&&... args) {
    at(Level::debug, format, std::forward<A>(args)...);
}
template <class... A>
void info(fmt::format_string<A...> format, A&&... args) {
    at(Level::info, format, std::forward<A>(args)...);
}
template <class... A>
void warn(fmt::format_string<A...> format, A&&... args) {
    at(Level::warn, format, std::forward<A>(args)...);
}
template <class... A>
void error(fmt::format_string<A...> format, A&&... args) {
    at(Level::err, format, std::forward<A>(args)...);
}

}  // namespace penstock::log
