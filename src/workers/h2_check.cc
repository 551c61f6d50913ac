#include "workers/h2_check.h"

#include <fmt/format.h>
#include <utility>

#include "http/grpc.h"

namespace penstock {

namespace {

constexpr size_t frame_head_bytes = 5;  // of a gRPC message: a flag, and its length in four bytes
constexpr size_t most_service_name = 127;
constexpr size_t most_body = 64 * 1024;  // of what answers a GET: thrown away

constexpr H2Limits limits{.head_bytes = 16 * 1024, .fields = 100};

// HealthCheckRequest { string service = 1; }
std::string message_for(std::string_view service) {
    std::string message;
    if (!service.empty()) {
        message += '\x0a';
        message += static_cast<char>(service.size());
        message += service;
    }
    std::string framed(frame_head_bytes, '\0');
    framed.back() = static_cast<char>(message.size());
    return framed + message;
}

// HealthCheckResponse { ServingStatus status = 1; }: its number, 0 where the field is left out.
int serving_status(std::string_view body) {
    if (body.size() < frame_head_bytes || body[0] != 0) return -1;
    std::string_view message = body.substr(frame_head_bytes);
    if (message.empty()) return 0;
    return message.size() == 2 && message[0] == '\x08' ? static_cast<unsigned char>(message[1]) : -1;
}

std::string_view name_of(int status) {
    switch (status) {
        case 0: return "UNKNOWN";
        case 1: return "SERVING";
        case 2: return "NOT_SERVING";
        case 3: return "SERVICE_UNKNOWN";
        default: return "no HealthCheckResponse";
    }
}

}  // namespace

H2Check::H2Check(std::string_view authority, Question question, bool secure)
    : question_(std::move(question)),
      total_(256 * 1024, 1),
      session_(H2Role::client, limits, memory_, chunks_, *this) {
    std::string message;
    if (question_.grpc) message = message_for(question_.grpc->substr(0, most_service_name));
    ask(authority, secure, message);
}

void H2Check::ask(std::string_view authority, bool secure, std::string_view message) {
    HeadBuilder head(arena_);
    head.method(question_.grpc ? Method::post : Method::get);
    head.target(question_.grpc ? "/grpc.health.v1.Health/Check" : std::string_view(question_.path));
    if (question_.grpc) {
        head.add("content-type", "application/grpc");
        head.add("te", "trailers");
        request_.framing.body = BodyKind::chunked;
    } else {
        head.add("accept", "*/*");
        response_.body.discard();
    }
    head.add("user-agent", "penstock");
    request_.head = head.head();
    request_.fill_to(Progress::head);
    if (question_.grpc) {
        bool has_memory = request_.body.open(message.size(), message.size(), false) &&
                          response_.body.open(0, Body::unknown_length, false);
        if (!has_memory) return;  // not with a total of its own
        request_.body.copy(message);
    }
    request_.fill_to(Progress::complete);
    stream_.outgoing = &request_;
    stream_.incoming = &response_;
    stream_.arena = &arena_;
    session_.open(stream_, HeadEdit{}, secure ? "https" : "http", authority);
    session_.send();
}

H2Check::~H2Check() { session_.forget(stream_); }

std::string H2Check::take_output() {
    session_.send();
    return std::exchange(out_, {});
}

void H2Check::receive(std::string_view bytes, Time now) {
    bool good = session_.receive(bytes, now);
    session_.refill(stream_);
    session_.send();  // which is over where a GOAWAY has to be said
    if (!good || session_.is_over()) answer(false, "no HTTP/2 answer");
}

bool H2Check::response(H2Stream&, const H2Head& head) {
    if (is_interim(head.head.status)) return true;
    Framing framing;
    if (head.rule != Rule::ok ||
        frame_h2_response(head.head, {request_.head.method, false}, head.end, framing) != Rule::ok) {
        answer(false, "no legal HTTP/2 answer");
        return false;
    }
    response_.head = copy_head(head.head, arena_);
    response_.framing = framing;
    response_.fill_to(Progress::head);
    return true;
}

void H2Check::moved(H2Stream& stream) {
    if (&stream == &stream_ && response_.is_complete()) judge();
    if (response_.body.total() >= most_body) (void)settle();
    if (response_.failed()) answer(false, "no legal HTTP/2 answer");
}

void H2Check::closed(H2Stream&, H2Error code, bool) {
    answer(false, fmt::format("stream reset ({})", static_cast<uint32_t>(code)));
}

bool H2Check::settle() {
    if (!answered_ && !question_.grpc && response_.has_head()) judge();
    return answered_;
}

void H2Check::judge() {
    if (question_.grpc) return judge_service();
    uint16_t status = response_.head.status;
    bool good = question_.expect ? status == question_.expect : status >= 200 && status < 300;
    answer(good, fmt::format_int(status).str());
}

void H2Check::judge_service() {
    GrpcStatus status = grpc_status_of(response_.head, response_.trailers);
    if (status != GrpcStatus::ok) return answer(false, grpc_status_name(status));
    int serving = serving_status(response_.body.next());
    answer(serving == 1, name_of(serving));
}

void H2Check::answer(bool good, std::string_view text) {
    if (answered_) return;
    answered_ = true;
    good_ = good;
    text_ = fmt::format("{} -> {}", what(), text);
}

std::string H2Check::what() const {
    if (!question_.grpc) return "GET " + question_.path;
    return fmt::format("grpc.health.v1 Check{}{}", question_.grpc->empty() ? "" : " ", *question_.grpc);
}

}  // namespace penstock
