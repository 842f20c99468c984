/* SPDX-License-Identifier: MIT
 *
 * A client that is answered by whoever: replies and events of any content,
 * and with them descriptors of the wrong kind, size, seals and count.
 *
 * connect() finds a socket in which the answers lie already; the requests go
 * where nobody reads them.
 */
#include "fake.h"
#include "fuzz.h"

#include "memory.h"
#include "proto.h"
#include "shmem.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

const unsigned fuzz_runs = 1500;

enum { CONNECTIONS_MAX = 3, ANSWERS_MAX = 24, FDS_MAX = WIRE_FDS_MAX, STEPS = 1 << 24 };

static struct fake *f;
static struct lay_member *member[2]; /* subscriber, publisher */
static struct bites answers;         /* of connections to come */
static unsigned connections, ends;
static int end[CONNECTIONS_MAX]; /* where nobody reads the requests */

/* ---- descriptors ----------------------------------------------------------- */

static int some_memory(uint64_t bytes, int seals)
{
	int fd = memfd_create("shmq-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK_GE(fd, 0);
	CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int some_socket(struct bites *in)
{
	struct proto_event event = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };
	int pair[2], spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	unsigned n = (unsigned)bite_below(in, 4);

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	while (n--) { /* with events in it */
		unsigned how = (unsigned)bite(in, 1);

		event.kind = (uint16_t)bite_below(in, SHMQ_EVENT_STALLED + 2);
		event.missed = (uint32_t)bite(in, 4);
		memset(event.topic, how & 1 ? 'x' : 0, sizeof(event.topic));
		event.magic += how & 2;
		shmq__wire_send(pair[0], &event, how & 4 ? 7 : sizeof(event), &spare, how >> 3 & 1);
	}
	close(spare);
	close(pair[0]);
	return pair[1];
}

/* Of slab id, or something that is none. */
static int some_fd(struct bites *in, unsigned id, int *writable)
{
	const int right = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = shmq__slabs_fd(f->slabs, id % FAKE_SLABS, SHMQ__SLAB_WRITE), pair[2];
	uint64_t bytes = id % FAKE_SLABS == FAKE_BELLS ? LAY_BELL_SLAB_BYTES : LAY_BULK_SLAB_BYTES;

	*writable = id == FAKE_BELLS;
	switch (bite_below(in, 12)) {
	case 0:
		return some_memory(bytes, 0);
	case 1:
		return some_memory(bytes, F_SEAL_SEAL);
	case 2:
		return some_memory(bytes - LAY_PAGE, right);
	case 3:
		return some_memory(bytes, right | F_SEAL_WRITE);
	case 4:
		return some_socket(in);
	case 5:
		return open("/", O_RDONLY | O_CLOEXEC);
	case 6:
		CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
		close(pair[0]);
		return pair[1];
	case 7:
		return open("/dev/zero", O_RDWR | O_CLOEXEC);
	case 8:
		*writable = !*writable;
		/* fall through */
	default:
		return *writable ? shmq__shmem_reopen_writable(fd) :
				   shmq__shmem_reopen_readonly(fd);
	}
}

/* ---- answers ----------------------------------------------------------------- */

/* What an honest one would be sent, before it is spoilt. */
static void fill_right(struct proto_reply *r, uint64_t token, int *fds, unsigned *n,
		       struct bites *in)
{
	static const uint8_t slabs[] = { FAKE_REGISTRY, FAKE_BELLS, FAKE_ENTRIES, FAKE_ENTRIES,
					 FAKE_RINGS,    FAKE_RINGS, FAKE_ARENAS,  FAKE_ARENAS };
	int is_publisher = bite(in, 1) & 1;
	struct lay_member *m = member[is_publisher];
	unsigned i;

	r->op = (uint16_t)(token == 1 ? PROTO_HELLO : PROTO_PLAN + bite_below(in, 10));
	if (r->op != PROTO_HELLO) {
		r->open.topic_id = f->rec->id;
		r->open.entry = m->entry;
		r->open.entry_gen = m->entry_gen;
		r->open.arena = m->arena;
		return;
	}
	r->hello.client = 1;
	r->hello.gen = 1000;
	r->hello.bus_nonce = 77;
	fds[(*n)++] = some_socket(in);
	for (i = 0; i < sizeof(slabs); i++) {
		int writable = i == 3 || i == 5 || i == 7 || i == 1;
		int fd = shmq__slabs_fd(f->slabs, slabs[i], SHMQ__SLAB_WRITE);

		fds[(*n)++] = writable ? shmq__shmem_reopen_writable(fd) :
					 shmq__shmem_reopen_readonly(fd);
		r->fd[i].slab = slabs[i];
		r->fd[i].writable = (uint16_t)writable;
	}
	r->fd_count = *n - 1;
}

static void spoil_fds(struct proto_reply *r, int *fds, unsigned *n, struct bites *in)
{
	unsigned i = (unsigned)bite_below(in, FDS_MAX),
		 id = (unsigned)bite_below(in, FAKE_SLABS + 3);
	int writable;

	if (i >= *n) {
		if (*n == FDS_MAX)
			return;
		i = (*n)++;
	} else {
		close(fds[i]);
	}
	fds[i] = some_fd(in, id, &writable);
	CHECK_GE(fds[i], 0);
	if (i && bite(in, 1) % 4) {
		r->fd[i - 1].slab = (uint16_t)id;
		r->fd[i - 1].writable = (uint16_t)writable;
	}
	if (bite(in, 1) % 4)
		r->fd_count = *n - 1;
}

static void send_answer(int sock, uint64_t token, struct bites *in)
{
	struct proto_reply r = { .magic = PROTO_MAGIC, .version = PROTO_VERSION, .token = token };
	unsigned n = 0, spoilt = (unsigned)bite_below(in, 4);
	struct area whole = { &r, sizeof(r) };
	size_t bytes = sizeof(r);
	int fds[FDS_MAX];

	fill_right(&r, token, fds, &n, in);
	while (spoilt--) {
		struct noise noise;

		switch (bite_below(in, 6)) {
		case 0:
			noise = bite_noise(in, &whole, 1);
			noise_make(&noise);
			break;
		case 1:
			r.error = -(int32_t)bite_below(in, 6000);
			memset(r.why, 'w', sizeof(r.why));
			break;
		case 2:
			bytes = bite_below(in, sizeof(r) + 1);
			break;
		case 3:
			whole = (struct area){ &r.open, 48 };
			noise = bite_noise(in, &whole, 1);
			noise_make(&noise);
			break;
		default:
			spoil_fds(&r, fds, &n, in);
		}
	}
	shmq__wire_send(sock, &r, bytes, fds, n);
	while (n)
		close(fds[--n]);
}

/* Every request of a client has the next token. */
static uint64_t next_token;

__typeof__(connect) __real_connect, __wrap_connect;

int __wrap_connect(int sock, const struct sockaddr *address, socklen_t length)
{
	unsigned n = (unsigned)bite_below(&answers, ANSWERS_MAX);
	int pair[2];

	if (!connections) {
		errno = ECONNREFUSED;
		return -1;
	}
	connections--;
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (uint64_t i = 0; i < n; i++)
		send_answer(pair[0], next_token + i, &answers);
	next_token += n;
	shutdown(pair[0], SHUT_WR);
	CHECK_EQ(dup3(pair[1], sock, O_CLOEXEC), sock);
	close(pair[1]);
	end[ends++] = pair[0];
	return 0;
}

/* ---- the client ---------------------------------------------------------------- */

static shmq_bus *bus;

static void subscribe(void)
{
	struct shmq_sub_options o = { .size = sizeof(o) };
	struct shmq_msg m = { 0 };
	shmq_sub *sub = NULL;

	if (WITHIN(STEPS, shmq_sub_open(bus, "fake", &o, &sub)))
		return;
	if (!WITHIN(STEPS, shmq_receive(sub, &m, SHMQ_NOWAIT)))
		fuzz_touch(m.data, m.len);
	shmq_sub_close(sub);
}

static void publish(void)
{
	struct shmq_pub_options o = { .size = sizeof(o), .flags = SHMQ_DONTWAIT };
	static const char bytes[3000];
	shmq_pub *pub = NULL;

	if (WITHIN(STEPS, shmq_pub_open(bus, "fake", &o, &pub)))
		return;
	WITHIN(STEPS, shmq_publish(pub, bytes, sizeof(bytes)));
	shmq_pub_close(pub);
}

static void play(struct bites *in)
{
	struct shmq_topic_options topic = { .size = sizeof(topic) };
	struct shmq_topic_info info;
	struct shmq_event event;
	struct shmq_plan plan;

	switch (bite_below(in, 8)) {
	case 0:
		WITHIN(STEPS, shmq_topic_plan(bus, "t", &topic, &plan));
		break;
	case 1:
		WITHIN(STEPS, shmq_topic_create(bus, "t", &topic, &plan));
		break;
	case 2:
		WITHIN(STEPS, shmq_topic_remove(bus, "t", SHMQ_FORCE));
		break;
	case 3:
		subscribe();
		break;
	case 4:
		publish();
		break;
	case 5:
		if (!WITHIN(STEPS, shmq_bus_event(bus, &event, 1000000)))
			CHECK(memchr(event.topic, 0, sizeof(event.topic)) != NULL);
		break;
	case 6:
		WITHIN(STEPS, shmq_bus_serve(bus, 1000000));
		break;
	default:
		WITHIN(STEPS, shmq_topic_get_info(bus, "fake", &info));
	}
	CHECK(memchr(shmq_bus_error(bus), 0, SHMQ_WHY_BYTES) != NULL);
}

static void set_up(void)
{
	struct fake_options o = { .mode = SHMQ_SHARED, .max_bytes = 4000, .arena_bytes = 1 << 16 };

	fuzz_simulate_time();
	guard_maps();
	f = fake_new(&o);
	fake_client(f, getpid());
	member[0] = fake_subscriber(f, 1, SHMQ_FROM_LATEST, 0);
	member[1] = fake_publisher(f, 1);
	member[1]->arena = fake_arena(f, member[1], o.arena_bytes) + 1;
	store_relaxed(&f->registry->control_pid, (uint32_t)getpid());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shmq_bus_options o = { .size = sizeof(o),
				      .serve = SHMQ_SERVE_CALLER,
				      .timeout_ns = 1000000 };
	struct bites in = { data, size };
	unsigned ops = 0;
	int before;

	if (!f)
		set_up();
	before = test_fd_count();
	o.runtime_dir = test_tmpdir();
	next_token = 1;
	connections = 1 + (unsigned)bite_below(&in, CONNECTIONS_MAX);
	/* The first half is what it does, the other what it is told. */
	answers = (struct bites){ in.at + in.left / 2, in.left - in.left / 2 };
	in.left /= 2;
	if (!WITHIN(STEPS, shmq_bus_open("fake", &o, &bus))) {
		while (in.left && ops++ < 16)
			play(&in);
		connections = 0;
		shmq_bus_close(bus);
	}
	while (ends)
		close(end[--ends]);
	CHECK_EQ(test_fd_count(), before);
	return 0;
}

void fuzz_leave(void)
{
	if (f)
		fake_free(f);
	f = NULL;
}
