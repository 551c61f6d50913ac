#include "proxy/backend_tls.h"

#include "base/log.h"
#include "net/channel.h"
#include "net/tls.h"
#include "proxy/data_loop.h"

namespace penstock {

void secure_backend(Channel& channel, DataLoop& loop, const LiveUpstream& upstream, BackendId backend) {
    if (!upstream.settings.tls || upstream.backend(backend).spawned) return;
    auto client = loop.credentials().upstream(upstream.name());
    channel.secure(TlsClient::connect(client, upstream.backend(backend).host, &loop.tls_sessions(backend),
                                      loop.chunks()));
}

void note_handshake(const Channel& channel, DataLoop& loop, const LiveUpstream& upstream, BackendId backend) {
    const Tls* tls = channel.tls();
    if (!tls) return;
    if (!channel.handshaking()) return loop.stats().tls_handshake(Wire::backend, tls->is_resumed());
    if (channel.bytes_written() == 0) return;  // it did not even connect
    TlsFailure failure = tls->failure();
    std::string_view text = tls->what_failed();
    if (failure == TlsFailure::none) {
        failure = channel.dead() ? TlsFailure::closed : TlsFailure::timeout;
        text = channel.dead() ? "the connection ended" : "not done in time";
    }
    loop.stats().tls_failed(Wire::backend, {static_cast<uint8_t>(failure), to_string(failure)});
    // A server without a session that we still have makes a new one; one that fails is not asked for it
    // again.
    loop.tls_sessions(backend).clear();
    if (loop.may_log_tls(loop.loop().now()))
        log::warn("upstream {}: server {}: TLS handshake: {}", upstream.name(),
                  upstream.backend(backend).name(), text);
}

}  // namespace penstock
