// The fields of one head or trailer section as nghttp2 wants them: pseudo-header fields first, then the
// head's own as edited (codec/h1_writer's HeadEdit), without what belongs to a connection. It points into the
// head and the edit; nghttp2 copies what it is given, and makes names lower case.
#pragma once

#include <nghttp2/nghttp2.h>
#include <string_view>
#include <vector>

#include "codec/h1_writer.h"

namespace penstock {

class H2Fields {
  public:
    explicit H2Fields(std::vector<nghttp2_nv>& room) : fields_(room) { fields_.clear(); }
    H2Fields(const H2Fields&) = delete;
    H2Fields& operator=(const H2Fields&) = delete;

    // `authority` where the edit says no host; the Host field itself never goes out. With a `protocol` it is
    // an extended CONNECT.
    void request(const Head& head, const HeadEdit& edit, std::string_view scheme, std::string_view authority,
                 std::string_view protocol);
    void response(const Head& head, const HeadEdit& edit);
    void trailers(const Head& trailers);

    const nghttp2_nv* data() const { return fields_.data(); }
    size_t size() const { return fields_.size(); }

  private:
    void add(std::string_view name, std::string_view value);
    void add_head(const Head& head, const FieldSet& skipped);
    void add_edit(const HeadEdit& edit);

    std::vector<nghttp2_nv>& fields_;
    char number_[24];
};

}  // namespace penstock
