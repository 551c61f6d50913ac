#include "proxy/access_log.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/line_writer.h"

using namespace penstock;

namespace {

std::string line_of(const AccessRecord& record, LogFormat format) {
    std::string line(access_line_bound, '\0');
    line.resize(format_access_line(record, format, line.data()));
    return line;
}

AccessRecord usual_record() {
    AccessRecord r;
    r.unix_ns = 1'709'210'096'123'456'789;  // 2024-02-29
    r.client = "10.1.2.3";
    r.method = "POST";
    r.host = "ocr.example.com";
    r.target = "/process?x=1";
    r.protocol = "HTTP/1.1";
    r.status = 200;
    r.upstream = "ocr";
    r.backend = "ocr/0";
    r.request_id = "abc-1";
    r.user_agent = "hey/0.0.1";
    r.total = 1500ms;
    r.queue = 250us;
    r.backend_time = 1499750us;
    r.request_bytes = 17;
    r.response_bytes = 18231;
    r.attempts = 1;
    return r;
}

}  // namespace

TEST_CASE("a JSON line holds what is known, and leaves out what is not") {
    CHECK(
        line_of(usual_record(), LogFormat::json) ==
        R"({"time":"2024-02-29T12:34:56.123Z","client":"10.1.2.3","method":"POST","host":"ocr.example.com",)"
        R"("target":"/process?x=1","protocol":"HTTP/1.1","status":200,"upstream":"ocr","backend":"ocr/0",)"
        R"("attempts":1,"total_ms":1500.000,"queue_ms":0.250,"backend_ms":1499.750,"request_bytes":17,)"
        R"("response_bytes":18231,"request_id":"abc-1","user_agent":"hey/0.0.1"})"
        "\n");
}

TEST_CASE("a combined line is what Apache would have written") {
    AccessRecord r = usual_record();
    CHECK(line_of(r, LogFormat::combined) ==
          "10.1.2.3 - - [29/Feb/2024:12:34:56 +0000] \"POST /process?x=1 HTTP/1.1\" 200 18231 \"-\" "
          "\"hey/0.0.1\"\n");
    r.referer = "http://a/\"b";
    CHECK(line_of(r, LogFormat::combined).find("\"http://a/\\x22b\" \"hey") != std::string::npos);
}

TEST_CASE("a client who left shows with the step it left in") {
    AccessRecord r = usual_record();
    r.status = 499;
    r.reason = "client_gone";
    r.ended_by = "client";
    r.step = "slot";
    auto json = nlohmann::json::parse(line_of(r, LogFormat::json));
    CHECK(json["status"] == 499);
    CHECK(json["reason"] == "client_gone");
    CHECK(json["ended_by"] == "client");
    CHECK(json["step"] == "slot");
}

TEST_CASE("nothing that a client sends gets out of its field") {
    AccessRecord r = usual_record();
    std::string all;
    for (int c = 1; c < 256; ++c) all.push_back(static_cast<char>(c));
    r.target = all;
    r.user_agent = "x\",\"status\":200,\"y\":\"\r\n{\"time\":\"\xc2\x9b\xf0\x9f\x9a\x80";
    for (LogFormat format : {LogFormat::json, LogFormat::combined}) {
        std::string line = line_of(r, format);
        CHECK(line.find('\n') == line.size() - 1);
        for (size_t i = 0; i + 1 < line.size(); ++i) CHECK(static_cast<unsigned char>(line[i]) >= 0x20);
    }
    auto json = nlohmann::json::parse(line_of(r, LogFormat::json));
    CHECK(json["user_agent"] == "x\",\"status\":200,\"y\":\"\r\n{\"time\":\"\u009b\U0001f680");
    std::string target = json["target"];
    CHECK(target.starts_with("\x01\x02"));
    CHECK(target.ends_with("\u00ff"));
}

TEST_CASE("a byte that needs an escape is found wherever it stands") {
    for (int c = 1; c < 256; ++c)
        for (size_t at = 0; at < 20; ++at) {
            std::string value(20, 'x');
            value[at] = static_cast<char>(c);
            AccessRecord r;
            r.target = value;
            auto json = nlohmann::json::parse(line_of(r, LogFormat::json));
            std::string shown = json["target"];
            // A lone byte beyond ASCII shows as the character of that number, which has two bytes.
            std::string expected = c < 0x80 ? value
                                            : value.substr(0, at) + static_cast<char>(0xc0 | c >> 6) +
                                                  static_cast<char>(0x80 | (c & 0x3f)) + value.substr(at + 1);
            REQUIRE(shown == expected);
        }
}

TEST_CASE("the longest values in their worst form fit the bound, and say that they were cut") {
    std::string huge(100'000, '\x80');
    AccessRecord r = usual_record();
    for (std::string_view* field :
         {&r.client, &r.method, &r.host, &r.target, &r.protocol, &r.reason, &r.rule, &r.upstream, &r.backend,
          &r.route, &r.model, &r.request_id, &r.ended_by, &r.step, &r.user_agent, &r.referer})
        *field = huge;
    for (Duration* d : {&r.total, &r.queue, &r.backend_time, &r.first_byte}) *d = Duration::max();
    r.request_bytes = r.response_bytes = UINT64_MAX;
    r.attempts = UINT32_MAX;
    r.unix_ns = INT64_MAX;
    for (LogFormat format : {LogFormat::json, LogFormat::combined}) {
        std::string line = line_of(r, format);  // the sanitizer sees a step too far
        CHECK(line.size() < access_line_bound);
        CHECK(line.find("...") != std::string::npos);
    }
    CHECK(nlohmann::json::accept(line_of(r, LogFormat::json)));
}

TEST_CASE("dates are those of the calendar") {
    AccessRecord r;
    auto time_at = [&r](int64_t unix_s) {
        r.unix_ns = unix_s * 1'000'000'000;
        return line_of(r, LogFormat::json).substr(9, 24);
    };
    CHECK(time_at(0) == "1970-01-01T00:00:00.000Z");
    CHECK(time_at(951'782'399) == "2000-02-28T23:59:59.000Z");
    CHECK(time_at(951'782'400) == "2000-02-29T00:00:00.000Z");
    CHECK(time_at(1'735'689'599) == "2024-12-31T23:59:59.000Z");
    CHECK(time_at(4'107'542'400) == "2100-03-01T00:00:00.000Z");
}

TEST_CASE("lines are handed over a quarter of a second after the first, not one by one") {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    {
        auto writer = LineWriter::to_descriptor(ends[1]);
        Turn turn(Time(1s));
        AccessLines lines(turn, *writer, LogFormat::json);
        char buffer[4096];
        lines.add(usual_record());
        turn.run(Time(1100ms));
        lines.add(usual_record());
        turn.run(Time(1249ms));
        writer->flush(10s);
        CHECK(read(ends[0], buffer, sizeof(buffer)) < 0);
        turn.run(Time(1251ms));
        writer->flush(10s);
        CHECK(read(ends[0], buffer, sizeof(buffer)) ==
              static_cast<ssize_t>(2 * line_of(usual_record(), LogFormat::json).size()));
        CHECK(turn.next() == never);

        lines.add(usual_record());
    }  // the rest comes at the end
    char buffer[4096];
    CHECK(read(ends[0], buffer, sizeof(buffer)) > 0);
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("a full buffer is handed over at once, and what the writer has no room for is counted") {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    {
        auto writer = LineWriter::to_descriptor(ends[1], 200 * 1024);
        Turn turn(Time(1s));
        AccessLines lines(turn, *writer, LogFormat::json);
        size_t added = 0;
        while (writer->dropped_lines() == 0) {
            lines.add(usual_record());
            REQUIRE(++added < 100'000);
        }
        CHECK(added > 100);
        close(ends[0]);
    }
    close(ends[1]);
}

TEST_CASE("an access log that is off writes nothing") {
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    {
        auto writer = LineWriter::to_descriptor(ends[1]);
        Turn turn(Time(1s));
        AccessLines lines(turn, *writer, LogFormat::off);
        lines.add(usual_record());
        CHECK(turn.next() == never);
    }
    close(ends[1]);
    char c;
    CHECK(read(ends[0], &c, 1) == 0);
    close(ends[0]);
}
