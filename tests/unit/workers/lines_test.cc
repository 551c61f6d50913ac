#include "workers/lines.h"

#include <doctest/doctest.h>
#include <string>
#include <vector>

using namespace penstock;

namespace {

struct Lines {
    void feed(std::string_view bytes) {
        cutter.feed(bytes, [this](std::string_view line) { lines.emplace_back(line); });
    }
    void finish() {
        cutter.finish([this](std::string_view line) { lines.emplace_back(line); });
    }
    LineCutter cutter;
    std::vector<std::string> lines;
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("lines come out whole however their bytes were split") {
    const std::string bytes = "one\ntwo\r\n\nthree\n";
    for (size_t step = 1; step <= bytes.size(); ++step) {
        Lines lines;
        for (size_t at = 0; at < bytes.size(); at += step) lines.feed(bytes.substr(at, step));
        CHECK(lines.lines == Texts{"one", "two", "", "three"});
        CHECK(lines.cutter.is_empty());
    }
}

TEST_CASE("what has no newline at the end of the stream is a line") {
    Lines lines;
    lines.feed("Traceback\nlast words");
    CHECK(lines.lines == Texts{"Traceback"});
    CHECK_FALSE(lines.cutter.is_empty());
    lines.finish();
    CHECK(lines.lines == Texts{"Traceback", "last words"});
}

TEST_CASE("of a progress bar only its last state is a line") {
    Lines lines;
    lines.feed("loading 1%\rloading 50%\rload");
    lines.feed("ing 100%\ndone\n");
    CHECK(lines.lines == Texts{"loading 100%", "done"});
}

TEST_CASE("a line longer than the bound is cut and says by how much") {
    Lines lines;
    lines.feed(std::string(LineCutter::longest_line, 'a') + "\n");
    lines.feed(std::string(LineCutter::longest_line, 'b'));
    lines.feed("ccc");
    lines.feed("dd\nnext\n");
    REQUIRE(lines.lines.size() == 3);
    CHECK(lines.lines[0] == std::string(LineCutter::longest_line, 'a'));
    CHECK(lines.lines[1] == std::string(LineCutter::longest_line, 'b') + "... [5 bytes cut]");
    CHECK(lines.lines[2] == "next");
}

TEST_CASE("the last lines are kept in order and older ones are forgotten") {
    LastLines last;
    CHECK(last.text() == "");
    for (int i = 0; i < 25; ++i) last.add("line " + std::to_string(i));
    CHECK(last.text(2) == "\"line 23\" | \"line 24\"");
    CHECK(last.text().starts_with("\"line 15\" | "));
    last.add("   ");
    CHECK(last.text(1) == "\"line 24\"");
}

TEST_CASE("the last lines are short clean text whatever the worker wrote") {
    LastLines last;
    last.add("a\tb \x1b[31mred\x1b[0m \xff\xfe \xc3\xa4");
    CHECK(last.text() == "\"a b ?[31mred?[0m ?? \xc3\xa4\"");
    last.add(std::string(1000, 'x'));
    CHECK(last.text(1) == "\"" + std::string(LastLines::line_bytes, 'x') + "...\"");
}
