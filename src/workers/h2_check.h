// H2Check asks one question on one HTTP/2 connection: does a GET of this path answer as expected, or does
// grpc.health.v1 say that this service (of the name; all of the server where it is empty) serves? Bytes in,
// bytes out: whoever has the connection carries them (Probe). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/memory.h"
#include "codec/h2_session.h"

namespace penstock {

class H2Check final : H2User {
  public:
    struct Question {
        std::string path = {};
        uint16_t expect = 0;                   // the status; 0: any 2xx
        std::optional<std::string> grpc = {};  // instead of a path: the service
    };

    H2Check(std::string_view authority, Question question, bool secure);
    ~H2Check();
    H2Check(const H2Check&) = delete;
    H2Check& operator=(const H2Check&) = delete;

    std::string take_output();  // what is to be sent now
    void receive(std::string_view bytes, Time now);
    // Nothing more will come, or is waited for. True: what has come is answer enough.
    bool settle();
    bool is_answered() const { return answered_; }
    bool is_good() const { return good_; }
    // What it said: "GET /health -> 503", "grpc.health.v1 Check ocr -> NOT_SERVING".
    const std::string& text() const { return text_; }
    std::string what() const;  // that was asked

  private:
    bool response(H2Stream& stream, const H2Head& head) override;
    void moved(H2Stream& stream) override;
    void closed(H2Stream& stream, H2Error code, bool by_them) override;
    bool has_room() const override { return true; }
    void write(std::string_view bytes) override { out_ += bytes; }
    void link(const Piece& piece) override { out_ += piece.view(); }

    void ask(std::string_view authority, bool secure, std::string_view message);
    void judge();
    void judge_service();
    void answer(bool good, std::string_view text);

    const Question question_;
    MemoryTotal total_;
    MemoryAccount account_{total_};
    ChunkPool chunks_;
    H2Memory memory_;
    Arena arena_{chunks_, nullptr, 0};
    Message request_{chunks_, account_};
    Message response_{chunks_, account_};
    H2Session session_;
    H2Stream stream_;
    std::string out_;
    std::string text_;
    bool answered_ = false;
    bool good_ = false;
};

}  // namespace penstock
