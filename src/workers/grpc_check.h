// GrpcCheck asks one question of grpc.health.v1 on one HTTP/2 connection: does this service (of the name; all
// of the server where it is empty) serve? Bytes in, bytes out: whoever has the connection carries them
// (Probe). Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/memory.h"
#include "codec/h2_session.h"

namespace penstock {

class GrpcCheck final : H2User {
  public:
    GrpcCheck(std::string_view authority, std::string_view service, bool secure);
    ~GrpcCheck();
    GrpcCheck(const GrpcCheck&) = delete;
    GrpcCheck& operator=(const GrpcCheck&) = delete;

    std::string take_output();  // what is to be sent now
    void receive(std::string_view bytes, Time now);
    bool is_answered() const { return answered_; }
    bool is_good() const { return good_; }             // SERVING
    const std::string& text() const { return text_; }  // what it said: "Check ocr -> NOT_SERVING"

  private:
    bool response(H2Stream& stream, const H2Head& head) override;
    void moved(H2Stream& stream) override;
    void closed(H2Stream& stream, H2Error code, bool by_them) override;
    bool has_room() const override { return true; }
    void write(std::string_view bytes) override { out_ += bytes; }
    void link(const Piece& piece) override { out_ += piece.view(); }

    void judge();
    void answer(bool good, std::string_view text);

    const std::string service_;
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
