// A fast fake model server and a load generator for it, so that neither is what is measured.
//
//   gateway_tools serve PORT                                  answers /v1/chat/completions; GET /stats tells open streams
//   gateway_tools MODE PORT CONNECTIONS WARM_S SECONDS MODEL [HEADER...]
//       MODE requests    one request after another on each connection
//            streams     one stream after another on each connection
//            leave       opens the streams, then leaves all at once
//
// A model named mock-200x10000 streams 200 events, one every 10000 us. Every event carries its time of sending, so the
// delay of each is known; a stream with an event too few or too many has failed. Connections come in over the first half
// of WARM_S, and after it a line says that the count begins. At its end comes one line of JSON; then everything is left
// as it is until a line is read, so that others may look at it. Linux only (epoll).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_SIZE = 65536, EVENTS = 512, DELAYS = 500000 };  // delays are counted in steps of 10 us, up to 5 s

typedef struct {
  int fd, length, left, busy;     // bytes in `in`; events left to stream; load: a request is out
  int told, seen;                 // load: whether the answer has begun, and events of it so far
  int64_t due, interval, started; // us
  char in[IN_SIZE + 1];
} Connection;

static int poller;
static Connection *connections[16384];  // by file descriptor

static int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static Connection *track(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Connection *c = connections[fd] = calloc(1, sizeof *c);
  c->fd = fd;
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
  return c;
}

static void drop(Connection *c) {
  connections[c->fd] = NULL;
  close(c->fd);
  free(c);
}

static int put(Connection *c, const char *data, int size) { return send(c->fd, data, size, MSG_NOSIGNAL) == size; }

static int receive(Connection *c) {  // 0: closed
  if (c->length == IN_SIZE) return 0;
  int got = recv(c->fd, c->in + c->length, IN_SIZE - c->length, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return 1;
  if (got <= 0) return 0;
  c->length += got;
  c->in[c->length] = 0;
  return 1;
}

static void consume(Connection *c, int size) {
  memmove(c->in, c->in + size, c->length - size + 1);
  c->length -= size;
}

// --- the fake server -------------------------------------------------------------------------------------------------

static int open_streams, open_connections;
static Connection *streaming[16384];  // those with events left; may hold others until the next look
static int streaming_count;
static char answer[1400];

static int end_stream(Connection *c, int ok) {
  open_streams--;
  c->interval = 0;
  return ok;
}

static int send_event(Connection *c) {
  char event[512], chunk[600];
  const char *format = c->left > 0
    ? "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"mock\",\"choices\":"
      "[{\"index\":0,\"delta\":{\"content\":\" ~%016lld\"},\"finish_reason\":null}]}\n\n"
    : "data: [DONE]\n\n";
  int size = sprintf(event, format, (long long)now_us());
  int n = sprintf(chunk, "%x\r\n%s\r\n%s", size, event, c->left > 0 ? "" : "0\r\n\r\n");
  if (!put(c, chunk, n)) return end_stream(c, 0);
  if (c->left-- == 0) return end_stream(c, 1);
  c->due += c->interval;
  return 1;
}

static int serve_request(Connection *c) {  // 0: drop it
  char *end = strstr(c->in, "\r\n\r\n");
  if (!end) return 1;
  char *field = strcasestr(c->in, "content-length:");
  int body = field && field < end ? atoi(field + 15) : 0, size = end + 4 - c->in + body;
  if (size > c->length) return 1;
  if (!strncmp(c->in, "GET /stats", 10)) {
    char stats[200], text[80];
    int n = sprintf(text, "{\"streams\":%d,\"connections\":%d}", open_streams, open_connections);
    n = sprintf(stats, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", n, text);
    consume(c, size);
    return put(c, stats, n);
  }
  char *model = strstr(end, "\"mock");
  int events = 200, interval = 10000, streams = strstr(end, "\"stream\":true") != NULL;
  if (model) sscanf(model, "\"mock-%dx%d", &events, &interval);
  consume(c, size);
  if (!streams) return put(c, answer, strlen(answer));
  static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
  if (!put(c, head, sizeof head - 1)) return 0;
  c->left = events;
  c->interval = interval;
  c->due = now_us() + interval;
  open_streams++;
  streaming[streaming_count++] = c;
  return 1;
}

static void close_served(Connection *c) {
  if (c->interval) open_streams--;
  for (int i = 0; i < streaming_count; i++)
    if (streaming[i] == c) streaming[i] = streaming[--streaming_count];
  open_connections--;
  drop(c);
}

static void accept_all(int listener) {
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0; open_connections++) track(fd);
}

static void stream_due(void) {
  int64_t now = now_us();
  for (int i = 0; i < streaming_count; i++) {
    Connection *c = streaming[i];
    while (c->interval && c->due <= now)
      if (!send_event(c)) break;
    if (!c->interval) streaming[i--] = streaming[--streaming_count];
  }
}

static int serve(int port) {
  char text[701];
  for (int i = 0; i < 700; i++) text[i] = i % 6 ? 'a' + i % 26 : ' ';
  text[700] = 0;
  char body[1200];
  int size = sprintf(body,
    "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"mock\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":150,\"total_tokens\":162}}", text);
  sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", size, body);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) return perror("listen"), 1;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS];
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  printf("READY\n");
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(poller, events, EVENTS, streaming_count ? 1 : -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd == listener) { accept_all(listener); continue; }
      Connection *c = connections[events[i].data.fd];
      if (c && (!receive(c) || !serve_request(c))) close_served(c);
    }
    stream_due();
  }
}

// --- the load --------------------------------------------------------------------------------------------------------

static char request[2048];
static int port, request_size, streams, expected;
static long done, events_seen, failed;
static uint32_t delays[DELAYS];
static int64_t delay_count;

static void note_delay(int64_t us) {
  int64_t step = us < 0 ? 0 : us / 10;
  delays[step < DELAYS ? step : DELAYS - 1]++;
  delay_count++;
}

static double delay_ms(double share) {
  int64_t wanted = delay_count * share, seen = 0;
  for (int step = 0; step < DELAYS; step++)
    if ((seen += delays[step]) > wanted) return step / 100.0;
  return DELAYS / 100.0;
}

static void ask(Connection *c) {
  c->started = now_us();
  c->busy = 1;
  c->told = c->seen = 0;
  if (!put(c, request, request_size)) failed++;
}

static Connection *dial(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
  return track(fd);
}

static int take_answer(Connection *c) {  // bytes of one whole answer, 0: more is to come, -1: not what was wanted
  char *end = strstr(c->in, "\r\n\r\n");
  if (!end) return 0;
  if (strncmp(c->in, "HTTP/1.1 200", 12)) return -1;
  char *field = strcasestr(c->in, "content-length:"), *last = strstr(end, "\r\n0\r\n\r\n");
  if (!field || field > end) return last ? last + 7 - c->in : 0;
  int size = end + 4 - c->in + atoi(field + 15);
  return size > c->length ? 0 : size;
}

static void fail(Connection *c) {
  failed++;
  drop(c);
}

static void read_stream(Connection *c) {
  char *at = c->in, *mark;
  if (!c->told && c->length < 12) return;
  if (!c->told && strncmp(c->in, "HTTP/1.1 200", 12)) return fail(c);
  c->told = 1;
  int64_t now = now_us();
  for (; (mark = strchr(at, '~')) && c->in + c->length - mark > 17; at = mark + 17) {
    note_delay(now - atoll(mark + 1));
    events_seen++;
    c->seen++;
  }
  int ended = strstr(c->in, "\r\n0\r\n\r\n") != NULL;
  char *keep = c->in + (c->length > 24 ? c->length - 24 : 0);  // a time or an end may lie across two reads
  if (keep < at) keep = at;
  consume(c, ended ? c->length : keep - c->in);
  if (!ended) return;
  if (c->seen != expected) return fail(c);
  done++;
  ask(c);
}

static void read_answer(Connection *c) {
  int size;
  while (c->busy && (size = take_answer(c)) != 0) {
    if (size < 0) return fail(c);
    consume(c, size);
    note_delay(now_us() - c->started);
    done++;
    ask(c);
  }
}

static int dialled;

static void pump(int64_t start, int64_t over, int64_t until, int wanted) {
  struct epoll_event events[EVENTS];
  for (int64_t now; (now = now_us()) < until;) {
    // Connections come in one by one: a burst would measure only itself.
    while (dialled < wanted && (now - start) >= over * dialled / wanted) dialled++, ask(dial());
    int n = epoll_wait(poller, events, EVENTS, dialled < wanted ? 1 : 20);
    for (int i = 0; i < n; i++) {
      Connection *c = connections[events[i].data.fd];
      if (!c) continue;
      if (!receive(c)) { fail(c); continue; }
      streams ? read_stream(c) : read_answer(c);
    }
  }
}

static int load(const char *mode, int wanted, double warm_s, double seconds, const char *model, char **headers) {
  char body[512];
  sscanf(model, "mock-%d", &expected);
  streams = strcmp(mode, "requests") != 0;
  int size = sprintf(body,
    "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are terse.\"},{\"role\":\"user\",\"content\":"
    "\"Say something long.\"}],\"temperature\":0.7,\"max_tokens\":256,\"stream\":%s}", model, streams ? "true" : "false");
  request_size = sprintf(request,
    "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: bench\r\naccept: */*\r\n"
    "content-type: application/json\r\ncontent-length: %d\r\n", port, size);
  for (; *headers; headers++) request_size += sprintf(request + request_size, "%.500s\r\n", *headers);
  request_size += sprintf(request + request_size, "\r\n%s", body);
  int64_t start = now_us();
  pump(start, warm_s * 5e5, start + warm_s * 1e6, wanted);
  printf("{\"counting\":true}\n");
  fflush(stdout);
  done = events_seen = delay_count = 0;
  memset(delays, 0, sizeof delays);
  int64_t counted = now_us();
  pump(start, 0, counted + seconds * 1e6, wanted);
  double elapsed_s = (now_us() - counted) / 1e6;
  if (!strcmp(mode, "leave"))
    for (int fd = 0; fd < 16384; fd++)
      if (connections[fd]) close(fd);
  printf("{\"done\":%ld,\"events\":%ld,\"failed\":%ld,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"left_at_us\":%lld}\n",
    done, events_seen, failed, elapsed_s, delay_ms(0.5), delay_ms(0.99), (long long)now_us());
  fflush(stdout);
  getchar();
  return 0;
}

int main(int count, char **words) {
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max < 16384 ? files.rlim_max : 16384;
  setrlimit(RLIMIT_NOFILE, &files);
  poller = epoll_create1(0);
  port = count > 2 ? atoi(words[2]) : 0;
  if (count == 3 && !strcmp(words[1], "serve")) return serve(port);
  if (count > 6) return load(words[1], atoi(words[3]), atof(words[4]), atof(words[5]), words[6], words + 7);
  fprintf(stderr, "gateway_tools serve PORT | requests|streams|leave PORT CONNECTIONS WARM_S SECONDS MODEL [HEADER...]\n");
  return 2;
}
