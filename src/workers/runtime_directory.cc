#include "workers/runtime_directory.h"

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace penstock {

namespace {

constexpr std::string_view prefix = "penstock.";
constexpr size_t name_size = prefix.size() + 6;  // what mkdtemp() puts behind it
constexpr size_t longest_unix_path = 107;
constexpr size_t shortest_socket = 6;  // "/12345": what must fit behind the folder in any case

// Ours by lock and by name: nobody else has replaced the folder since it was opened.
bool is_still(const Descriptor& directory, const std::string& path) {
    struct stat opened {
    }, named{};
    return ::fstat(directory.number(), &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
           opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

Descriptor lock_directory(const std::string& path) {
    Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (directory && ::flock(directory.number(), LOCK_EX | LOCK_NB) == 0 && is_still(directory, path)) {
        return directory;
    }
    return {};
}

// Only sockets and the folder itself: what else lies there is not ours.
void remove_directory(const std::string& path) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
        if (entry.is_socket(ignored)) ::unlink(entry.path().c_str());
    }
    ::rmdir(path.c_str());
}

void remove_stale(const std::string& place) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(place, error)) {
        std::string path = entry.path(), name = entry.path().filename();
        struct stat found {};
        if (!name.starts_with(prefix) || name.size() != name_size || ::lstat(path.c_str(), &found) != 0)
            continue;
        // With this name, these rights and this owner it is one of ours.
        if (!S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() || (found.st_mode & 0777) != 0700)
            continue;
        if (Descriptor lock = lock_directory(path)) remove_directory(path);
    }
}

}  // namespace

std::vector<std::string> RuntimeDirectory::usual_places() {
    std::vector<std::string> places;
    if (const char* given = std::getenv("RUNTIME_DIRECTORY")) {  // systemd: several, divided by colons
        std::string first(given, std::strcspn(given, ":"));
        if (first.starts_with('/')) places.push_back(first);
    }
    if (const char* given = std::getenv("XDG_RUNTIME_DIR"); given && *given == '/')
        places.emplace_back(given);
    places.emplace_back("/tmp");
    return places;
}

Result<RuntimeDirectory> RuntimeDirectory::make_in(const std::string& place) {
    if (place.size() + 1 + name_size + shortest_socket > longest_unix_path) {
        return failure(fmt::format("{} is too long a path for a unix socket in it", place));
    }
    remove_stale(place);
    // Another penstock may take our new folder for a stale one before we have locked it; then we make
    // another.
    for (int tries = 0; tries < 10; ++tries) {
        std::string path = fmt::format("{}/{}XXXXXX", place, prefix);
        if (!::mkdtemp(path.data())) return failure(fmt::format("{}: {}", place, std::strerror(errno)));
        RuntimeDirectory directory;
        directory.lock_ = lock_directory(path);
        if (!directory.lock_) continue;
        directory.path_ = path;
        return directory;
    }
    return failure(fmt::format("{}: every new folder was taken away at once", place));
}

Result<RuntimeDirectory> RuntimeDirectory::make(const std::vector<std::string>& places) {
    std::string errors;
    for (const std::string& place : places) {
        auto made = make_in(place);
        if (made) return made;
        errors += (errors.empty() ? "" : "; ") + made.error().message;
    }
    return failure(fmt::format("no folder for the sockets of workers: {}", errors));
}

RuntimeDirectory& RuntimeDirectory::operator=(RuntimeDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(lock_, other.lock_);
    std::swap(short_names_, other.short_names_);
    return *this;
}

RuntimeDirectory::~RuntimeDirectory() {
    if (lock_) remove_directory(path_);
}

std::string RuntimeDirectory::socket(std::string_view upstream, unsigned index, unsigned generation) {
    std::string name;
    for (char c : upstream) name.push_back(std::isalnum(static_cast<unsigned char>(c)) || c == '_' ? c : '-');
    std::string path = fmt::format("{}/{}-{}-{}", path_, name, index, generation);
    return path.size() <= longest_unix_path ? path : fmt::format("{}/{}", path_, ++short_names_);
}

}  // namespace penstock
