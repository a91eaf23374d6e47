/* wsload: a WebSocket load generator that knows nothing of the server under test.
 *
 *   cc -O2 -o wsload wsload.c
 *   wsload echo      PORT CLIENTS DEPTH SECONDS SIZE [PATH]   every client keeps DEPTH messages in flight
 *   wsload broadcast PORT CLIENTS DEPTH SECONDS SIZE [PATH]   client 0 keeps DEPTH broadcasts in flight; all receive
 *   wsload rooms     PORT CLIENTS DEPTH SECONDS SIZE [PATH]   as broadcast, to the group that every client joined
 *   wsload idle      PORT CLIENTS 0     SECONDS 0    [PATH]   opens CLIENTS connections and holds them
 *   wsload rate      PORT CLIENTS RATE  SECONDS SIZE [PATH]   open loop: RATE echoes a second in all, latency from
 *                                                             the time at which each was due
 *
 * Message conventions (first byte of a text message; the application under test implements them):
 *   'e' echo to the sender   'j' join the one group, answer "j"   'b' send to the group   'a' send to all
 * Every message carries at offset 1 a 16-digit hex send time (ns) and then padding 'x'.
 *
 * After the connections are open it waits 0.5 s, talks 1 s unmeasured and SECONDS measured, and listens 1 s more.
 * Prints one JSON line. Sends only to 127.0.0.1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, HANDSHAKE, OPEN, CLOSED };
enum mode { ECHO, BROADCAST, ROOMS, IDLE, RATE, MODES };
#define SECOND 1000000000ull

static const char *const NAMES[MODES] = {"echo", "broadcast", "rooms", "idle", "rate"};
static const char KINDS[MODES] = {'e', 'a', 'b', 0, 'e'};

struct conn {
  int fd, state, index, joined;
  uint8_t *in; /* read and not yet understood */
  size_t have, cap;
  uint8_t *out; /* not yet sent */
  size_t outlen, outcap;
};

static struct conn *conns;
static int nconns, ep, port, depth, opened, lost, measuring;
static size_t size;
static enum mode mode;
static const char *path = "/";
static uint64_t t_start, t_end, received, hist[64 * 64];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* log-linear histogram: 64 sub-buckets in each power of two, in ns */
static int bucket(uint64_t v) {
  if (v < 64) return v;
  int e = 63 - __builtin_clzll(v);
  return (e - 5) * 64 + ((v >> (e - 6)) & 63);
}

static uint64_t value(int b) {
  if (b < 64) return b;
  int e = b / 64 + 5;
  return (1ull << e) + ((uint64_t)(b & 63) << (e - 6));
}

static double pct(double p) {
  uint64_t n = 0, c = 0;
  for (int i = 0; i < 4096; i++) n += hist[i];
  for (int i = 0; i < 4096; i++) {
    c += hist[i];
    if (n && c >= p * n) return value(i) / 1e6;
  }
  return 0;
}

static void interest(struct conn *c) {
  struct epoll_event e = {.events = EPOLLIN | (c->outlen || c->state == CONNECTING ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void drop(struct conn *c) {
  if (c->state == CLOSED) return;
  if (c->state == OPEN) opened--;
  c->state = CLOSED;
  close(c->fd);
  lost++;
}

static void flush_out(struct conn *c) {
  while (c->outlen) {
    ssize_t n = send(c->fd, c->out, c->outlen, MSG_NOSIGNAL);
    if (n <= 0) {
      if (errno == EAGAIN) break;
      drop(c);
      return;
    }
    memmove(c->out, c->out + n, c->outlen - n);
    c->outlen -= n;
  }
  interest(c);
}

static void put(struct conn *c, const void *p, size_t n) {
  if (c->outlen + n > c->outcap) {
    c->outcap = (c->outlen + n) * 2;
    c->out = realloc(c->out, c->outcap);
  }
  memcpy(c->out + c->outlen, p, n);
  c->outlen += n;
}

static void send_message(struct conn *c, char kind, uint64_t stamp) {
  static uint8_t buf[1 << 20];
  static const uint8_t key[4] = {0x12, 0x34, 0x56, 0x78};
  size_t n = size < 17 ? 17 : size, h = 2;
  char hex[17];
  buf[0] = 0x81;
  if (n < 126) {
    buf[1] = 0x80 | n;
  } else if (n < 65536) {
    buf[1] = 0x80 | 126;
    buf[2] = n >> 8;
    buf[3] = n;
    h = 4;
  } else {
    buf[1] = 0x80 | 127;
    for (int i = 0; i < 8; i++) buf[2 + i] = n >> (56 - 8 * i);
    h = 10;
  }
  memcpy(buf + h, key, 4);
  h += 4;
  snprintf(hex, 17, "%016llx", (unsigned long long)stamp);
  for (size_t i = 0; i < n; i++) {
    uint8_t b = i == 0 ? kind : i < 17 ? hex[i - 1] : 'x';
    buf[h + i] = b ^ key[i & 3];
  }
  put(c, buf, h + n);
}

static void on_message(struct conn *c, const uint8_t *p, size_t n) {
  if (n && p[0] == 'j') {
    c->joined = 1;
    return;
  }
  if (n < 17) return;
  char hex[17];
  memcpy(hex, p + 1, 16);
  hex[16] = 0;
  uint64_t stamp = strtoull(hex, 0, 16), t = now();
  if (measuring && stamp >= t_start && t < t_end) {
    received++;
    hist[bucket(t - stamp)]++;
  }
  if (t >= t_end) return;
  if (mode == ECHO || ((mode == BROADCAST || mode == ROOMS) && c->index == 0)) send_message(c, KINDS[mode], t);
}

static void on_data(struct conn *c) {
  for (;;) {
    if (c->cap - c->have < 65536) {
      c->cap = c->cap ? c->cap * 2 : 4096;
      if (c->cap - c->have < 4096) c->cap += 65536;
      c->in = realloc(c->in, c->cap);
    }
    ssize_t n = recv(c->fd, c->in + c->have, c->cap - c->have, 0);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {
      drop(c);
      return;
    }
    c->have += n;
    if ((size_t)n < 4096) break;
  }
  size_t at = 0;
  if (c->state == HANDSHAKE) {
    uint8_t *e = memmem(c->in, c->have, "\r\n\r\n", 4);
    if (!e) return;
    if (c->have < 12 || memcmp(c->in + 9, "101", 3)) {
      fprintf(stderr, "refused: %.60s\n", c->in);
      drop(c);
      return;
    }
    at = e + 4 - c->in;
    c->state = OPEN;
    opened++;
  }
  while (c->have - at >= 2) {
    uint8_t *f = c->in + at;
    size_t len = f[1] & 127, h = 2;
    if (len == 126) {
      if (c->have - at < 4) break;
      len = f[2] << 8 | f[3];
      h = 4;
    } else if (len == 127) {
      if (c->have - at < 10) break;
      len = 0;
      for (int i = 0; i < 8; i++) len = len << 8 | f[2 + i];
      h = 10;
    }
    if (c->have - at < h + len) break;
    int op = f[0] & 15;
    if (op == 8) {
      drop(c);
      return;
    }
    if (op == 9) {
      uint8_t pong[6 + 125] = {0x8a, 0x80 | len, 0, 0, 0, 0};
      memcpy(pong + 6, f + h, len);
      put(c, pong, 6 + len);
    }
    if (op == 1 || op == 2) on_message(c, f + h, len);
    at += h + len;
  }
  memmove(c->in, c->in + at, c->have - at);
  c->have -= at;
  if (!c->have && c->cap > 65536) {
    free(c->in);
    c->in = 0;
    c->cap = 0;
  }
  if (c->outlen) flush_out(c);
}

static void handshake(struct conn *c) {
  char r[512];
  int n = snprintf(r, sizeof r,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                   path, port);
  c->state = HANDSHAKE;
  put(c, r, n);
  flush_out(c);
}

static void poll_ns(int64_t ns) {
  struct epoll_event ev[1024];
  struct timespec ts = {ns / 1000000000, ns % 1000000000};
  int n = epoll_pwait2(ep, ev, 1024, &ts, 0);
  for (int i = 0; i < n; i++) {
    struct conn *c = ev[i].data.ptr;
    if (c->state == CLOSED) continue;
    if (c->state == CONNECTING && ev[i].events & EPOLLOUT) {
      int e = 0;
      socklen_t l = sizeof e;
      getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &l);
      if (e) {
        drop(c);
        continue;
      }
      handshake(c);
      continue;
    }
    if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
      on_data(c);
      if (c->state == CLOSED) continue;
    }
    if (ev[i].events & EPOLLOUT && c->outlen) flush_out(c);
  }
}

static void poll_once(int ms) { poll_ns(ms * 1000000ll); }

static int open_one(int i) {
  struct conn *c = &conns[i];
  c->index = i;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) {
    perror("socket");
    return -1;
  }
  int one = 1;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in src = {.sin_family = AF_INET}, a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
  char s[32];
  snprintf(s, sizeof s, "127.0.0.%d", 1 + i / 20000);
  inet_pton(AF_INET, s, &src.sin_addr);
  bind(c->fd, (void *)&src, sizeof src);
  struct epoll_event e = {.events = EPOLLOUT | EPOLLIN, .data.ptr = c};
  c->state = CONNECTING;
  if (connect(c->fd, (void *)&a, sizeof a) && errno != EINPROGRESS) {
    perror("connect");
    close(c->fd);
    c->state = CLOSED;
    lost++;
    return 0;
  }
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
  return 0;
}

/* At most 200 handshakes at a time. */
static int open_all(void) {
  uint64_t limit = now() + 120 * SECOND;
  for (int next = 0; opened + lost < nconns && now() < limit; poll_once(100))
    while (next < nconns && next - opened - lost < 200)
      if (open_one(next++)) return -1;
  return 0;
}

static void join_all(void) {
  size_t keep = size;
  size = 17;
  for (int i = 0; i < nconns; i++)
    if (conns[i].state == OPEN) {
      send_message(&conns[i], 'j', now());
      flush_out(&conns[i]);
    }
  size = keep;
  uint64_t limit = now() + 30 * SECOND;
  for (int joined = 0; joined < opened && now() < limit;) {
    poll_once(50);
    joined = 0;
    for (int i = 0; i < nconns; i++) joined += conns[i].joined;
  }
}

/* Put DEPTH messages in flight; on_message sends one more for each that comes back. */
static void start_talking(void) {
  for (int i = 0; i < (mode == ECHO ? nconns : 1); i++)
    if (conns[i].state == OPEN) {
      for (int d = 0; d < depth; d++) send_message(&conns[i], KINDS[mode], now());
      flush_out(&conns[i]);
    }
}

/* Send what is due by time t, round the clients; return when the next one is due. */
static uint64_t send_due(uint64_t due, uint64_t t) {
  static int turn;
  for (; due <= t; due += SECOND / depth) {
    struct conn *c = &conns[turn++ % nconns];
    if (c->state != OPEN) continue;
    send_message(c, 'e', due);
    if (c->outlen < 1024) flush_out(c);
  }
  return due;
}

static void talk(double seconds) {
  uint64_t begin = now(), due = begin;
  t_end = UINT64_MAX;
  if (mode != IDLE && mode != RATE) start_talking();
  for (;;) {
    uint64_t t = now();
    if (!measuring && t - begin > SECOND) {
      measuring = 1;
      t_start = t;
      t_end = t + seconds * 1e9;
    }
    if (measuring && t >= t_end) break;
    if (mode == RATE) {
      due = send_due(due, t);
      int64_t wait = (int64_t)(due - now());
      poll_ns(wait > 0 ? wait : 0);
    } else {
      poll_once(10);
    }
  }
}

static void listen_for(uint64_t ns) {
  uint64_t end = now() + ns;
  while (now() < end) poll_once(20);
}

int main(int argc, char **argv) {
  mode = MODES;
  if (argc >= 7)
    for (mode = 0; mode < MODES && strcmp(argv[1], NAMES[mode]); mode++) continue;
  if (mode == MODES) {
    fprintf(stderr, "usage: wsload echo|broadcast|rooms|idle|rate PORT CLIENTS DEPTH SECONDS SIZE [PATH]\n");
    return 2;
  }
  port = atoi(argv[2]);
  nconns = atoi(argv[3]);
  depth = atoi(argv[4]);
  double seconds = atof(argv[5]);
  size = atoi(argv[6]);
  if (argc > 7) path = argv[7];
  if (nconns < 1 || (mode == RATE && depth < 1) || size > 500000) {
    fprintf(stderr, "wsload: CLIENTS and RATE are at least 1, SIZE at most 500000\n");
    return 2;
  }
  conns = calloc(nconns, sizeof *conns);
  ep = epoll_create1(0);

  uint64_t begin = now();
  if (open_all()) return 1;
  double opening = (now() - begin) / 1e9;
  if (!opened) {
    fprintf(stderr, "no connection opened\n");
    return 1;
  }
  if (mode == ROOMS) join_all();
  listen_for(SECOND / 2);
  talk(seconds);
  listen_for(SECOND);
  printf("{\"mode\":\"%s\",\"clients\":%d,\"open\":%d,\"lost\":%d,\"depth\":%d,\"size\":%zu,\"connect_per_s\":%.0f,"
         "\"received_per_s\":%.0f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
         NAMES[mode], nconns, opened, lost, depth, size, nconns / opening, received / seconds, pct(.5), pct(.99),
         pct(1));
  return 0;
}
