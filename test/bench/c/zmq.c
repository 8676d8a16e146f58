/* libzmq: PUSH and PULL one way, REQ and REP for one request at a time, DEALER and
 * ROUTER for many, from one thread on each side. */
#include "bench.h"
#include <zmq.h>

static void *ctx, *sock;

static void must(int ok, const char *what) {
	if (!ok)
		die(what, zmq_strerror(zmq_errno()));
}

static void *open_socket(int type) {
	void *s = zmq_socket(ctx, type);
	must(s != NULL, "socket");
	/* Queues of up to 64 MiB, and at least the default of 1,000 messages. */
	int hwm = size < 65536 ? (64 << 20) / size : 1024;
	int linger = 0;
	zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
	zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm);
	zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
	return s;
}

static void *receive(void *unused) {
	zmq_msg_t m;
	zmq_msg_init(&m);
	for (;;) {
		must(zmq_msg_recv(&m, sock, 0) >= 0, "receive");
		if (one_way)
			sink_take(zmq_msg_data(&m));
		else /* of a ROUTER, this is the peer's name or its body in turn */
			must(zmq_msg_send(&m, sock, zmq_msg_more(&m) ? ZMQ_SNDMORE : 0) >= 0, "reply");
	}
	return unused;
}

static void send_one_way(int ms) {
	unsigned char *body = calloc(1, size);
	uint64_t count = 0, start = now_ns();
	start_timer(ms);
	while (!stopped) {
		must(zmq_send(sock, body, size, 0) >= 0, "send");
		count++;
	}
	count++;
	body[0] = 1;
	memcpy(body + 1, &count, 8);
	must(zmq_send(sock, body, size, 0) >= 0, "send");
	say("sent %llu %llu", (unsigned long long)count, (unsigned long long)start);
	free(body);
}

static void send_requests(int ms) {
	unsigned char *body = calloc(1, size);
	uint64_t begin[MAX_CALLERS] = {0}, count = 0, sent = 0, start = now_ns();
	int every = outstanding > 1 ? SAMPLED : 1;
	zmq_msg_t m;
	zmq_msg_init(&m);
	start_timer(ms);
	for (;;) {
		int stop = stopped;
		while (!stop && sent - count < (uint64_t)outstanding) {
			if (sent % every == 0)
				begin[sent % outstanding] = now_ns();
			must(zmq_send(sock, body, size, 0) >= 0, "send");
			sent++;
		}
		if (count == sent)
			break;
		must(zmq_msg_recv(&m, sock, 0) >= 0, "receive");
		check_reply(zmq_msg_data(&m), zmq_msg_size(&m));
		if (count % every == 0)
			add_sample(now_ns() - begin[count % outstanding]);
		count++;
	}
	say_done(count, now_ns() - start);
	zmq_msg_close(&m);
	free(body);
}

static void first(int n) {
	unsigned char *body = calloc(1, size);
	uint64_t start = now_ns();
	zmq_msg_t m;
	zmq_msg_init(&m);
	for (int i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		void *s = open_socket(ZMQ_REQ);
		must(zmq_connect(s, receiver_addr) == 0, "connect");
		must(zmq_send(s, body, size, 0) >= 0, "send");
		must(zmq_msg_recv(&m, s, 0) >= 0, "receive");
		add_sample(now_ns() - begin);
		zmq_close(s);
	}
	say_done(n, now_ns() - start);
	zmq_msg_close(&m);
	free(body);
}

int main(int argc, char **argv) {
	if (argc < 9) {
		printf("libzmq %d.%d.%d\n", ZMQ_VERSION_MAJOR, ZMQ_VERSION_MINOR, ZMQ_VERSION_PATCH);
		return 0;
	}
	parse_args(argv);
	ctx = zmq_ctx_new();
	if (strcmp(role, "send") == 0) {
		sock = open_socket(one_way ? ZMQ_PUSH : outstanding > 1 ? ZMQ_DEALER : ZMQ_REQ);
		must(zmq_connect(sock, receiver_addr) == 0, "connect");
		say("ready");
	} else {
		char addr[256];
		size_t n = sizeof addr;
		pthread_t t;
		sock = open_socket(one_way ? ZMQ_PULL : outstanding > 1 ? ZMQ_ROUTER : ZMQ_REP);
		must(zmq_bind(sock, "tcp://127.0.0.1:*") == 0, "bind");
		must(zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, addr, &n) == 0, "address");
		pthread_create(&t, NULL, receive, NULL);
		say("ready %s", addr);
	}
	obey();
	return 0;
}
