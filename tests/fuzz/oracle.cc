#include "oracle.h"

#include <cstring>
#include <llhttp/llhttp.h>
#include <memory>

#include "base/text.h"

namespace penstock::fuzz {

namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

void keep_fields(const Head& head, Fields& fields) {
    for (const Field& f : head) fields.emplace_back(head.name(f), head.value(f));
}

// Our readers fed as a connection feeds them: bytes come in steps, the head's bytes are kept until it is
// complete. Each look at the bytes is at a fresh copy of exactly their size, so that a sanitizer sees any
// read beyond.
class Feeder {
  public:
    Feeder(std::string_view bytes, const Stream& stream) : bytes_(bytes), stream_(stream) {}

    Reading run() {
        while (from_ < bytes_.size() || have_ < bytes_.size()) {
            if (!read_head() || !read_body()) break;
            message_.end = from_;
            reading_.messages.push_back(message_);
            if (message_.leaves_http || !message_.keep_alive) break;
        }
        return std::move(reading_);
    }

  private:
    std::string_view window() {
        size_t size = have_ - from_;
        copy_.reset(new char[size]);
        std::memcpy(copy_.get(), bytes_.data() + from_, size);
        return {copy_.get(), size};
    }
    bool more() {
        if (have_ == bytes_.size()) return false;
        have_ += std::min(stream_.step, bytes_.size() - have_);
        return true;
    }
    bool refuse(Rule rule) {
        reading_.refused = true;
        reading_.why = rule_name(rule);
        return false;
    }

    bool read_head() {
        message_ = {};
        H1RequestReader request;
        H1ResponseReader response;
        for (;;) {
            Head head;
            Field room[64];
            std::string_view bytes = window();
            ReadStep step = stream_.responses ? response.read(bytes, limits_, stream_.asked, room, head)
                                              : request.read(bytes, limits_, room, head);
            if (step == ReadStep::failed) return refuse(stream_.responses ? response.rule() : request.rule());
            if (step == ReadStep::complete) {
                framing_ = stream_.responses ? response.framing() : request.framing();
                from_ += stream_.responses ? response.consumed() : request.consumed();
                message_.method = method_name(head.method);
                message_.target = head.target();
                message_.status = head.status;
                message_.minor_version = head.version == Version::http11;
                message_.keep_alive = framing_.keep_alive;
                message_.leaves_http = framing_.upgrade || framing_.tunnel || head.method == Method::connect;
                keep_fields(head, message_.fields);
                return true;
            }
            // Scribble over the fields: a reader may not rely on them between two calls.
            std::memset(static_cast<void*>(room), 0xee, sizeof room);
            if (!more()) return false;
        }
    }

    bool read_body() {
        H1BodyReader body;
        body.start(framing_);
        for (;;) {
            BodyRead read = body.read(window(), limits_);
            if (read.step == BodyStep::failed) return refuse(body.rule());
            message_.body.append(read.data);
            from_ += read.consumed;
            if (read.step == BodyStep::complete) return true;
            if (read.step == BodyStep::trailers) return read_trailers(body);
            if (read.step == BodyStep::need_more && !more())
                return stream_.closed && body.finish() == BodyStep::complete;
        }
    }

    bool read_trailers(H1BodyReader& body) {
        for (;;) {
            Head trailers;
            Field room[64];
            BodyRead read = body.read_trailers(window(), limits_, room, trailers);
            if (read.step == BodyStep::failed) return refuse(body.rule());
            if (read.step == BodyStep::complete) {
                from_ += read.consumed;
                keep_fields(trailers, message_.trailers);
                return true;
            }
            std::memset(static_cast<void*>(room), 0xee, sizeof room);
            if (!more()) return false;
        }
    }

    std::string_view bytes_;
    Stream stream_;
    H1Limits limits_;
    size_t from_ = 0;  // consumed
    size_t have_ = 0;  // arrived
    std::unique_ptr<char[]> copy_;
    Framing framing_;
    Message message_;
    Reading reading_;
};

// llhttp, paused at the end of each message so that we learn where it ends.
class Oracle {
  public:
    Oracle(std::string_view bytes, const Stream& stream) : bytes_(bytes), stream_(stream) {
        llhttp_settings_init(&settings_);
        settings_.on_message_begin = [](llhttp_t* p) { return self(p).begin(); };
        settings_.on_url = [](llhttp_t* p, const char* at, size_t n) {
            return self(p).add(self(p).message_.target, at, n);
        };
        settings_.on_header_field = [](llhttp_t* p, const char* at, size_t n) {
            return self(p).add(self(p).name_, at, n);
        };
        settings_.on_header_value = [](llhttp_t* p, const char* at, size_t n) {
            return self(p).add(self(p).value_, at, n);
        };
        settings_.on_header_value_complete = [](llhttp_t* p) { return self(p).field(); };
        settings_.on_headers_complete = [](llhttp_t* p) { return self(p).head(); };
        settings_.on_body = [](llhttp_t* p, const char* at, size_t n) {
            return self(p).add(self(p).message_.body, at, n);
        };
        settings_.on_message_complete = [](llhttp_t* p) { return self(p).complete(); };
        llhttp_init(&parser_, stream.responses ? HTTP_RESPONSE : HTTP_REQUEST, &settings_);
        parser_.data = this;
    }

    Reading run() {
        const char* p = bytes_.data();
        const char* end = p + bytes_.size();
        while (p < end) {
            llhttp_errno_t error = llhttp_execute(&parser_, p, size_t(end - p));
            if (error == HPE_OK) break;
            const char* at = llhttp_get_error_pos(&parser_);
            if (error == HPE_PAUSED) {
                // The pause at a message's end comes with the position of its last byte or of the one behind.
                finish_message(size_t(at - bytes_.data()));
                if (!last_keep_alive_ || last_leaves_http_) return std::move(reading_);
                p = at;
                llhttp_resume(&parser_);
                continue;
            }
            if (error == HPE_PAUSED_UPGRADE) {
                finish_message(size_t(at - bytes_.data()));
                return std::move(reading_);
            }
            reading_.refused = true;
            reading_.why = llhttp_errno_name(error);
            return std::move(reading_);
        }
        if (completed_) finish_message(bytes_.size());
        if (stream_.closed && in_message_ && llhttp_finish(&parser_) == HPE_PAUSED)
            finish_message(bytes_.size());
        return std::move(reading_);
    }

  private:
    static Oracle& self(llhttp_t* parser) { return *static_cast<Oracle*>(parser->data); }

    int add(std::string& to, const char* at, size_t size) {
        to.append(at, size);
        return 0;
    }
    int begin() {
        message_ = {};
        name_.clear();
        value_.clear();
        in_body_ = false;
        in_message_ = true;
        return 0;
    }
    int field() {
        Fields& fields = in_body_ ? message_.trailers : message_.fields;
        fields.emplace_back(name_, std::string(without_ows(value_)));
        name_.clear();
        value_.clear();
        return 0;
    }
    // What a response answers is the caller's to know, with llhttp too.
    int head() {
        in_body_ = true;
        message_.minor_version = parser_.http_minor;
        message_.keep_alive = llhttp_should_keep_alive(&parser_);
        if (!stream_.responses) {
            message_.method = llhttp_method_name(llhttp_method_t(parser_.method));
            message_.leaves_http = parser_.upgrade;
            return 0;
        }
        message_.status = parser_.status_code;
        bool tunnel =
            message_.status == 101 || (stream_.asked.method == Method::connect && message_.status / 100 == 2);
        if (tunnel) {
            message_.leaves_http = true;
            return 2;
        }
        return stream_.asked.method == Method::head || has_no_body(uint16_t(message_.status)) ? 1 : 0;
    }
    int complete() {
        // Only now: "until close" is known from the flags, which go with the message.
        if (!stream_.responses || !has_no_body(uint16_t(message_.status))) {
            message_.keep_alive = llhttp_should_keep_alive(&parser_);
        }
        completed_ = true;
        return HPE_PAUSED;
    }
    void finish_message(size_t end) {
        if (!completed_) return;
        completed_ = in_message_ = false;
        message_.end = end;
        last_keep_alive_ = message_.keep_alive;
        last_leaves_http_ = message_.leaves_http;
        reading_.messages.push_back(message_);
    }

    std::string_view bytes_;
    Stream stream_;
    llhttp_t parser_;
    llhttp_settings_t settings_;
    Message message_;
    std::string name_, value_;
    bool in_body_ = false;
    bool in_message_ = false;
    bool completed_ = false;
    bool last_keep_alive_ = true;
    bool last_leaves_http_ = false;
    Reading reading_;
};

std::string describe(const Fields& fields) {
    std::string text;
    for (const auto& [name, value] : fields) text += name + "=" + readable(value) + "; ";
    return text;
}

std::string difference(const Message& ours, const Message& theirs) {
    auto differ = [](std::string_view what, std::string_view a, std::string_view b) {
        return std::string(what) + ": ours " + readable(a) + ", llhttp's " + readable(b);
    };
    if (ours.method != theirs.method) return differ("method", ours.method, theirs.method);
    if (ours.target != theirs.target) return differ("target", ours.target, theirs.target);
    if (ours.status != theirs.status) {
        return differ("status", std::to_string(ours.status), std::to_string(theirs.status));
    }
    if (ours.minor_version != theirs.minor_version) return "version";
    if (ours.fields != theirs.fields) return differ("fields", describe(ours.fields), describe(theirs.fields));
    if (ours.trailers != theirs.trailers)
        return differ("trailers", describe(ours.trailers), describe(theirs.trailers));
    if (ours.body != theirs.body) return differ("body", ours.body, theirs.body);
    return {};
}

bool has_field(const Fields& fields, std::string_view name) {
    for (const auto& field : fields) {
        if (equal_ignoring_case(field.first, name)) return true;
    }
    return false;
}

}  // namespace

Reading read_with_penstock(std::string_view bytes, const Stream& stream) {
    return Feeder(bytes, stream).run();
}
Reading read_with_llhttp(std::string_view bytes, const Stream& stream) { return Oracle(bytes, stream).run(); }

std::string disagreement(std::string_view bytes, const Stream& stream) {
    Reading ours = read_with_penstock(bytes, stream);
    Reading theirs = read_with_llhttp(bytes, stream);
    for (size_t i = 0;; i++) {
        if (i == ours.messages.size()) {
            if (ours.refused) return {};  // being stricter is our right
            // We wait for more, or stopped because the message was the last.
            if (i < theirs.messages.size()) return "llhttp found a message where we wait for more";
            return {};
        }
        const Message& mine = ours.messages[i];
        std::string number = "message " + std::to_string(i) + ": ";
        if (i == theirs.messages.size()) {
            return number + (theirs.refused ? "llhttp refuses it: " + theirs.why : "llhttp waits for more");
        }
        const Message& its = theirs.messages[i];
        std::string what = difference(mine, its);
        if (!what.empty()) return number + what;
        if (mine.end != its.end) {
            return number + "ends: ours " + std::to_string(mine.end) + ", llhttp's " +
                   std::to_string(its.end);
        }
        if (mine.leaves_http != its.leaves_http) {
            // llhttp believes any Upgrade; we forward only one protocol that may be.
            if (mine.leaves_http) return number + "only we leave HTTP";
            return {};
        }
        if (mine.leaves_http) return {};
        if (mine.keep_alive != its.keep_alive) {
            // With both "close" and "keep-alive", llhttp keeps an HTTP/1.0 connection; we close it. It also
            // believes Proxy-Connection, which RFC 9112 (C.2.2) has left behind, and either in trailers.
            bool its_way = has_field(mine.fields, "proxy-connection") ||
                           has_field(mine.trailers, "connection") ||
                           has_field(mine.trailers, "proxy-connection");
            if (mine.keep_alive && !its_way) return number + "only we keep the connection";
            return {};
        }
    }
}

std::string split_dependence(std::string_view bytes, Stream stream, uint64_t seed) {
    stream.step = SIZE_MAX;
    Reading whole = read_with_penstock(bytes, stream);
    for (size_t step : {size_t(1), size_t(2 + seed % 13), size_t(16 + seed / 13 % 97)}) {
        stream.step = step;
        Reading split = read_with_penstock(bytes, stream);
        std::string where = "in steps of " + std::to_string(step) + ": ";
        if (split.refused != whole.refused || split.why != whole.why) {
            return where + "'" + split.why + "', at once '" + whole.why + "'";
        }
        if (split.messages.size() != whole.messages.size()) return where + "another number of messages";
        for (size_t i = 0; i < whole.messages.size(); i++) {
            const Message &a = split.messages[i], &b = whole.messages[i];
            std::string what = difference(a, b);
            if (!what.empty()) return where + what;
            if (a.end != b.end || a.keep_alive != b.keep_alive || a.leaves_http != b.leaves_http)
                return where + "the end";
        }
    }
    return {};
}

std::string readable(std::string_view bytes) {
    std::string text;
    for (char c : bytes) {
        constexpr char digits[] = "0123456789abcdef";
        if (c == '\r') {
            text += "\\r";
        } else if (c == '\n') {
            text += "\\n";
        } else if (c >= 0x20 && c < 0x7f && c != '\\') {
            text += c;
        } else {
            text += "\\x";
            text += digits[uint8_t(c) >> 4];
            text += digits[uint8_t(c) & 15];
        }
    }
    return text;
}

}  // namespace penstock::fuzz
