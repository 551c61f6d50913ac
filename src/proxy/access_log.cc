#include "proxy/access_log.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/line_writer.h"
#include "base/utf8.h"

namespace penstock {

namespace {

// How much of a value is shown. What a client chooses can be as long as a head; escaped, a byte takes six.
constexpr size_t most_target = 4096;
constexpr size_t most_text = 512;  // user agent, referer
constexpr size_t most_name = 256;  // host, and the names that the configuration gave
constexpr size_t most_word = 64;   // method, client, reasons
constexpr std::string_view cut_off = "...";

// 10 words, 7 names, 2 texts and the target at their worst, numbers and keys.
static_assert(6 * (10 * most_word + 7 * most_name + 2 * most_text + most_target) + 2048 <= access_line_bound);

enum class Quoting : uint8_t { json, combined };

// Writes forward into memory that is known to be large enough.
class Line {
  public:
    explicit Line(char* out) : begin_(out), end_(out) {}

    size_t size() const { return static_cast<size_t>(end_ - begin_); }
    void put(char c) { *end_++ = c; }
    void put(std::string_view text) {
        std::memcpy(end_, text.data(), text.size());
        end_ += text.size();
    }
    template <size_t n>
    void put_literal(const char (&text)[n]) {  // its size is known to the compiler: no call
        std::memcpy(end_, text, n - 1);
        end_ += n - 1;
    }
    void number(uint64_t n) {
        fmt::format_int digits(n);
        put(std::string_view(digits.data(), digits.size()));
    }
    void padded(uint64_t n, int width) {
        for (int i = width; i-- > 0; n /= 10) end_[i] = static_cast<char>('0' + n % 10);
        end_ += width;
    }
    // Milliseconds with the microseconds behind the point.
    void milliseconds(Duration d) {
        auto us = static_cast<uint64_t>(d / 1us);
        number(us / 1000);
        put('.');
        padded(us % 1000, 3);
    }
    void escaped(std::string_view text, size_t most, Quoting quoting) {
        bool cut = text.size() > most;
        if (cut) text = text.substr(0, most);
        while (!text.empty()) {
            size_t plain = plain_bytes(text);
            put(text.substr(0, plain));
            text.remove_prefix(plain);
            if (!text.empty()) text.remove_prefix(escape_one(text, quoting));
        }
        if (cut) put(cut_off);
    }

  private:
    static bool is_plain(char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

    // How many bytes from the start need no escape. Eight at a time (the usual tricks with a zero byte and a
    // byte below n; a false alarm only means a look at each): the access log's time is spent here.
    static size_t plain_bytes(std::string_view text) {
        constexpr uint64_t ones = ~uint64_t{0} / 255, highs = ones * 0x80;
        size_t at = 0;
        for (; at + 8 <= text.size(); at += 8) {
            uint64_t w;
            std::memcpy(&w, text.data() + at, 8);
            auto zero_in = [](uint64_t v) { return (v - ones) & ~v; };
            uint64_t odd =
                w | (w - ones * 0x20) | (w + ones) | zero_in(w ^ ones * '"') | zero_in(w ^ ones * '\\');
            if (odd & highs) break;
        }
        while (at < text.size() && is_plain(text[at])) ++at;
        return at;
    }

    size_t escape_one(std::string_view text, Quoting quoting) {
        // Formats other than JSON know no characters beyond ASCII: bytes are escaped, as nginx does.
        CodePoint c = quoting == Quoting::json ? first_code_point(text) : CodePoint{};
        if (c.size > 1 && !is_control(c.value)) {
            put(text.substr(0, c.size));
            return c.size;
        }
        escape_byte(c.size ? static_cast<char>(c.value) : text[0], quoting);
        return c.size ? c.size : 1;
    }
    void escape_byte(char c, Quoting quoting) {
        if (quoting == Quoting::json && (c == '"' || c == '\\')) {
            put('\\'), put(c);
            return;
        }
        // In JSON a byte that is no UTF-8 shows as the character of that number.
        put(quoting == Quoting::json ? std::string_view("\\u00") : std::string_view("\\x"));
        constexpr char digits[] = "0123456789abcdef";
        put(digits[static_cast<uint8_t>(c) >> 4]);
        put(digits[static_cast<uint8_t>(c) & 15]);
    }

    char* begin_;
    char* end_;
};

struct Date {
    uint64_t year, month, day, hour, minute, second, millisecond;
};

// Howard Hinnant's civil_from_days, for times after 1970. (gmtime_r costs ten times as much.)
Date date_of(int64_t unix_ns) {
    auto ms = static_cast<uint64_t>(std::max<int64_t>(unix_ns, 0)) / 1'000'000;
    uint64_t s = ms / 1000, days = s / 86400 + 719468;
    uint64_t era = days / 146097, of_era = days % 146097;
    uint64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    uint64_t shifted = (5 * day_of_year + 2) / 153;  // months from March
    uint64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    return {year_of_era + era * 400 + (month <= 2),
            month,
            day_of_year - (153 * shifted + 2) / 5 + 1,
            s / 3600 % 24,
            s / 60 % 60,
            s % 60,
            ms % 1000};
}

void put_iso(Line& line, const Date& d) {
    line.padded(d.year, 4), line.put('-'), line.padded(d.month, 2), line.put('-'), line.padded(d.day, 2);
    line.put('T');
    line.padded(d.hour, 2), line.put(':'), line.padded(d.minute, 2), line.put(':'), line.padded(d.second, 2);
    line.put('.'), line.padded(d.millisecond, 3), line.put('Z');
}

void put_common(Line& line, const Date& d) {
    constexpr std::string_view months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    line.padded(d.day, 2), line.put('/'), line.put(months.substr((d.month - 1) * 3, 3)), line.put('/');
    line.padded(d.year, 4), line.put(':');
    line.padded(d.hour, 2), line.put(':'), line.padded(d.minute, 2), line.put(':'), line.padded(d.second, 2);
    line.put(" +0000");
}

// A field comes with all that stands before its value: ,"name":
class Json {
  public:
    explicit Json(Line& line) : line_(line) {}

    template <size_t n>
    void text(const char (&before)[n], std::string_view value, size_t most) {
        if (value.empty()) return;
        line_.put_literal(before);
        line_.put('"');
        line_.escaped(value, most, Quoting::json);
        line_.put('"');
    }
    template <size_t n>
    void number(const char (&before)[n], uint64_t value) {
        line_.put_literal(before);
        line_.number(value);
    }
    template <size_t n>
    void duration(const char (&before)[n], Duration value) {
        if (value < Duration::zero()) return;
        line_.put_literal(before);
        line_.milliseconds(value);
    }

  private:
    Line& line_;
};

void put_json(Line& line, const AccessRecord& r) {
    line.put_literal(R"({"time":")");
    put_iso(line, date_of(r.unix_ns));
    line.put('"');
    Json json(line);
    json.text(R"(,"client":)", r.client, most_word);
    json.text(R"(,"method":)", r.method, most_word);
    json.text(R"(,"host":)", r.host, most_name);
    json.text(R"(,"target":)", r.target, most_target);
    json.text(R"(,"protocol":)", r.protocol, most_word);
    json.number(R"(,"status":)", r.status);
    json.text(R"(,"grpc_status":)", r.grpc_status, most_word);
    json.text(R"(,"reason":)", r.reason, most_word);
    json.text(R"(,"rule":)", r.rule, most_word);
    json.text(R"(,"limit":)", r.limit, most_word);
    json.text(R"(,"ended_by":)", r.ended_by, most_word);
    json.text(R"(,"step":)", r.step, most_word);
    json.text(R"(,"upstream":)", r.upstream, most_name);
    json.text(R"(,"backend":)", r.backend, most_name);
    json.text(R"(,"route":)", r.route, most_name);
    json.text(R"(,"model":)", r.model, most_name);
    json.number(R"(,"attempts":)", r.attempts);
    json.duration(R"(,"total_ms":)", r.total);
    json.duration(R"(,"queue_ms":)", r.queue);
    json.duration(R"(,"backend_ms":)", r.backend_time);
    json.duration(R"(,"first_byte_ms":)", r.first_byte);
    json.number(R"(,"request_bytes":)", r.request_bytes);
    json.number(R"(,"response_bytes":)", r.response_bytes);
    json.text(R"(,"request_id":)", r.request_id, most_name);
    json.text(R"(,"user_agent":)", r.user_agent, most_text);
    line.put_literal("}\n");
}

// As Apache and nginx call it: what their log readers expect, and no more.
void put_combined(Line& line, const AccessRecord& r) {
    auto or_dash = [&line](std::string_view value, size_t most) {
        if (value.empty())
            line.put('-');
        else
            line.escaped(value, most, Quoting::combined);
    };
    or_dash(r.client, most_word);
    line.put(" - - [");
    put_common(line, date_of(r.unix_ns));
    line.put("] \"");
    or_dash(r.method, most_word);
    line.put(' ');
    or_dash(r.target, most_target);
    line.put(' ');
    or_dash(r.protocol, most_word);
    line.put("\" ");
    line.number(r.status);
    line.put(' ');
    line.number(r.response_bytes);
    line.put(" \"");
    or_dash(r.referer, most_text);
    line.put("\" \"");
    or_dash(r.user_agent, most_text);
    line.put("\"\n");
}

}  // namespace

size_t format_access_line(const AccessRecord& record, LogFormat format, char* out) {
    Line line(out);
    if (format == LogFormat::json) put_json(line, record);
    if (format == LogFormat::combined) put_combined(line, record);
    return line.size();
}

AccessLines::AccessLines(Turn& turn, LineWriter& writer, LogFormat format)
    : turn_(turn), writer_(writer), format_(format), flush_at_(*this) {
    if (format_ != LogFormat::off) buffer_ = std::make_unique_for_overwrite<char[]>(capacity);
}

AccessLines::~AccessLines() {
    hand_over();
    unlink();
}

void AccessLines::add(const AccessRecord& record) {
    if (format_ == LogFormat::off) return;
    size_ += format_access_line(record, format_, buffer_.get() + size_);
    ++lines_;
    if (size_ > capacity - access_line_bound)
        hand_over();
    else if (!flush_at_.is_armed())
        turn_.arm(flush_at_, turn_.now() + longest_wait);
}

void AccessLines::run(Time) {
    if (flush_at_.expired()) hand_over();
}

void AccessLines::hand_over() {
    if (lines_) writer_.put({buffer_.get(), size_}, lines_);
    size_ = lines_ = 0;
    flush_at_.disarm();
}

}  // namespace penstock
