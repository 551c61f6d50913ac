// H2Session is one HTTP/2 connection's framing, compression and flow control, for both ends (nghttp2, by its
// memory functions only): bytes go in by receive(), in poll; frames come out by send(), in flush; between
// them a user says what is to happen, in advance. It owns no socket, no clock and no stream.
//
// Whoever uses it derives H2Stream and binds each to the two messages of an exchange. The session fills
// `incoming` with body, trailers and end, and drains `outgoing`; heads go through the user's callbacks. The
// callbacks come from inside receive() and send(): they may fill messages, bind and mark, no more.
//
// Flow control: connection credit is given back on receipt, so that one stream that stands still does not
// stop the others. Credit of a stream is withheld until its body has room for all that may then be on its way
// (refill()), so a body is never over its budget.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/time.h"
#include "codec/h1_writer.h"
#include "codec/h2_error.h"
#include "codec/h2_floods.h"
#include "codec/h2_head.h"
#include "codec/h2_memory.h"
#include "http/message.h"

namespace penstock {

class H2Session;

// One stream. Its user must forget() it before it dies, unless closed() came.
class H2Stream {
  public:
    // What is on its way to us before our first window update can stop it: two large chunks, which is what
    // every open body may hold for certain.
    static constexpr uint32_t first_window = 2 * large_chunk_bytes;
    static constexpr uint32_t most_window = 256 * 1024;

    int32_t id() const { return id_; }
    bool is_open() const { return id_ != 0; }
    bool all_sent() const { return end_sent_; }  // the end of what we send is on its way

    Message* incoming = nullptr;      // null: what comes is thrown away,
    bool discards = false;            // and credit given for it, so that the stream comes to its end
    Message* outgoing = nullptr;      // null: nothing is to be sent
    Arena* arena = nullptr;           // where trailers are kept
    uint64_t most_body = UINT64_MAX;  // that may come; more fails the message with body_too_large
    Rule rule = Rule::ok;             // why `incoming` failed with bad_request or bad_response

  private:
    friend class H2Session;
    int32_t id_ = 0;
    uint32_t window_ = first_window;
    uint32_t withheld_ = 0;  // received, and not credited yet
    bool deferred_ = false;  // nghttp2 waits for resume_data
    bool answered_ = false;  // client: the final head has come. Server: its head is on its way
    bool end_sent_ = false;
};

class H2User {
  public:
    // Server: a request has come. The head lives until the call returns. The user binds a stream of its own
    // (H2Session::bind) or lets it be: then it is refused, and the client may send it again. In flush too,
    // where nghttp2 has refused it by itself (H2Head::is_refused).
    virtual void request(int32_t id, const H2Head& request);
    // Client: a response's head, interim ones too. False: it breaks a rule; the stream is reset.
    virtual bool response(H2Stream& stream, const H2Head& response);
    // Something moved in one of the stream's messages: body, trailers, end, failure, or room.
    virtual void moved(H2Stream& stream) = 0;
    // The stream is gone, and its id with it. `by_them`: they reset it. Whether its messages are complete
    // says the rest. Both in poll and in flush.
    virtual void closed(H2Stream& stream, H2Error code, bool by_them) = 0;
    // The other end will open (client: answer) no stream above `last`. Those above are closed one by one,
    // with refused_stream: they were not looked at.
    virtual void going_away(int32_t last, H2Error code);
    // What we asked is answered: all that was sent before has been read.
    virtual void answered();
    // A reset of ours is on its way; nghttp2's own are among them.
    virtual void said_reset(H2Error code);

    // Output, in flush.
    virtual bool has_room() const = 0;
    virtual void write(std::string_view bytes) = 0;
    virtual void link(const Piece& piece) = 0;

  protected:
    ~H2User() = default;
};

enum class H2Role : uint8_t { server, client };

class H2Session {
  public:
    H2Session(H2Role role, const H2Limits& limits, H2Memory& memory, ChunkPool& chunks, H2User& user);
    ~H2Session();
    H2Session(const H2Session&) = delete;
    H2Session& operator=(const H2Session&) = delete;

    // --- poll. False: the connection is over; send() what is left and close it.
    bool receive(std::string_view bytes, Time now);

    // --- flush. Frames go to the user while it has room. False: the connection is broken.
    bool send();
    bool wants_send() const;
    bool wants_input() const;  // false: goodbye was said, and nothing is open; what comes is passed over
    bool is_over() const;      // and nothing is left to send
    bool is_reading_head() const { return reading_head_; }  // it has begun, and is not complete
    uint64_t heads_begun() const { return heads_begun_; }
    bool failed() const { return failed_; }
    H2Flood flood() const { return flood_; }  // what it was cut off for
    bool settings_came() const { return settings_came_; }

    // --- advance (bind also inside request())
    void bind(H2Stream& stream, int32_t id);
    // Client: opens a stream with the head of `outgoing` as edited. False: no stream can be opened now. The
    // head is sent, and the body follows by itself.
    bool open(H2Stream& stream, const HeadEdit& edit, std::string_view scheme, std::string_view authority,
              std::string_view protocol = {});
    bool can_open() const;
    uint32_t most_streams() const;  // that the other end allows
    void interim(H2Stream& stream, const Head& head);
    // Server: sends the head of `outgoing` as edited; its body and trailers follow by themselves. `bodiless`:
    // HEAD, 204, 304; what is in the body is then its user's to throw away.
    void respond(H2Stream& stream, const HeadEdit& edit, bool bodiless);
    void pump(H2Stream& stream);    // `outgoing` may have more to send
    void refill(H2Stream& stream);  // `incoming` may have room again
    void reset(H2Stream& stream, H2Error code);
    void forget(H2Stream& stream);  // cuts the link; the stream, if it is open, is its session's alone

    // Goodbye in two steps, so that no request is lost on its way: say that we go, and when the PING that
    // follows has come back (or the user has waited enough), which was the last one.
    void announce_end();
    void end(H2Error code = H2Error::no_error);
    // answered() once all that was sent before is read. By SETTINGS, which are acknowledged as a PING is:
    // gRPC servers count PINGs to which they have sent nothing, and end the connection at the fourth.
    void ask();
    void terminate(H2Error code);  // GOAWAY, and nothing else

    size_t open_streams() const { return open_streams_; }

  private:
    struct Callbacks;
    friend struct Callbacks;
    nghttp2_session* make(const H2Limits& limits);
    static nghttp2_data_provider bodies();  // pulls from `outgoing` of each stream
    bool count(H2Flood kind);
    bool trip(H2Flood kind);
    void end_incoming(H2Stream& stream);
    void fill(H2Stream& stream, std::string_view bytes);
    bool judge(uint8_t type, uint8_t flags, size_t length, int32_t id);
    bool take(const nghttp2_frame& frame);
    bool take_head(const nghttp2_frame& frame, H2Stream* stream);
    void give_up_head(bool was_read);
    void share(int32_t id);
    void note_sent(H2Stream& stream);
    void take_trailers(H2Stream& stream, H2Head& trailers);
    void fail(H2Stream& stream, Rule rule);
    bool submit_trailers(H2Stream& stream);
    H2Stream* find(int32_t id) const;

    const H2Role role_;
    H2User& user_;
    H2Memory& memory_;
    H2HeadReader head_;
    H2Floods floods_;
    const uint32_t most_continuations_;  // a head of the largest size fits in fewer
    nghttp2_session* const session_;
    Time now_{};
    size_t open_streams_ = 0;
    uint64_t heads_begun_ = 0;
    uint32_t continuations_ = 0;
    uint32_t pings_out_ = 0;  // ours, not answered yet
    int32_t head_of_ = 0;     // the stream whose head is being read
    int32_t reset_by_them_ = 0;
    H2Flood flood_ = H2Flood::none;
    bool reading_head_ = false;
    bool settings_came_ = false;   // theirs
    bool settings_heard_ = false;  // those that we sent first
    bool failed_ = false;          // nothing more is read
    bool broken_ = false;          // nothing more is written
};

}  // namespace penstock
