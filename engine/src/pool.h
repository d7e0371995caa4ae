// Threads that wait for work by spinning briefly and then sleeping, and a caller that does itself what a thread has not
// begun: on a busy machine a thread without a core costs its share, not the time until it gets one.
#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace gossamer {

class Pool {
 public:
  using Work = void (*)(void *context, int thread);

  explicit Pool(int threads) : count_(threads), claimed_(new std::atomic<unsigned>[size_t(threads)]) {
    for (int t = 0; t < threads; t++) claimed_[size_t(t)] = 0;
    try {
      for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { serve(t); });
    } catch (...) {  // the system gives no more threads
      stop();
      throw;
    }
  }
  ~Pool() { stop(); }
  int threads() const { return count_; }

  // Run work(context, t) for each thread t, this one being 0, and wait for all.
  void run(Work work, void *context) {
    if (count_ == 1) return work(context, 0);
    work_ = work;
    context_ = context;
    left_.store(count_ - 1);
    const unsigned now = announce();
    work(context, 0);
    for (int t = 1; t < count_; t++)
      if (claim(t, now)) {
        work(context, t);
        left_.fetch_sub(1);
      }
    for (int spins = 0; left_.load() > 0 && spins < SPINS; spins++) pause();
    if (left_.load() == 0) return;
    std::unique_lock<std::mutex> hold(mutex_);
    asleep_ = true;
    done_.wait(hold, [&] { return left_.load() == 0; });
    asleep_ = false;
  }

 private:
  static constexpr int SPINS = 4000;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
  unsigned announce() {
    unsigned now;
    {
      std::lock_guard<std::mutex> hold(mutex_);
      now = generation_.fetch_add(1) + 1;
    }
    wake_.notify_all();
    return now;
  }
  // Whether share t of this generation is the caller's; work_ and context_ stay until whoever has it is done.
  bool claim(int t, unsigned now) {
    unsigned last = now - 1;
    return claimed_[size_t(t)].compare_exchange_strong(last, now);
  }
  void serve(int thread) {
    unsigned seen = 0;
    for (;;) {
      for (int spins = 0; generation_.load() == seen && spins < SPINS; spins++) pause();
      if (generation_.load() == seen) {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, [&] { return generation_.load() != seen; });
      }
      seen = generation_.load();
      if (stop_) return;
      if (!claim(thread, seen)) continue;
      work_(context_, thread);
      if (left_.fetch_sub(1) > 1 || !asleep_) continue;
      std::lock_guard<std::mutex> hold(mutex_);  // the caller is before its look at left_, or in its sleep
      done_.notify_one();
    }
  }
  void stop() {
    stop_ = true;
    announce();
    for (auto &worker : workers_) worker.join();
  }

  const int count_;
  std::unique_ptr<std::atomic<unsigned>[]> claimed_;  // the last generation of each share that someone has taken
  std::atomic<unsigned> generation_{0};
  std::atomic<int> left_{0};
  std::atomic<bool> stop_{false}, asleep_{false};
  Work work_ = nullptr;
  void *context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
};

}  // namespace gossamer
