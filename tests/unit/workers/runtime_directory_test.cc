#include "workers/runtime_directory.h"

#include <doctest/doctest.h>
#include <set>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "scaffold.h"

using namespace penstock;
using namespace penstock::testing;

namespace {

Descriptor listen_at(const std::string& path) {
    Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    path.copy(address.sun_path, path.size());
    REQUIRE(::bind(socket.number(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return socket;
}

bool is_there(const std::string& path) { return std::filesystem::exists(path); }

}  // namespace

TEST_CASE("the folder is private and is gone with its sockets at the end") {
    Folder place;
    std::string path, socket;
    {
        auto directory = RuntimeDirectory::make({place.path()});
        REQUIRE(directory);
        path = directory->path();
        socket = directory->socket("ocr", 0, 1);
        CHECK(socket == path + "/ocr-0-1");
        struct stat found {};
        REQUIRE(::stat(path.c_str(), &found) == 0);
        CHECK((found.st_mode & 0777) == 0700);
        listen_at(socket);
        CHECK(is_there(socket));
    }
    CHECK_FALSE(is_there(socket));
    CHECK_FALSE(is_there(path));
}

TEST_CASE("the first place that is usable is used and the error names them all") {
    Folder place;
    auto directory = RuntimeDirectory::make({"/no/such/place", place.path()});
    REQUIRE(directory);
    CHECK(directory->path().starts_with(place.path() + "/penstock."));

    auto none = RuntimeDirectory::make({"/no/such/place", "/" + std::string(100, 'x')});
    REQUIRE_FALSE(none);
    CHECK(none.error().message.find("/no/such/place: No such file or directory") != std::string::npos);
    CHECK(none.error().message.find("too long a path for a unix socket") != std::string::npos);
}

TEST_CASE("what a killed penstock left is removed and what a living one uses is not") {
    Folder place;
    auto living = RuntimeDirectory::make({place.path()});
    REQUIRE(living);
    std::string dead = place / "penstock.abcdef", strange = place / "penstock.theirs";
    std::string other = place / "penstock-mine", file = place / "penstock.file00";
    for (const std::string& path : {dead, strange, other}) ::mkdir(path.c_str(), 0700);
    listen_at(dead + "/ocr-0-1");
    ::chmod(strange.c_str(), 0755);  // not as we make them
    std::ofstream(file) << "x";

    auto next = RuntimeDirectory::make({place.path()});
    REQUIRE(next);
    CHECK(next->path() != living->path());
    CHECK(is_there(living->path()));
    CHECK_FALSE(is_there(dead));
    CHECK(is_there(strange));
    CHECK(is_there(other));
    CHECK(is_there(file));
}

TEST_CASE("a socket's path always fits and is never given twice") {
    Folder place;
    auto directory = RuntimeDirectory::make({place.path()});
    REQUIRE(directory);
    std::set<std::string> paths;
    for (unsigned generation = 1; generation <= 3; ++generation) {
        for (const std::string& name : {std::string("ocr"), std::string(200, 'n')}) {
            std::string path = directory->socket(name, 7, generation);
            CHECK(path.size() <= 107);
            CHECK(paths.insert(path).second);
        }
    }
    CHECK(directory->socket("a/b c", 0, 1) == directory->path() + "/a-b-c-0-1");
}
