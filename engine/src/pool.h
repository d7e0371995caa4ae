// Threads that wait for work by spinning briefly and then sleeping. Work comes in chunks, several per thread; a thread that has done
// its own chunks takes those that others have not begun, so that on a busy machine a thread without a core, or with a slow one, costs
// its part of the time, and no more.
#pragma once
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace gossamer {

// The threads of one process and what they share.
class Workers {
 public:
  using Work = void (*)(void *context, int chunk, int thread);

  explicit Workers(int threads) : count_(threads), unclaimed_(new std::atomic<uint64_t>[size_t(threads)]) {
    for (int t = 0; t < threads; t++) unclaimed_[size_t(t)] = 0;
    try {
      for (int t = 1; t < threads; t++) workers_.emplace_back([this, t] { serve(t); });
    } catch (...) {  // the system gives no more threads
      stop();
      throw;
    }
  }
  ~Workers() { stop(); }

  void run(Work work, void *context, int each) {
    work_.store(work), context_.store(context), each_.store(each);
    pending_.store(count_ * each);
    const uint32_t now = generation_.load() + 1;
    for (int t = 0; t < count_; t++) unclaimed_[size_t(t)].store(uint64_t(now) << 32 | unsigned(each));
    announce();
    pending_.fetch_sub(work_off(0, now));
    for (int spins = 0; pending_.load() > 0 && spins < SPINS; spins++) pause();
    if (pending_.load() == 0) return;
    std::unique_lock<std::mutex> hold(mutex_);
    asleep_ = true;
    done_.wait(hold, [&] { return pending_.load() == 0; });
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
  void announce() {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      generation_.fetch_add(1);
    }
    wake_.notify_all();
  }
  // Claim and do the next unclaimed chunk of a thread, if it has one of this generation: which then does not end before the
  // chunk does, so that the work and its context stay as they are.
  bool claim(int t, uint32_t now, int thread) {
    uint64_t unclaimed = unclaimed_[size_t(t)].load();
    do
      if (unclaimed >> 32 != now || uint32_t(unclaimed) == 0) return false;
    while (!unclaimed_[size_t(t)].compare_exchange_weak(unclaimed, unclaimed - 1));
    const int each = each_.load();
    work_.load()(context_.load(), (t + 1) * each - int(uint32_t(unclaimed)), thread);
    return true;
  }
  // A thread's own chunks, then those of the threads after it; returns how many it did.
  int work_off(int thread, uint32_t now) {
    int done = 0;
    for (int i = 0; i < count_; i++)
      while (claim((thread + i) % count_, now, thread)) done++;
    return done;
  }
  void serve(int thread) {
    uint32_t seen = 0;
    for (;;) {
      for (int spins = 0; generation_.load() == seen && spins < SPINS; spins++) pause();
      if (generation_.load() == seen) {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, [&] { return generation_.load() != seen; });
      }
      seen = generation_.load();
      if (stop_) return;
      const int done = work_off(thread, seen);
      if (done == 0 || pending_.fetch_sub(done) > done || !asleep_) continue;
      std::lock_guard<std::mutex> hold(mutex_);  // the caller is before its look at pending_, or in its sleep
      done_.notify_one();
    }
  }
  void stop() {
    stop_ = true;
    announce();
    for (auto &worker : workers_) worker.join();
  }

  const int count_;
  // of each thread: the generation, and how many of its chunks nobody has claimed
  std::unique_ptr<std::atomic<uint64_t>[]> unclaimed_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<int> pending_{0}, each_{0};
  std::atomic<bool> stop_{false}, asleep_{false};
  std::atomic<Work> work_{nullptr};
  std::atomic<void *> context_{nullptr};
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
};

// Threads that a child of a fork starts anew: fork copies only the thread that calls it.
class Pool {
 public:
  explicit Pool(int threads) : count_(threads), workers_(start(threads)), process_(getpid()) {}
  ~Pool() {
    if (process_ != getpid()) abandon();
  }
  int threads() const { return count_; }

  // To be called before work in a process that may be the child of a fork. Throws where the system gives no threads or no memory.
  void restart_after_fork() {
    if (process_ == getpid()) return;
    abandon();
    workers_ = start(count_);
    process_ = getpid();
  }

  // Run work(context, chunk, thread) for `each` chunks a thread, and wait for all. The caller is thread 0.
  void run(Workers::Work work, void *context, int each) {
    if (workers_) return workers_->run(work, context, each);
    for (int i = 0; i < each; i++) work(context, i, 0);
  }

 private:
  static std::unique_ptr<Workers> start(int threads) {
    return threads > 1 ? std::make_unique<Workers>(threads) : nullptr;
  }
  // Leave the parent's to the end of the process: its threads do not exist here to be joined, its mutex may be locked for ever.
  void abandon() { (void)workers_.release(); }

  const int count_;
  std::unique_ptr<Workers> workers_;
  pid_t process_;
};

}  // namespace gossamer
