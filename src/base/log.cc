#include "base/log.h"

#include <cstdio>
#include <mutex>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/sink.h>
#include <unistd.h>
#include <utility>

#include "base/line_writer.h"
#include "base/utf8.h"

namespace penstock::log {

namespace {

constexpr const char* pattern = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
constexpr size_t longest_line = 8192;  // of one message; a worker's line may be any length
constexpr Duration patience = 1s;

void append_clean(std::string_view text, fmt::memory_buffer& to) {
    size_t most = to.size() + longest_line;
    while (!text.empty()) {
        if (to.size() > most) {
            to.append(std::string_view("..."));
            return;
        }
        CodePoint c = first_code_point(text);
        if (c.size == 0 || (is_control(c.value) && c.value != '\t')) {
            size_t bytes = c.size ? c.size : 1;
            for (size_t i = 0; i < bytes; ++i)
                fmt::format_to(fmt::appender(to), "\\x{:02x}", static_cast<unsigned char>(text[i]));
            text.remove_prefix(bytes);
        } else {
            to.append(text.substr(0, c.size));
            text.remove_prefix(c.size);
        }
    }
}

class LineSink final : public spdlog::sinks::sink {
  public:
    void log(const spdlog::details::log_msg& message) override {
        std::lock_guard lock(mutex_);
        formatted_.clear();
        formatter_->format(message, formatted_);
        clean_.clear();
        append_clean({formatted_.data(), formatted_.size()}, clean_);
        clean_.push_back('\n');
        std::string_view line(clean_.data(), clean_.size());
        if (writer_)
            writer_->put(line);
        else [[maybe_unused]]
            auto n = ::write(STDERR_FILENO, line.data(), line.size());
    }
    void flush() override {
        if (auto writer = current()) writer->flush(patience);
    }
    void set_pattern(const std::string&) override {}
    void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

    void write_to(std::shared_ptr<LineWriter> writer) {
        {
            std::lock_guard lock(mutex_);
            std::swap(writer_, writer);
            if (writer) dropped_before_ += writer->dropped_lines();
        }
        // The old one ends here, outside of the lock: that can take its second.
    }
    uint64_t dropped_lines() {
        std::lock_guard lock(mutex_);
        return dropped_before_ + (writer_ ? writer_->dropped_lines() : 0);
    }

  private:
    std::shared_ptr<LineWriter> current() {
        std::lock_guard lock(mutex_);
        return writer_;
    }

    std::mutex mutex_;
    std::shared_ptr<LineWriter> writer_;
    uint64_t dropped_before_ = 0;
    std::unique_ptr<spdlog::pattern_formatter> formatter_ =
        std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc, "");
    spdlog::memory_buf_t formatted_;
    fmt::memory_buffer clean_;
};

// Never destroyed: a thread that outlives main may still have something to say.
struct Parts {
    std::shared_ptr<LineSink> sink = std::make_shared<LineSink>();
    spdlog::logger logger{"penstock", sink};
};
Parts& parts() {
    static Parts* const the = new Parts;
    return *the;
}

}  // namespace

void open() { open(penstock::LineWriter::to_descriptor(STDERR_FILENO)); }
void open(std::unique_ptr<penstock::LineWriter> to) { parts().sink->write_to(std::move(to)); }
void close() { parts().sink->write_to(nullptr); }
void flush() { parts().sink->flush(); }
uint64_t dropped_lines() { return parts().sink->dropped_lines(); }

void set_level(Level level) { parts().logger.set_level(level); }

std::optional<Level> parse_level(std::string_view name) {
    if (name == "debug") return Level::debug;
    if (name == "info") return Level::info;
    if (name == "warning") return Level::warn;
    if (name == "error") return Level::err;
    return std::nullopt;
}

bool is_on(Level level) { return parts().logger.should_log(level); }
void write(Level level, std::string_view message) {
    parts().logger.log(level, spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace penstock::log
