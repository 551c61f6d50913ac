#include "app/process_facts.h"

#include <dirent.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <unistd.h>

namespace penstock {

namespace {

double seconds_of(const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
}

uint64_t count_descriptors() {
    DIR* folder = ::opendir("/proc/self/fd");
    if (!folder) return 0;
    uint64_t entries = 0;
    while (::readdir(folder)) ++entries;
    ::closedir(folder);
    return entries > 3 ? entries - 3 : 0;  // without ".", "..", and the one just used for looking
}

// Field 22 of /proc/self/stat, in ticks since the machine started; the name in field 2 may hold anything, so
// count from its closing parenthesis.
double start_time() {
    std::ifstream stat("/proc/self/stat");
    std::string text;
    std::getline(stat, text);
    size_t name_end = text.rfind(')');
    if (name_end == text.npos) return 0;
    std::istringstream fields(text.substr(name_end + 1));
    std::string skipped;
    for (int i = 3; i < 22; ++i) fields >> skipped;
    double ticks = 0, boot = 0;
    fields >> ticks;
    std::ifstream machine("/proc/stat");
    for (std::string line; std::getline(machine, line);)
        if (line.starts_with("btime ")) boot = std::strtod(line.c_str() + 6, nullptr);
    return boot + ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace

ProcessFacts facts_of_this_process() {
    ProcessFacts facts;
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    facts.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);

    uint64_t pages = 0, resident_pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> resident_pages;
    auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    facts.virtual_bytes = pages * page_bytes;
    facts.resident_bytes = resident_pages * page_bytes;

    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    facts.max_descriptors = limit.rlim_cur;
    facts.open_descriptors = count_descriptors();
    static const double started = start_time();
    facts.start_time = started;
    return facts;
}

}  // namespace penstock
