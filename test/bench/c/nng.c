/* NNG: PUSH and PULL one way, REQ and REP for requests: a thread for one at a time,
 * contexts with asynchronous operations for many. */
#include "bench.h"
#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>

static nng_socket sock;

static void must(int rv, const char *what) {
	if (rv != 0)
		die(what, nng_strerror(rv));
}

/* What makes or answers requests beside others. */
struct worker {
	nng_ctx ctx;
	nng_aio *aio;
	int sending;
	int started; /* requests, of which one in SAMPLED is timed */
	uint64_t begin;
};
static struct worker workers[MAX_CALLERS];
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_ended = PTHREAD_COND_INITIALIZER;
static int working;
static uint64_t answered;

static nng_msg *message(void) {
	nng_msg *m;
	must(nng_msg_alloc(&m, size), "allocate");
	memset(nng_msg_body(m), 0, size);
	return m;
}

static void answer(void *arg) {
	struct worker *w = arg;
	must(nng_aio_result(w->aio), w->sending ? "reply" : "receive");
	w->sending = !w->sending;
	if (w->sending)
		nng_ctx_send(w->ctx, w->aio); /* the message stays in the aio */
	else
		nng_ctx_recv(w->ctx, w->aio);
}

static void *receive(void *unused) {
	nng_msg *m;
	for (;;) {
		must(nng_recvmsg(sock, &m, 0), "receive");
		if (one_way) {
			sink_take(nng_msg_body(m));
			nng_msg_free(m);
		} else {
			must(nng_sendmsg(sock, m, 0), "reply");
		}
	}
	return unused;
}

static void ask(struct worker *w, nng_msg *m) {
	if (w->started++ % SAMPLED == 0)
		w->begin = now_ns();
	else
		w->begin = 0;
	w->sending = 1;
	nng_aio_set_msg(w->aio, m);
	nng_ctx_send(w->ctx, w->aio);
}

static void asked(void *arg) {
	struct worker *w = arg;
	must(nng_aio_result(w->aio), w->sending ? "send" : "receive");
	if (w->sending) {
		w->sending = 0;
		nng_ctx_recv(w->ctx, w->aio);
		return;
	}
	nng_msg *m = nng_aio_get_msg(w->aio);
	check_reply(nng_msg_body(m), nng_msg_len(m));
	pthread_mutex_lock(&mu);
	answered++;
	if (w->begin != 0)
		add_sample(now_ns() - w->begin);
	if (stopped && --working == 0)
		pthread_cond_signal(&all_ended);
	int again = !stopped;
	pthread_mutex_unlock(&mu);
	if (again)
		ask(w, m);
	else
		nng_msg_free(m);
}

static void open_workers(void (*done)(void *)) {
	for (int i = 0; i < outstanding; i++) {
		must(nng_ctx_open(&workers[i].ctx, sock), "context");
		must(nng_aio_alloc(&workers[i].aio, done, &workers[i]), "aio");
		nng_aio_set_timeout(workers[i].aio, NNG_DURATION_INFINITE);
	}
}

static void send_one_way(int ms) {
	uint64_t count = 0, start = now_ns();
	start_timer(ms);
	while (!stopped) {
		must(nng_sendmsg(sock, message(), 0), "send");
		count++;
	}
	count++;
	nng_msg *last = message();
	unsigned char *body = nng_msg_body(last);
	body[0] = 1;
	memcpy(body + 1, &count, 8);
	must(nng_sendmsg(sock, last, 0), "send");
	say("sent %llu %llu", (unsigned long long)count, (unsigned long long)start);
}

static void send_requests(int ms) {
	uint64_t start = now_ns();
	start_timer(ms);
	if (outstanding == 1) {
		uint64_t count = 0;
		nng_msg *m = message();
		while (!stopped) {
			uint64_t begin = now_ns();
			must(nng_sendmsg(sock, m, 0), "send");
			must(nng_recvmsg(sock, &m, 0), "receive");
			add_sample(now_ns() - begin);
			check_reply(nng_msg_body(m), nng_msg_len(m));
			count++;
		}
		nng_msg_free(m);
		say_done(count, now_ns() - start);
		return;
	}
	answered = 0;
	working = outstanding;
	for (int i = 0; i < outstanding; i++)
		ask(&workers[i], message());
	pthread_mutex_lock(&mu);
	while (working > 0)
		pthread_cond_wait(&all_ended, &mu);
	pthread_mutex_unlock(&mu);
	say_done(answered, now_ns() - start);
}

static void first(int n) {
	uint64_t start = now_ns();
	for (int i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		nng_socket s;
		nng_msg *m = message();
		must(nng_req0_open(&s), "socket");
		must(nng_dial(s, receiver_addr, NULL, 0), "dial");
		must(nng_sendmsg(s, m, 0), "send");
		must(nng_recvmsg(s, &m, 0), "receive");
		add_sample(now_ns() - begin);
		nng_msg_free(m);
		nng_close(s);
	}
	say_done(n, now_ns() - start);
}

int main(int argc, char **argv) {
	if (argc < 9) {
		printf("NNG %s\n", nng_version());
		return 0;
	}
	parse_args(argv);
	int many = !one_way && outstanding > 1;
	if (strcmp(role, "send") == 0) {
		must(one_way ? nng_push0_open(&sock) : nng_req0_open(&sock), "socket");
		if (one_way)
			nng_socket_set_int(sock, NNG_OPT_SENDBUF, 1024); /* not all versions have it here */
		must(nng_dial(sock, receiver_addr, NULL, 0), "dial");
		if (many)
			open_workers(asked);
		say("ready");
	} else {
		nng_listener l;
		nng_sockaddr sa;
		pthread_t t;
		must(one_way ? nng_pull0_open(&sock) : nng_rep0_open(&sock), "socket");
		if (one_way)
			nng_socket_set_int(sock, NNG_OPT_RECVBUF, 1024);
		nng_socket_set_size(sock, NNG_OPT_RECVMAXSZ, 0);
		must(nng_listen(sock, "tcp://127.0.0.1:0", &l, 0), "listen");
		must(nng_listener_get_addr(l, NNG_OPT_LOCADDR, &sa), "address");
		if (many) {
			open_workers(answer);
			for (int i = 0; i < outstanding; i++)
				nng_ctx_recv(workers[i].ctx, workers[i].aio);
		} else {
			pthread_create(&t, NULL, receive, NULL);
		}
		say("ready tcp://127.0.0.1:%u", ntohs(sa.s_in.sa_port));
	}
	obey();
	return 0;
}
