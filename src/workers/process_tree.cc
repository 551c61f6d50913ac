#include "workers/process_tree.h"

#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <unistd.h>

#include "base/text.h"
#include "workers/descriptor.h"

namespace penstock {

namespace {

// A small file of /proc, whole; empty if there is none (any more).
std::string contents_of(const std::string& path) {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    if (!file) return text;
    char buffer[4096];
    for (ssize_t n; (n = ::read(file.number(), buffer, sizeof buffer)) > 0;) {
        text.append(buffer, static_cast<size_t>(n));
    }
    return text;
}

// Calls use(number) for each entry of a folder whose name is a number; false if the folder cannot be read.
template <class Use>
bool each_number(const std::string& folder, Use&& use) {
    DIR* directory = ::opendir(folder.c_str());
    if (!directory) return false;
    while (dirent* entry = ::readdir(directory)) {
        if (auto number = parse_number(entry->d_name)) use(static_cast<pid_t>(*number));
    }
    ::closedir(directory);
    return true;
}

struct Stat {
    std::string name;
    char state = '?';
    pid_t parent = 0;
};

// "4711 (a name (with) anything) S 1 ...": the name ends at the last parenthesis.
Stat stat_of(pid_t pid) {
    std::string text = contents_of(fmt::format("/proc/{}/stat", pid));
    size_t open = text.find('('), close = text.rfind(')');
    Stat stat;
    if (open == text.npos || close == text.npos || close + 4 >= text.size()) return stat;
    stat.name = text.substr(open + 1, close - open - 1);
    stat.state = text[close + 2];
    stat.parent = static_cast<pid_t>(std::strtol(text.c_str() + close + 4, nullptr, 10));
    return stat;
}

// More than any worker has; what is forked faster than we read must not keep us here.
constexpr size_t most_processes = 4096;

template <class Use>
void each_below(pid_t root, Use&& use) {
    std::vector<pid_t> found = children_of(root);
    for (size_t i = 0; i < found.size() && i < most_processes; ++i) {
        use(found[i]);
        for (pid_t child : children_of(found[i])) found.push_back(child);
    }
}

}  // namespace

std::vector<pid_t> children_of(pid_t parent) {
    std::vector<pid_t> children;
    bool listed = false;  // kernels without CONFIG_PROC_CHILDREN have no such file
    each_number(fmt::format("/proc/{}/task", parent), [&](pid_t thread) {
        std::string path = fmt::format("/proc/{}/task/{}/children", parent, thread);
        listed = listed || ::access(path.c_str(), F_OK) == 0;
        std::string list = contents_of(path);
        const char* at = list.c_str();
        for (char* end; long pid = std::strtol(at, &end, 10); at = end) {
            children.push_back(static_cast<pid_t>(pid));
        }
    });
    if (listed) return children;
    each_number("/proc", [&](pid_t pid) {
        if (stat_of(pid).parent == parent) children.push_back(pid);
    });
    return children;
}

uint64_t memory_below(pid_t root) {
    static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    uint64_t bytes = 0;
    each_below(root, [&](pid_t pid) {
        std::string text = contents_of(fmt::format("/proc/{}/statm", pid));  // size, then resident, in pages
        size_t space = text.find(' ');
        if (space != text.npos) bytes += std::strtoull(text.c_str() + space, nullptr, 10) * page;
    });
    return bytes;
}

std::string unkillable_below(pid_t root) {
    std::string text;
    each_below(root, [&](pid_t pid) {
        Stat stat = stat_of(pid);
        if (stat.state != 'D') return;
        fmt::format_to(std::back_inserter(text), "{}{} ({}) in state D", text.empty() ? "" : ", ", pid,
                       stat.name);
    });
    return text;
}

uint64_t out_of_memory_kills() {
    std::string text = contents_of("/proc/vmstat");
    constexpr std::string_view name = "\noom_kill ";
    size_t at = text.find(name);
    return at == text.npos ? 0 : std::strtoull(text.c_str() + at + name.size(), nullptr, 10);
}

}  // namespace penstock
