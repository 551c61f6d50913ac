// H2Session's conversation with nghttp2: how a session is made, and what is called inside receive() and
// send(). Each call finds its session and stream and says the same in H2Session's words.
#include <algorithm>
#include <new>

#include "codec/h2_session.h"

namespace penstock {

namespace {

std::string_view view(const uint8_t* bytes, size_t size) {
    return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace

struct H2Session::Callbacks {
    static H2Session& self(void* user) { return *static_cast<H2Session*>(user); }

    static int begin_frame(nghttp2_session*, const nghttp2_frame_hd* hd, void* user) {
        return self(user).judge(hd->type, hd->flags, hd->length, hd->stream_id)
                   ? 0
                   : NGHTTP2_ERR_CALLBACK_FAILURE;
    }

    static int begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
        H2Session& session = self(user);
        const H2Stream* stream = session.find(frame->hd.stream_id);
        auto kind = H2HeadReader::Kind::trailers;
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            kind = H2HeadReader::Kind::request;
        else if (session.role_ == H2Role::client && stream && !stream->answered_)
            kind = H2HeadReader::Kind::response;
        session.head_.begin(kind);
        session.reading_head_ = true;
        ++session.heads_begun_;
        session.head_of_ = frame->hd.stream_id;
        return 0;
    }

    static int header(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user) {
        H2Session& session = self(user);
        if (session.head_.add(view(name, name_size), view(value, value_size))) return 0;
        session.trip(H2Flood::header_bomb);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }

    // Our rules say what is wrong with it, so that it can be answered; where they do not, the stream is
    // reset.
    static int invalid_header(nghttp2_session* nghttp2, const nghttp2_frame* frame, const uint8_t* name,
                              size_t name_size, const uint8_t* value, size_t value_size, uint8_t flags,
                              void* user) {
        int status = header(nghttp2, frame, name, name_size, value, value_size, flags, user);
        H2Session& session = self(user);
        // Else the rest is passed over.
        return status != 0 || !session.head_.is_good() ? status : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }

    static int frame_received(nghttp2_session*, const nghttp2_frame* frame, void* user) {
        return self(user).take(*frame) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    }

    static int invalid_frame(nghttp2_session*, const nghttp2_frame* frame, int error, void* user) {
        H2Session& session = self(user);
        if (session.reading_head_ && frame->hd.stream_id == session.head_of_) session.give_up_head(true);
        auto kind = error == NGHTTP2_ERR_REFUSED_STREAM ? H2Flood::reset : H2Flood::provoked_reset;
        return session.count(kind) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    }

    static int data(nghttp2_session* nghttp2, uint8_t, int32_t id, const uint8_t* bytes, size_t size,
                    void* user) {
        H2Session& session = self(user);
        nghttp2_session_consume_connection(nghttp2, size);
        if (H2Stream* stream = session.find(id)) session.fill(*stream, view(bytes, size));
        return 0;
    }

    static int stream_closed(nghttp2_session*, int32_t id, uint32_t code, void* user) {
        H2Session& session = self(user);
        bool by_them = session.reset_by_them_ == id;
        session.reset_by_them_ = 0;
        if (session.reading_head_ && id == session.head_of_) session.give_up_head(false);
        // These are nghttp2's words for what the other end did wrong; we say others.
        if (!by_them && is_provoked(H2Error(code)) && session.role_ == H2Role::server)
            (void)session.count(H2Flood::provoked_reset);
        H2Stream* stream = session.find(id);
        if (!stream) return 0;
        stream->id_ = 0;
        --session.open_streams_;
        session.user_.closed(*stream, static_cast<H2Error>(code), by_them);
        return 0;
    }

    static ssize_t read(nghttp2_session*, int32_t id, uint8_t*, size_t most, uint32_t* flags,
                        nghttp2_data_source*, void* user) {
        H2Stream* stream = self(user).find(id);
        // Its user has left; a reset is on its way.
        if (!stream || !stream->outgoing || stream->outgoing->failed()) return NGHTTP2_ERR_DEFERRED;
        Message& message = *stream->outgoing;
        size_t unsent = message.body.unsent();
        if (unsent == 0 && !message.is_complete()) {
            stream->deferred_ = true;
            return NGHTTP2_ERR_DEFERRED;
        }
        if (unsent <= most && message.is_complete()) {
            *flags |= NGHTTP2_DATA_FLAG_EOF;
            if (self(user).submit_trailers(*stream)) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        }
        if (unsent > 0) *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
        return static_cast<ssize_t>(std::min(unsent, most));
    }

    // Links the bytes of a DATA frame where they lie.
    static int send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                         nghttp2_data_source*, void* user) {
        H2Session& session = self(user);
        constexpr size_t frame_head_bytes = 9;
        session.user_.write(view(head, frame_head_bytes));
        H2Stream& stream = *session.find(frame->hd.stream_id);
        Message& message = *stream.outgoing;
        while (size > 0) {
            Piece piece = message.body.next_piece();
            if (piece.size() > size) piece.end = piece.begin + static_cast<uint32_t>(size);
            session.user_.link(piece);
            message.body.sent(piece.size());
            size -= piece.size();
        }
        if (message.sent() == Progress::head) message.send_to(Progress::body);
        session.user_.moved(stream);
        return session.user_.has_room() ? 0 : NGHTTP2_ERR_PAUSE;
    }

    static int frame_sent(nghttp2_session*, const nghttp2_frame* frame, void* user) {
        if (frame->hd.type == NGHTTP2_DATA) self(user).floods_.sent_data();
        if (frame->hd.type == NGHTTP2_PING && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) ++self(user).pings_out_;
        if (frame->hd.type == NGHTTP2_RST_STREAM)
            self(user).user_.said_reset(H2Error(frame->rst_stream.error_code));
        bool ends = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
                    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
        if (!ends) return 0;
        H2Session& session = self(user);
        H2Stream* stream = session.find(frame->hd.stream_id);
        if (!stream) return 0;
        stream->end_sent_ = true;
        session.note_sent(*stream);
        return 0;
    }

    // nghttp2 closes the stream of a request that it cannot send; an answer's it would leave as it is.
    static int frame_not_sent(nghttp2_session* nghttp2, const nghttp2_frame* frame, int error, void* user) {
        bool lost = frame->hd.type == NGHTTP2_HEADERS && self(user).role_ == H2Role::server &&
                    error == NGHTTP2_ERR_FRAME_SIZE_ERROR;
        if (lost)
            nghttp2_submit_rst_stream(nghttp2, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                      NGHTTP2_INTERNAL_ERROR);
        return 0;
    }

    static const nghttp2_session_callbacks* all() {
        static const nghttp2_session_callbacks* const callbacks = [] {
            nghttp2_session_callbacks* made = nullptr;
            if (nghttp2_session_callbacks_new(&made) != 0) throw std::bad_alloc();
            nghttp2_session_callbacks_set_on_begin_frame_callback(made, begin_frame);
            nghttp2_session_callbacks_set_on_begin_headers_callback(made, begin_headers);
            nghttp2_session_callbacks_set_on_header_callback(made, header);
            nghttp2_session_callbacks_set_on_invalid_header_callback(made, invalid_header);
            nghttp2_session_callbacks_set_on_frame_recv_callback(made, frame_received);
            nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(made, invalid_frame);
            nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, data);
            nghttp2_session_callbacks_set_on_stream_close_callback(made, stream_closed);
            nghttp2_session_callbacks_set_send_data_callback(made, send_data);
            nghttp2_session_callbacks_set_on_frame_send_callback(made, frame_sent);
            nghttp2_session_callbacks_set_on_frame_not_send_callback(made, frame_not_sent);
            return made;
        }();
        return callbacks;
    }
};

nghttp2_data_provider H2Session::bodies() { return {{}, Callbacks::read}; }

nghttp2_session* H2Session::make(const H2Limits& limits) {
    nghttp2_option* option = nullptr;
    if (nghttp2_option_new(&option) != 0) throw std::bad_alloc();
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    // It counts each piece of a frame's head of 9 bytes as one; we count frames.
    nghttp2_option_set_max_continuations(option, 9 * (most_continuations_ + 2));
    // It reckons 12 bytes a field beside name and value: the smallest of HTTP/1, 4 bytes, comes to 13. And
    // there are those that we add.
    nghttp2_option_set_max_send_header_block_length(option, 4 * size_t(limits.head_bytes) + 64 * 1024);
    nghttp2_option_set_max_reserved_remote_streams(option, 0);
    // Ours counts by the turn's clock, and only what was in vain.
    nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX / 2, UINT64_MAX / 2);
    auto* make = role_ == H2Role::server ? nghttp2_session_server_new3 : nghttp2_session_client_new3;
    nghttp2_session* made = nullptr;
    int status = make(&made, Callbacks::all(), this, option, memory_.functions());
    nghttp2_option_del(option);
    if (status != 0) throw std::bad_alloc();
    return made;
}

}  // namespace penstock
