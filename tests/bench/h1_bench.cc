// What reading and writing one HTTP/1 head costs, with llhttp beside it on the same bytes. Ours frames the
// message and finds its fields' ids as well; llhttp only calls back.
//   cmake --preset release -DPENSTOCK_BENCH=ON && ninja -C build/release h1_bench &&
//   build/release/tests/bench/h1_bench
#include <benchmark/benchmark.h>
#include <llhttp/llhttp.h>
#include <string>

#include "base/arena.h"
#include "codec/h1_reader.h"
#include "codec/h1_writer.h"
#include "http/forward.h"
#include "http/target.h"

using namespace penstock;

namespace {

// About 300 bytes, as a Python client with a token sends it.
constexpr std::string_view typical =
    "POST /v2/models/resnet50/infer HTTP/1.1\r\n"
    "Host: inference.example.com:8000\r\n"
    "User-Agent: python-requests/2.28.1\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept: */*\r\n"
    "Connection: keep-alive\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 1234\r\n"
    "Authorization: Bearer 0123456789abcdef0123456789abcdef0123456\r\n"
    "X-Request-Id: 8448eb21\r\n\r\n";

constexpr std::string_view smallest = "GET / HTTP/1.1\r\nHost: a.example:8000\r\n\r\n";

constexpr std::string_view response =
    "HTTP/1.1 200 OK\r\n"
    "date: Tue, 04 Aug 2026 12:00:00 GMT\r\n"
    "server: uvicorn\r\n"
    "content-length: 1234\r\n"
    "content-type: application/json\r\n\r\n";

void read_request(benchmark::State& state, std::string_view bytes) {
    H1Limits limits;
    Field room[100];
    for (auto _ : state) {
        H1RequestReader reader;
        Head head;
        ReadStep step = reader.read(bytes, limits, room, head);
        benchmark::DoNotOptimize(step);
        benchmark::DoNotOptimize(room);
    }
    state.SetBytesProcessed(int64_t(state.iterations()) * int64_t(bytes.size()));
}

void read_request_in_two(benchmark::State& state, std::string_view bytes) {
    H1Limits limits;
    Field room[100];
    for (auto _ : state) {
        H1RequestReader reader;
        Head head;
        benchmark::DoNotOptimize(reader.read(bytes.substr(0, bytes.size() / 2), limits, room, head));
        benchmark::DoNotOptimize(reader.read(bytes, limits, room, head));
    }
}

void read_response(benchmark::State& state) {
    H1Limits limits;
    Field room[100];
    for (auto _ : state) {
        H1ResponseReader reader;
        Head head;
        benchmark::DoNotOptimize(reader.read(response, limits, {}, room, head));
        benchmark::DoNotOptimize(room);
    }
}

void llhttp_request(benchmark::State& state, std::string_view bytes) {
    llhttp_settings_t settings;
    llhttp_settings_init(&settings);
    settings.on_url = settings.on_header_field =
        settings.on_header_value = [](llhttp_t*, const char* at, size_t size) {
            benchmark::DoNotOptimize(at + size);
            return 0;
        };
    for (auto _ : state) {
        llhttp_t parser;
        llhttp_init(&parser, HTTP_REQUEST, &settings);
        benchmark::DoNotOptimize(llhttp_execute(&parser, bytes.data(), bytes.size()));
    }
}

// All that happens to a request head on its way: read, copied, routed, shaped, written.
void forward_request(benchmark::State& state, std::string_view bytes) {
    ChunkPool pool;
    alignas(16) char first[4096];
    H1Limits limits;
    Field room[100];
    char out[4096];
    ClientFacts client{.connected = "192.0.2.1", .address = "192.0.2.1", .port = "8000"};
    for (auto _ : state) {
        Arena arena(pool, first, sizeof first);
        H1RequestReader reader;
        Head head;
        if (reader.read(bytes, limits, room, head) != ReadStep::complete) state.SkipWithError("refused");
        Head kept = copy_head(head, arena);
        Target target;
        parse_target(kept.method, kept.target(), target);
        char path[256];
        size_t path_size;
        routing_path(target.path, path, path_size);
        drop_request_hop(kept, false);
        FieldLine add[max_forwarding_fields];
        size_t count = forwarding_fields(kept, client, arena, add);
        HeadEdit edit{
            .add = {add, count}, .declare = reader.framing().declared, .length = reader.framing().length};
        if (head_bound(kept, edit) > sizeof out) state.SkipWithError("too long");
        benchmark::DoNotOptimize(write_request_head(kept, edit, out));
        benchmark::ClobberMemory();
    }
}

void find_field_ids(benchmark::State& state) {
    constexpr std::string_view names[] = {"Host",           "User-Agent", "Accept", "X-Forwarded-For",
                                          "Content-Length", "X-Custom"};
    for (auto _ : state) {
        for (std::string_view name : names) benchmark::DoNotOptimize(field_id(name));
    }
}

BENCHMARK_CAPTURE(read_request, smallest, smallest);
BENCHMARK_CAPTURE(read_request, typical, typical);
BENCHMARK_CAPTURE(read_request_in_two, typical, typical);
BENCHMARK_CAPTURE(llhttp_request, smallest, smallest);
BENCHMARK_CAPTURE(llhttp_request, typical, typical);
BENCHMARK(read_response);
BENCHMARK_CAPTURE(forward_request, typical, typical);
BENCHMARK(find_field_ids);

}  // namespace
