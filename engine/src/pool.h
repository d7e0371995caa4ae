// Threads that wait for work by spinning briefly and then sleeping: a busy machine costs time, never a collapse.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace gossamer {

class Pool {
 public:
  using Work = void (*)(void *context, int thread);

  explicit Pool(int threads) : count_(threads) {
    for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { serve(t); });
  }
  ~Pool() {
    stop_ = true;
    announce();
    for (auto &worker : workers_) worker.join();
  }
  int threads() const { return count_; }

  // Run work(context, t) for each thread t, this one being 0, and wait for all.
  void run(Work work, void *context) {
    if (count_ > 1) {
      work_ = work;
      context_ = context;
      left_.store(count_ - 1, std::memory_order_relaxed);
      announce();
    }
    work(context, 0);
    for (int spins = 0; left_.load(std::memory_order_acquire) > 0; spins++) {
      if (spins < SPINS) pause();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int SPINS = 4000;
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  void announce() {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }
  void serve(int thread) {
    unsigned seen = 0;
    for (;;) {
      for (int spins = 0; generation_.load(std::memory_order_acquire) == seen && spins < SPINS; spins++) pause();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, [&] { return generation_.load(std::memory_order_acquire) != seen; });
      }
      seen++;
      if (stop_) return;
      work_(context_, thread);
      left_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int count_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> left_{0};
  std::atomic<bool> stop_{false};
  Work work_ = nullptr;
  void *context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace gossamer
