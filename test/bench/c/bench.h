/* What the peers in C have in common: the lines that ../child.go speaks, clocks and
 * samples. Each peer is one file, one program. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SAMPLED 8 /* as in child.go */
#define MAX_CALLERS 256

static const char *role, *helper_addr, *receiver_addr;
static int one_way, outstanding;
static size_t size;

static void parse_args(char **a) {
	role = a[1]; /* a[2] is the peer */
	one_way = strcmp(a[3], "oneway") == 0;
	size = strtoul(a[4], NULL, 10);
	outstanding = atoi(a[5]); /* a[6] is the number of nodes */
	helper_addr = a[7];
	receiver_addr = a[8];
}

static void say(const char *format, ...) {
	va_list args;
	va_start(args, format);
	flockfile(stdout);
	vprintf(format, args);
	putchar('\n');
	fflush(stdout);
	funlockfile(stdout);
	va_end(args);
}

static void die(const char *what, const char *why) {
	say("error %s: %s", what, why);
	_exit(1);
}

static uint64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void say_usage(void) {
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	say("usage %lld -1",
	    (long long)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ll +
	    (long long)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ll);
}

/* Whether the time given to start_timer has passed. */
static volatile int stopped;

static void *timer_thread(void *ms) {
	usleep((useconds_t)(intptr_t)ms * 1000);
	stopped = 1;
	return NULL;
}

static void start_timer(int ms) {
	pthread_t t;
	stopped = 0;
	pthread_create(&t, NULL, timer_thread, (void *)(intptr_t)ms);
	pthread_detach(t);
}

static uint32_t samples[1 << 22];
static size_t sample_count;

static void add_sample(uint64_t ns) {
	if (sample_count < sizeof samples / sizeof *samples)
		samples[sample_count++] = ns < 4000000000u ? ns : 4000000000u;
}

static int compare_samples(const void *a, const void *b) {
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static uint32_t percentile(int percent) {
	size_t rank = (sample_count * percent + 99) / 100;
	return sample_count == 0 ? 0 : samples[(rank > 1 ? rank : 1) - 1];
}

static void say_done(uint64_t count, uint64_t elapsed) {
	qsort(samples, sample_count, sizeof *samples, compare_samples);
	say("done %llu %llu %u %u", (unsigned long long)count, (unsigned long long)elapsed, percentile(50), percentile(99));
	sample_count = 0;
}

/* What a receiver of one-way messages does with each of them; see sink in peer.go. */
static uint64_t sink_count, sink_want;

static void sink_take(const unsigned char *body) {
	sink_count++;
	if (body[0] != 0)
		memcpy(&sink_want, body + 1, 8); /* little-endian, as this machine is */
	if (sink_count == sink_want) {
		say("got %llu %llu", (unsigned long long)sink_count, (unsigned long long)now_ns());
		sink_count = sink_want = 0;
	}
}

static void check_reply(const void *body, size_t n) {
	if (n != size || *(const unsigned char *)body != 0)
		die("reply", "not what was asked for");
}

/* What each peer defines. */
static void send_one_way(int ms);
static void send_requests(int ms);
static void first(int n);

static void obey(void) {
	char line[128];
	while (fgets(line, sizeof line, stdin)) {
		char *number = strchr(line, ' ');
		int n = number ? atoi(number) : 0;
		if (strncmp(line, "usage", 5) == 0)
			say_usage();
		else if (strncmp(line, "first", 5) == 0)
			first(n);
		else if (one_way)
			send_one_way(n);
		else
			send_requests(n);
	}
	_exit(0);
}
