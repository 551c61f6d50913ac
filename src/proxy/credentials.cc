#include "proxy/credentials.h"

#include <fmt/format.h>

namespace penstock {

namespace {

class Loading {
  public:
    Loading(const Places& places, LoadedCredentials& out) : places_(places), out_(out) {}

    void add(const std::string& path, FileFindings&& findings) {
        for (FileProblem& problem : findings.errors)
            out_.errors.push_back(places_.problem(path + "." + problem.setting, std::move(problem.message)));
        for (FileProblem& problem : findings.warnings)
            out_.warnings.push_back(
                places_.problem(path + "." + problem.setting, std::move(problem.message)));
    }

    std::shared_ptr<const TlsServer> listener(const Listen& listen, const std::string& path,
                                              TicketKeys& keys) {
        if (!listen.tls) return nullptr;
        // As the file writes it: one {certificate, key}, or a list of them.
        bool is_list = listen.tls->certificates.size() > 1 || places_.has(path + ".certificates");
        TlsServer::Settings settings;
        for (size_t i = 0; i < listen.tls->certificates.size(); ++i) {
            const CertificateFiles& files = listen.tls->certificates[i];
            settings.certificates.push_back({files.certificate, files.key,
                                             is_list ? fmt::format("certificates[{}].", i) : std::string()});
        }
        settings.client_ca = listen.tls->client_ca;
        settings.http1 = listen.http1;
        settings.http2 = listen.http2;
        FileFindings findings;
        auto made = TlsServer::load(settings, keys, findings);
        add(path, std::move(findings));
        return made;
    }

    std::shared_ptr<const TlsClient> upstream(const Upstream& upstream, const std::string& path) {
        const BackendTls& tls = *upstream.tls;
        TlsClient::Settings settings{tls.verify, tls.ca, tls.certificate, tls.key,
                                     upstream.protocol == Protocol::http2};
        FileFindings findings;
        auto made = TlsClient::load(settings, findings);
        add(path, std::move(findings));
        return made;
    }

  private:
    const Places& places_;
    LoadedCredentials& out_;
};

}  // namespace

LoadedCredentials load_credentials(const Config& config, const Places& places, TicketKeys& keys) {
    LoadedCredentials out;
    Loading loading(places, out);
    auto made = std::make_shared<Credentials>();
    for (size_t i = 0; i < config.listen.size(); ++i)
        made->listeners.push_back(loading.listener(config.listen[i], fmt::format("listen[{}].tls", i), keys));
    for (const Upstream& upstream : config.upstreams)
        if (upstream.tls)
            made->upstreams.emplace(
                upstream.name, loading.upstream(upstream, fmt::format("upstreams.{}.tls", upstream.name)));
    if (out.errors.empty()) out.credentials = std::move(made);
    sort_by_place(out.errors);
    sort_by_place(out.warnings);
    return out;
}

}  // namespace penstock
