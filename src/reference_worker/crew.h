// A Crew is the threads that infer, so that the one thread that speaks HTTP never waits for a model. Jobs are
// done in the order in which they came. Nobody can take one back: as on a GPU, what has been handed over is
// computed, whether its client is still there or not.
//
// With `serial` there is one device: so many jobs as there are threads are inside, and they take turns.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/time.h"
#include "reference_worker/kserve.h"

struct evhttp_request;

namespace penstock::reference {

struct Job {
    evhttp_request* to = nullptr;  // whom to answer; the crew does not look at it
    std::string model;
    InferRequest asked;
    Duration delay{};  // how much longer than the network itself it takes
    std::vector<Probabilities> results;
    Time began{};
};

class Crew {
  public:
    Crew(const Convnet& network, unsigned threads, bool serial);
    ~Crew();  // what waits is dropped, what runs is awaited

    void hand_over(std::unique_ptr<Job> job);
    void hold(bool held);                      // while held nothing is begun
    int descriptor() const { return event_; }  // readable when something is done
    std::vector<std::unique_ptr<Job>> take_done();
    unsigned most_at_once();  // computed

  private:
    void work();
    void count_running(int change);

    const Convnet& network_;
    const bool serial_;
    const int event_;
    std::mutex mutex_, device_;
    std::condition_variable there_is_work_;
    std::deque<std::unique_ptr<Job>> waiting_;
    std::vector<std::unique_ptr<Job>> done_;
    unsigned running_ = 0, most_running_ = 0;
    bool held_ = false;
    bool ends_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace penstock::reference
