#include "codec/h2_session.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "codec/h2_fields.h"
#include "http/forward.h"

namespace penstock {

namespace {

// Credit of the connection is given back on receipt, so its window bounds no memory; it only has to be wide
// enough for a long fat way.
constexpr int32_t connection_window = 16 << 20;
// SETTINGS_MAX_FRAME_SIZE, as it is where nobody says otherwise.
constexpr uint32_t frame_bytes = 16 * 1024;
// A backend's frames that change nothing: a bound on what a broken one costs, and no more.
constexpr float backend_tolerance = 100;

bool sends_nothing_more(const Message& message) {
    return message.is_complete() && message.body.unsent() == 0 && message.trailers.field_count == 0;
}

}  // namespace

void H2User::request(int32_t, const H2Head&) {}
bool H2User::response(H2Stream&, const H2Head&) { return true; }
void H2User::going_away(int32_t, H2Error) {}
void H2User::answered() {}
void H2User::said_reset(H2Error) {}

H2Session::H2Session(H2Role role, const H2Limits& limits, H2Memory& memory, ChunkPool& chunks, H2User& user)
    : role_(role),
      user_(user),
      memory_(memory),
      head_(chunks, limits),
      floods_(role == H2Role::server ? 1 : backend_tolerance),
      most_continuations_(8 + limits.head_bytes / frame_bytes),
      session_(make(limits)) {
    nghttp2_settings_entry settings[6];
    size_t count = 0;
    settings[count++] = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2Stream::first_window};
    settings[count++] = {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.head_bytes};
    settings[count++] = {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
    if (role == H2Role::server) {
        settings[count++] = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.streams};
        if (limits.connect_protocol) settings[count++] = {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    } else {
        settings[count++] = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, count);
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, connection_window);
}

H2Session::~H2Session() { nghttp2_session_del(session_); }

H2Stream* H2Session::find(int32_t id) const {
    return static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session_, id));
}

// --- what comes

bool H2Session::receive(std::string_view bytes, Time now) {
    if (failed_) return false;
    now_ = now;
    ssize_t eaten =
        nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    if (eaten == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS) trip(H2Flood::continuation);
    if (eaten == NGHTTP2_ERR_FLOODED) trip(H2Flood::unread);
    if (eaten >= 0 && flood_ == H2Flood::none) return true;
    failed_ = true;
    terminate(flood_ == H2Flood::none ? H2Error::protocol_error : H2Error::enhance_your_calm);
    return false;
}

bool H2Session::count(H2Flood kind) { return floods_.count(kind, now_) || trip(kind); }

bool H2Session::trip(H2Flood kind) {
    if (flood_ == H2Flood::none) flood_ = kind;
    return false;
}

// Every frame, also what nghttp2 will pass over.
bool H2Session::judge(uint8_t type, uint8_t flags, size_t length, int32_t id) {
    if (reading_head_ && type != NGHTTP2_CONTINUATION) give_up_head(false);
    switch (type) {
        case NGHTTP2_DATA:
            return length > 0 || (flags & NGHTTP2_FLAG_END_STREAM) || count(H2Flood::empty_data);
        case NGHTTP2_HEADERS: {
            continuations_ = 0;
            bool closed = role_ == H2Role::server &&
                          id <= nghttp2_session_get_last_proc_stream_id(session_) && !find(id);
            return !closed || count(H2Flood::priority);
        }
        case NGHTTP2_CONTINUATION:
            return ++continuations_ <= most_continuations_ || trip(H2Flood::continuation);
        case NGHTTP2_RST_STREAM: {
            if (role_ == H2Role::client) return true;  // the server's way to say no
            const H2Stream* stream = find(id);
            return stream ? stream->answered_ || count(H2Flood::reset) : count(H2Flood::priority);
        }
        case NGHTTP2_PING:
            if (!(flags & NGHTTP2_FLAG_ACK)) return count(H2Flood::ping);
            if (pings_out_ == 0) return count(H2Flood::priority);  // nobody had asked
            --pings_out_;
            return true;
        case NGHTTP2_SETTINGS:
            return (flags & NGHTTP2_FLAG_ACK) ||
                   count(H2Flood::settings);  // nghttp2 takes one for each of ours
        case NGHTTP2_WINDOW_UPDATE: return count(H2Flood::window_update);
        case NGHTTP2_GOAWAY:
        case NGHTTP2_PUSH_PROMISE: return true;
        default: return count(H2Flood::priority);
    }
}

bool H2Session::take(const nghttp2_frame& frame) {
    H2Stream* stream = frame.hd.stream_id ? find(frame.hd.stream_id) : nullptr;
    switch (frame.hd.type) {
        case NGHTTP2_HEADERS: return take_head(frame, stream);
        case NGHTTP2_DATA:
            if (stream && (frame.hd.flags & NGHTTP2_FLAG_END_STREAM)) end_incoming(*stream);
            // Nothing but padding is nothing too.
            return frame.hd.length > frame.data.padlen || frame.hd.length == 0 ||
                   (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) || count(H2Flood::empty_data);
        case NGHTTP2_RST_STREAM: reset_by_them_ = frame.hd.stream_id; return true;
        case NGHTTP2_GOAWAY:
            user_.going_away(frame.goaway.last_stream_id, static_cast<H2Error>(frame.goaway.error_code));
            return true;
        case NGHTTP2_PING:
            if (frame.hd.flags & NGHTTP2_FLAG_ACK) user_.answered();
            return true;
        case NGHTTP2_SETTINGS:
            if (!(frame.hd.flags & NGHTTP2_FLAG_ACK))
                settings_came_ = true;
            else if (std::exchange(settings_heard_, true))
                user_.answered();
            return true;
        default: return true;
    }
}

bool H2Session::take_head(const nghttp2_frame& frame, H2Stream* stream) {
    H2Head head = head_.finish(frame.hd.flags & NGHTTP2_FLAG_END_STREAM);
    reading_head_ = false;
    int32_t id = frame.hd.stream_id;
    if (head_.kind() == H2HeadReader::Kind::request) {
        user_.request(id, head);
        stream = find(id);
        if (!stream)
            nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
        else if (!head.head.find("priority"))
            share(id);
    } else if (stream && head_.kind() == H2HeadReader::Kind::response) {
        stream->answered_ = !is_interim(head.head.status);
        if (!user_.response(*stream, head)) reset(*stream, H2Error::protocol_error);
    } else if (stream) {
        take_trailers(*stream, head);
    }
    if (stream && head.end) end_incoming(*stream);
    head_.clear();
    return true;
}

// nghttp2 resets the stream for a head that it does not like, and says no more of it: what could be read of
// a request still is one, so that it leaves a trace. `was_read`: to its end.
void H2Session::give_up_head(bool was_read) {
    reading_head_ = false;
    if (head_.kind() != H2HeadReader::Kind::request || role_ != H2Role::server) return;
    user_.request(head_of_, was_read ? head_.refuse() : head_.give_up());
    head_.clear();
}

// Who says nothing of priority shares the connection: without this nghttp2 sends stream after stream, as RFC
// 9218 has it, and a long answer would hold up the short ones.
void H2Session::share(int32_t id) {
    nghttp2_extpri priority{NGHTTP2_EXTPRI_DEFAULT_URGENCY, 1};
    nghttp2_session_change_extpri_stream_priority(session_, id, &priority, 0);
}

void H2Session::take_trailers(H2Stream& stream, H2Head& trailers) {
    Message* message = stream.incoming;
    if (!message || message->failed() || message->is_complete() || !message->has_head()) return;
    Rule rule = trailers.rule == Rule::ok ? check_trailers(trailers.head) : trailers.rule;
    if (rule != Rule::ok) return fail(stream, rule);
    if (trailers.head.field_count) message->trailers = copy_head(trailers.head, *stream.arena);
}

void H2Session::fail(H2Stream& stream, Rule rule) {
    stream.rule = rule;
    stream.incoming->fail(role_ == H2Role::server ? Cause::bad_request : Cause::bad_response);
    user_.moved(stream);
}

void H2Session::fill(H2Stream& stream, std::string_view bytes) {
    Message* message = stream.incoming;
    if (stream.discards) nghttp2_session_consume_stream(session_, stream.id_, bytes.size());
    if (!message || message->failed() || message->is_complete()) return;  // no credit for what nobody reads
    uint64_t total = message->body.total() + bytes.size();
    if (message->framing.declared == BodyKind::length && total > message->framing.length)
        return fail(stream, Rule::h2_body_differs);
    stream.withheld_ += static_cast<uint32_t>(bytes.size());
    if (message->filled() == Progress::head) message->fill_to(Progress::body);
    while (!bytes.empty() && !message->failed()) {
        std::string_view run = bytes.substr(0, large_chunk_bytes);
        bytes.remove_prefix(run.size());
        if (!message->body.try_copy(run)) message->fail(Cause::memory_full);
    }
    if (total > stream.most_body) message->fail(Cause::body_too_large);
    user_.moved(stream);
}

void H2Session::end_incoming(H2Stream& stream) {
    Message* message = stream.incoming;
    if (!message || message->failed() || message->is_complete() || !message->has_head()) return;
    const Framing& framing = message->framing;
    if (framing.body == BodyKind::length && message->body.total() != framing.length)
        return fail(stream, Rule::h2_body_differs);
    message->fill_to(Progress::complete);
    user_.moved(stream);
}

void H2Session::refill(H2Stream& stream) {
    if (!stream.is_open() || stream.withheld_ == 0) return;
    if (stream.discards) {
        nghttp2_session_consume_stream(session_, stream.id_, std::exchange(stream.withheld_, 0));
        return;
    }
    if (!stream.incoming) return;
    Message& message = *stream.incoming;
    if (message.is_complete() || message.failed()) return;
    // Who fills half a window a turn gets a larger one, as long as there is memory for it.
    uint32_t window = stream.window_;
    uint32_t on_its_way = window - std::min(window, stream.withheld_);
    uint32_t credit = stream.withheld_;
    uint32_t growth = std::min(window, H2Stream::most_window - window);
    if (credit >= window / 2 && growth > 0 && message.body.has_room(window + growth)) {
        credit += growth;
        stream.window_ += growth;
        stream.withheld_ += growth;
    }
    // Less, where there is less room: a body must be able to become full, since that is what it may wait for.
    while (credit > 0 && !message.body.has_room(on_its_way + credit))
        credit -= std::min<uint32_t>(credit, large_chunk_bytes);
    bool is_worth_a_frame = credit >= window / 2 || on_its_way < window / 4;
    if (credit == 0 || !is_worth_a_frame) return;
    nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, stream.id_, static_cast<int32_t>(credit));
    stream.withheld_ -= credit;
}

// --- what goes

bool H2Session::send() {
    while (!broken_ && user_.has_room()) {
        const uint8_t* bytes = nullptr;
        ssize_t size = nghttp2_session_mem_send(session_, &bytes);
        if (size < 0) failed_ = broken_ = true;
        if (size <= 0) break;
        user_.write({reinterpret_cast<const char*>(bytes), static_cast<size_t>(size)});
    }
    return !broken_;
}

bool H2Session::wants_send() const { return !broken_ && nghttp2_session_want_write(session_) != 0; }

bool H2Session::wants_input() const { return nghttp2_session_want_read(session_) != 0; }

bool H2Session::is_over() const { return !wants_send() && !wants_input(); }

bool H2Session::can_open() const {
    return !failed_ && nghttp2_session_check_request_allowed(session_) && open_streams_ < most_streams();
}

uint32_t H2Session::most_streams() const {
    return nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

void H2Session::bind(H2Stream& stream, int32_t id) {
    assert(!stream.is_open());
    nghttp2_session_set_stream_user_data(session_, id, &stream);
    stream.id_ = id;
    ++open_streams_;
}

bool H2Session::open(H2Stream& stream, const HeadEdit& edit, std::string_view scheme,
                     std::string_view authority, std::string_view protocol) {
    assert(role_ == H2Role::client && stream.outgoing && !stream.is_open());
    if (!can_open()) return false;
    Message& message = *stream.outgoing;
    H2Fields fields(memory_.fields());
    fields.request(message.head, edit, scheme, authority, protocol);
    nghttp2_data_provider body = bodies();
    bool ends = sends_nothing_more(message);
    int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(),
                                        ends ? nullptr : &body, &stream);
    if (id < 0) return false;
    stream.id_ = id;
    ++open_streams_;
    message.send_to(Progress::head);
    return true;
}

void H2Session::interim(H2Stream& stream, const Head& head) {
    if (!stream.is_open()) return;
    H2Fields fields(memory_.fields());
    fields.response(head, HeadEdit{});
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, stream.id_, nullptr, fields.data(), fields.size(),
                           nullptr);
}

void H2Session::respond(H2Stream& stream, const HeadEdit& edit, bool bodiless) {
    if (!stream.is_open()) return;
    Message& message = *stream.outgoing;
    H2Fields fields(memory_.fields());
    fields.response(message.head, edit);
    message.send_to(Progress::head);
    stream.answered_ = true;
    nghttp2_data_provider body = bodies();
    bool ends = bodiless || sends_nothing_more(message);
    nghttp2_submit_response(session_, stream.id_, fields.data(), fields.size(), ends ? nullptr : &body);
}

bool H2Session::submit_trailers(H2Stream& stream) {
    Message& message = *stream.outgoing;
    if (message.trailers.field_count == 0) return false;
    drop_trailer_hop(message.trailers, message.head);
    H2Fields fields(memory_.fields());
    fields.trailers(message.trailers);
    if (fields.size() == 0) return false;
    return nghttp2_submit_trailer(session_, stream.id_, fields.data(), fields.size()) == 0;
}

void H2Session::note_sent(H2Stream& stream) {
    Message* message = stream.outgoing;
    if (!stream.end_sent_ || !message || message->is_sent() || !message->is_complete()) return;
    message->send_to(Progress::complete);
    user_.moved(stream);
}

void H2Session::pump(H2Stream& stream) {
    note_sent(stream);
    if (!stream.is_open() || !stream.outgoing) return;
    const Message& message = *stream.outgoing;
    if (!stream.deferred_ || (message.body.unsent() == 0 && !message.is_complete())) return;
    stream.deferred_ = false;
    nghttp2_session_resume_data(session_, stream.id_);
}

void H2Session::reset(H2Stream& stream, H2Error code) {
    if (stream.is_open())
        nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream.id_, static_cast<uint32_t>(code));
}

void H2Session::forget(H2Stream& stream) {
    stream.incoming = stream.outgoing = nullptr;
    if (!stream.is_open()) return;
    nghttp2_session_set_stream_user_data(session_, stream.id_, nullptr);
    stream.id_ = 0;
    --open_streams_;
}

void H2Session::announce_end() {
    if (failed_) return;
    nghttp2_submit_shutdown_notice(session_);
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
}

void H2Session::end(H2Error code) {
    if (failed_) return;
    int32_t last = nghttp2_session_get_last_proc_stream_id(session_);
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, last, static_cast<uint32_t>(code), nullptr, 0);
}

void H2Session::ask() { nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0); }

void H2Session::terminate(H2Error code) {
    nghttp2_session_terminate_session(session_, static_cast<uint32_t>(code));
}

}  // namespace penstock
