#include "base/log.h"

#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "base/line_writer.h"
#include "base/utf8.h"

using namespace penstock;

namespace {

struct Pipe {
    Pipe() { REQUIRE(pipe2(ends, O_CLOEXEC) == 0); }
    ~Pipe() { close_read(), close_write(); }
    void close_read() { shut(ends[0]); }
    void close_write() { shut(ends[1]); }
    static void shut(int& fd) {
        if (fd >= 0) close(fd);
        fd = -1;
    }
    std::string read_lines(size_t lines) {
        std::string text;
        char buffer[4096];
        while (static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) < lines) {
            ssize_t n = read(ends[0], buffer, sizeof(buffer));
            if (n <= 0) break;
            text.append(buffer, static_cast<size_t>(n));
        }
        return text;
    }
    int ends[2];
};

struct Folder {
    Folder() {
        char name[] = "/tmp/penstock_log_test.XXXXXX";
        path = mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
};

std::string contents(const std::filesystem::path& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
}

struct Logging {  // the program's log goes into a pipe while this lives
    Logging() { log::open(LineWriter::to_descriptor(pipe.ends[1])); }
    ~Logging() {
        log::close();
        log::set_level(log::Level::info);
    }
    Pipe pipe;
};

std::string message_of(const std::string& line) { return line.substr(line.find("Z ") + 2); }

}  // namespace

TEST_CASE("lines come out in the order in which they were put") {
    Pipe pipe;
    auto writer = LineWriter::to_descriptor(pipe.ends[1]);
    std::string all;
    for (int i = 0; i < 100; ++i) {
        std::string line = "line " + std::to_string(i) + "\n";
        CHECK(writer->put(line));
        all += line;
    }
    CHECK(pipe.read_lines(100) == all);
    CHECK(writer->dropped_lines() == 0);
}

TEST_CASE("a reader that stops reading costs lines, never time") {
    Pipe pipe;
    auto writer = LineWriter::to_descriptor(pipe.ends[1], 64 * 1024);
    std::string line(999, 'x');
    line += '\n';
    size_t taken = 0, dropped = 0;
    // Until the pipe is full, too: what fits into it is written at once.
    do {
        for (int i = 0; i < 100; ++i) writer->put(line) ? ++taken : ++dropped;
    } while (dropped == 0 || writer->flush(20ms));
    CHECK(writer->dropped_lines() == dropped);

    // The reader comes back: what was taken arrives whole, and new lines are taken.
    std::thread reader([&] { CHECK(pipe.read_lines(taken).size() == taken * line.size()); });
    CHECK(writer->flush(10s));
    reader.join();
    CHECK(writer->put("again\n"));
    CHECK(pipe.read_lines(1) == "again\n");
}

TEST_CASE("the end of a writer does not wait for a reader that has stopped reading") {
    Pipe pipe;
    auto writer = LineWriter::to_descriptor(pipe.ends[1]);
    for (int i = 0; i < 200; ++i) writer->put(std::string(999, 'x') + "\n");
    Time before = monotonic_now();
    writer.reset();
    CHECK(monotonic_now() - before < 10s);
    pipe.close_read();  // lets the thread that was left behind end, some time
    pipe.ends[1] = -1;  // so its descriptor stays open
}

TEST_CASE("lines for a reader that has gone are dropped and counted, and nothing dies") {
    Pipe pipe;
    pipe.close_read();
    auto writer = LineWriter::to_descriptor(pipe.ends[1]);
    CHECK(writer->put("a\nb\n", 2));
    CHECK(writer->flush(10s));
    CHECK(writer->dropped_lines() == 2);
    CHECK(writer->put("c\n"));
    CHECK(writer->flush(10s));
    CHECK(writer->dropped_lines() == 3);
}

TEST_CASE("a full disk costs lines and nothing else") {
    auto writer = LineWriter::open("/dev/full");
    REQUIRE(writer);
    (*writer)->put("a\nb\n", 2);
    CHECK((*writer)->flush(10s));
    CHECK((*writer)->dropped_lines() == 2);
}

TEST_CASE("a descriptor that is closed costs lines and nothing else") {
    auto writer = LineWriter::to_descriptor(1023);
    writer->put("a\n");
    CHECK(writer->flush(10s));
    CHECK(writer->dropped_lines() == 1);
}

TEST_CASE("a socket, as systemd gives for stdout, takes lines and may go away") {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    auto writer = LineWriter::to_descriptor(ends[0]);
    writer->put("hello\n");
    char buffer[16];
    CHECK(read(ends[1], buffer, sizeof(buffer)) == 6);
    close(ends[1]);
    writer->put("lost\n");
    CHECK(writer->flush(10s));
    CHECK(writer->dropped_lines() == 1);
    writer.reset();
    close(ends[0]);
}

TEST_CASE("reopening writes to a new file of the old name, and loses no line on the way") {
    Folder folder;
    auto file = folder.path / "access.log";
    auto writer = LineWriter::open(file);
    REQUIRE(writer);
    (*writer)->put("before\n");
    (*writer)->flush(10s);
    std::filesystem::rename(file, folder.path / "access.log.1");
    (*writer)->put("between\n");
    (*writer)->reopen();
    CHECK((*writer)->flush(10s));
    (*writer)->put("after\n");
    CHECK((*writer)->flush(10s));
    CHECK(contents(folder.path / "access.log.1") == "before\nbetween\n");
    CHECK(contents(file) == "after\n");
}

TEST_CASE("where reopening fails, the old file goes on") {
    Folder folder;
    std::filesystem::create_directory(folder.path / "logs");
    auto file = folder.path / "logs" / "access.log";
    auto writer = LineWriter::open(file);
    REQUIRE(writer);
    std::filesystem::rename(folder.path / "logs", folder.path / "moved");
    (*writer)->reopen();
    (*writer)->put("still here\n");
    CHECK((*writer)->flush(10s));
    CHECK(contents(folder.path / "moved" / "access.log") == "still here\n");
}

TEST_CASE("a log file is appended to") {
    Folder folder;
    auto file = folder.path / "a.log";
    for (const char* line : {"one\n", "two\n"}) {
        auto writer = LineWriter::open(file);
        REQUIRE(writer);
        (*writer)->put(line);
    }
    CHECK(contents(file) == "one\ntwo\n");
}

TEST_CASE("a log file that cannot be opened is named in the error") {
    auto writer = LineWriter::open("/nonexistent/access.log");
    REQUIRE_FALSE(writer);
    CHECK(writer.error().message ==
          "cannot open /nonexistent/access.log for appending: No such file or directory");
}

TEST_CASE("lines of several threads are whole") {
    Pipe pipe;
    auto writer = LineWriter::to_descriptor(pipe.ends[1]);
    std::vector<std::thread> threads;
    for (char name : {'a', 'b', 'c'})
        threads.emplace_back([&writer, name] {
            for (int i = 0; i < 500; ++i) writer->put(std::string(20, name) + "\n");
        });
    std::string text = pipe.read_lines(1500);
    for (auto& thread : threads) thread.join();
    std::istringstream lines(text);
    size_t whole = 0;
    for (std::string line; std::getline(lines, line);) whole += line == std::string(20, line[0]);
    CHECK(whole == 1500);
}

TEST_CASE("a log line has time, level and message") {
    Logging logging;
    log::warn("worker {} is {}", "ocr/0", 7);
    std::string line = logging.pipe.read_lines(1);
    CHECK(line.size() == std::string("2024-01-01T00:00:00.000Z warning worker ocr/0 is 7\n").size());
    CHECK(line[10] == 'T');
    CHECK(message_of(line) == "warning worker ocr/0 is 7\n");
}

TEST_CASE("no message makes a second line or moves the cursor of a terminal") {
    Logging logging;
    log::info("a\nb\r\x1b[2J\x7f\tend \xc2\x9b \xff h\xc3\xa9");
    CHECK(message_of(logging.pipe.read_lines(1)) ==
          "info a\\x0ab\\x0d\\x1b[2J\\x7f\tend \\xc2\\x9b \\xff h\xc3\xa9\n");
}

TEST_CASE("a message of any length is cut") {
    Logging logging;
    log::info("{}", std::string(100'000, 'x'));
    std::string line = logging.pipe.read_lines(1);
    CHECK(line.size() < 9000);
    CHECK(line.ends_with("xxx...\n"));
}

TEST_CASE("messages below the level are not written") {
    Logging logging;
    log::set_level(log::Level::warn);
    log::info("quiet");
    log::error("loud");
    CHECK(message_of(logging.pipe.read_lines(1)) == "error loud\n");
    CHECK(log::parse_level("debug") == log::Level::debug);
    CHECK_FALSE(log::parse_level("verbose"));
}

TEST_CASE("what is UTF-8 is told from what is not") {
    CHECK(first_code_point("a").size == 1);
    CHECK(first_code_point("\xc3\xa9").value == 0xe9);
    CHECK(first_code_point("\xf0\x9f\x9a\x80").value == 0x1f680);
    for (std::string_view bad : {"", "\x80", "\xc0\x80", "\xc3", "\xe2\x82", "\xed\xa0\x80",
                                 "\xf4\x90\x80\x80", "\xe0\x80\x80", "\xff", "\xc3("})
        CHECK(first_code_point(bad).size == 0);
}
