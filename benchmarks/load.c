/* Load for benchmarks/datapath.py. Usage:
 *   load serve PORT                  answers: echoes each byte; closes when the peer does; discards what comes on PORT+1
 *   load rr ADDRESS PORT SECONDS     ping-pong of one byte over one connection; prints every round trip's median and p99 in us, and the rate
 *   load crr ADDRESS PORT SECONDS    connect, one byte there and back, close; prints connections/s
 *   load bulk ADDRESS PORT SECONDS   sends as fast as it can to PORT+1; prints Mbit/s
 * IPv4 only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in address(const char *text, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &a.sin_addr) != 1) die("address");
    return a;
}

static int listening(int port) {
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = address("0.0.0.0", port);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&a, sizeof a) || listen(s, 4096)) die("listen");
    return s;
}

static int connected(const struct sockaddr_in *a) {
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct linger reset = {1, 0}; /* no TIME_WAIT: the ports must last */
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(s, (const void *)a, sizeof *a)) die("connect");
    return s;
}

static void serve(int port) {
    int echo = listening(port), discard = listening(port + 1), e = epoll_create1(0);
    static char buffer[1 << 18];
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = echo}, got[64];
    epoll_ctl(e, EPOLL_CTL_ADD, echo, &ev);
    ev.data.u64 = discard;
    epoll_ctl(e, EPOLL_CTL_ADD, discard, &ev);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(e, got, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.u64 & 0xffffffff, quiet = got[i].data.u64 >> 32;
            if (fd == echo || fd == discard) {
                int c = accept4(fd, 0, 0, SOCK_NONBLOCK), one = 1;
                if (c < 0) continue;
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                ev.data.u64 = (uint64_t)(fd == discard) << 32 | c;
                epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
                continue;
            }
            ssize_t r = recv(fd, buffer, sizeof buffer, 0);
            if (r > 0 && !quiet) send(fd, buffer, r, MSG_NOSIGNAL);
            if (r == 0 || (r < 0 && errno != EAGAIN)) close(fd);
        }
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t trips[4 << 20];

static void told(size_t n, uint64_t took) {
    qsort(trips, n, sizeof *trips, by_value);
    printf("{\"p50_us\": %.2f, \"p99_us\": %.2f, \"per_s\": %.0f}\n", trips[n / 2] / 1e3, trips[n * 99 / 100] / 1e3, n / (took / 1e9));
}

static void rr(const struct sockaddr_in *a, double seconds) {
    size_t n = 0;
    char byte = 'x';
    int s = connected(a);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), t = begin, u;
    while (t < end && n < sizeof trips / sizeof *trips) {
        if (send(s, &byte, 1, 0) != 1 || recv(s, &byte, 1, 0) != 1) die("rr");
        u = now_ns();
        trips[n++] = u - t;
        t = u;
    }
    told(n, t - begin);
}

static void crr(const struct sockaddr_in *a, double seconds) {
    size_t n = 0;
    uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), t = begin, u;
    char byte = 'x';
    while (t < end && n < sizeof trips / sizeof *trips) {
        int s = connected(a);
        if (send(s, &byte, 1, 0) != 1 || recv(s, &byte, 1, 0) != 1) die("crr");
        close(s);
        u = now_ns();
        trips[n++] = u - t;
        t = u;
    }
    told(n, t - begin);
}

static void bulk(const struct sockaddr_in *a, double seconds) {
    static char buffer[1 << 17];
    int s = connected(a);
    uint64_t sent = 0, begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) {
        ssize_t n = send(s, buffer, sizeof buffer, 0);
        if (n < 0) die("bulk");
        sent += n;
    }
    printf("{\"mbit_s\": %.0f}\n", sent * 8 / 1e6 / ((now_ns() - begin) / 1e9));
}

int main(int count, char **v) {
    signal(SIGPIPE, SIG_IGN);
    if (count == 3 && !strcmp(v[1], "serve")) serve(atoi(v[2]));
    if (count != 5) return 2;
    double seconds = atof(v[4]);
    struct sockaddr_in a = address(v[2], atoi(v[3]) + !strcmp(v[1], "bulk"));
    if (!strcmp(v[1], "rr")) rr(&a, seconds);
    if (!strcmp(v[1], "crr")) crr(&a, seconds);
    if (!strcmp(v[1], "bulk")) bulk(&a, seconds);
    return 0;
}
