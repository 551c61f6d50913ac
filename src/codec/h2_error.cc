#include "codec/h2_error.h"

namespace penstock {

std::string_view to_string(H2Error code) {
    constexpr std::string_view names[h2_error_count] = {"no_error",
                                                        "protocol_error",
                                                        "internal_error",
                                                        "flow_control_error",
                                                        "settings_timeout",
                                                        "stream_closed",
                                                        "frame_size_error",
                                                        "refused_stream",
                                                        "cancel",
                                                        "compression_error",
                                                        "connect_error",
                                                        "enhance_your_calm",
                                                        "inadequate_security",
                                                        "http_1_1_required"};
    return size_t(code) < h2_error_count ? names[size_t(code)] : "other";
}

}  // namespace penstock
