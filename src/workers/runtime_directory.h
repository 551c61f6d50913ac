// A private folder for the sockets of workers: mode 0700, a name of its own, gone when penstock is.
//
// It is made in the first of $RUNTIME_DIRECTORY (which systemd gives), $XDG_RUNTIME_DIR and /tmp that has
// room for a socket's name (a unix socket's path holds 107 bytes). penstock holds a lock on the folder; one
// whose lock is free belonged to a penstock that was killed, and is removed by the next that starts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "workers/descriptor.h"

namespace penstock {

class RuntimeDirectory {
  public:
    // Tries these in turn.
    static Result<RuntimeDirectory> make(const std::vector<std::string>& places);
    static std::vector<std::string> usual_places();

    RuntimeDirectory() = default;
    RuntimeDirectory(RuntimeDirectory&&) noexcept = default;
    RuntimeDirectory& operator=(RuntimeDirectory&& other) noexcept;
    ~RuntimeDirectory();

    const std::string& path() const { return path_; }
    // A path for a socket, never given before: ocr-0-3 for the third generation of ocr/0, or a short number
    // where that would not fit.
    std::string socket(std::string_view upstream, unsigned index, unsigned generation);

  private:
    static Result<RuntimeDirectory> make_in(const std::string& place);

    std::string path_;
    Descriptor lock_;
    unsigned short_names_ = 0;
};

}  // namespace penstock
