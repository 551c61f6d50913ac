#include "proxy/websocket.h"

#include <openssl/evp.h>
#include <string>

namespace penstock {

bool accepts_websocket(const Head& request, const Head& response) {
    constexpr std::string_view salt = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const Field* said = response.find(FieldId::sec_websocket_accept);
    if (!said) return false;
    const std::string text = std::string(request.value_of(FieldId::sec_websocket_key)).append(salt);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha1(), nullptr) != 1) return false;
    unsigned char accept[2 * EVP_MAX_MD_SIZE];
    const int length = EVP_EncodeBlock(accept, digest, static_cast<int>(size));
    return response.value(*said) ==
           std::string_view(reinterpret_cast<const char*>(accept), static_cast<size_t>(length));
}

}  // namespace penstock
