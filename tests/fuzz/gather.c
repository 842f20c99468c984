/* SPDX-License-Identifier: MIT
 *
 * A start that has lost everything, and those who offer it what it never had:
 * offers of any content, with descriptors of the wrong kind, size, seals or
 * count, some of them right.
 */
#include "fake.h"
#include "fuzz.h"

#include "gather.h"
#include "log.h"
#include "manifest.h"
#include "proto.h"
#include "shmem.h"
#include "wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const unsigned fuzz_runs = 1500;

enum { NONCE = 77, CALLERS_MAX = 40, CONNS_MAX = 64, STEPS = 1 << 24 };

static struct fake *f;
static struct link_slab had[LINK_SLABS_MAX];
static struct bites offers;
static int conn[CONNS_MAX];
static unsigned conns;

static int slab_fd(unsigned id)
{
	return shmq__slabs_fd(f->slabs, id, SHMQ__SLAB_WRITE);
}

/* Slab id as clients have it, or what is like it and is not. */
static int some_fd(struct bites *in, unsigned id)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd, pair[2];

	switch (bite_below(in, 10)) {
	case 0:
	case 1:
		fd = memfd_create("shmq-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		CHECK_EQ(ftruncate(fd, (off_t)had[id].bytes), 0);
		CHECK_EQ(fcntl(fd, F_ADD_SEALS, bite(in, 1) % 2 ? seals : F_SEAL_SEAL), 0);
		return fd;
	case 2:
		return open("/", O_RDONLY | O_CLOEXEC);
	case 3:
		CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
		close(pair[0]);
		return pair[1];
	case 4:
		return shmq__shmem_reopen_writable(slab_fd(id));
	default:
		return shmq__shmem_reopen_readonly(slab_fd(id));
	}
}

static void offer(struct bites *in, int sock)
{
	struct proto_request req = { .magic = PROTO_MAGIC, .version = PROTO_VERSION };
	struct area whole = { &req, sizeof(req) };
	unsigned n = (unsigned)bite_below(in, 9), how = (unsigned)bite(in, 1), i;
	int fds[WIRE_FDS_MAX], all = how & 1;
	size_t bytes = sizeof(req);

	if (all) /* what an honest one has */
		n = FAKE_SLABS;
	req.op = PROTO_OFFER;
	req.offer.bus_nonce = NONCE;
	req.offer.fd_count = n;
	for (i = 0; i < n; i++) {
		unsigned id = all ? i : (unsigned)bite_below(in, FAKE_SLABS);

		fds[i] = all ? shmq__shmem_reopen_readonly(slab_fd(id)) : some_fd(in, id);
		CHECK_GE(fds[i], 0);
		req.offer.fd[i].slab = (uint16_t)id;
	}
	if (how & 2) {
		struct noise noise = bite_noise(in, &whole, 1);

		noise_make(&noise);
	}
	if (how & 4)
		req.offer.fd[bite_below(in, PROTO_FDS_MAX)].slab = (uint16_t)bite(in, 2);
	if (how & 8)
		req.offer.fd_count = (uint32_t)bite_edge(in);
	if ((how & 48) == 48)
		bytes = bite_below(in, sizeof(req) + 1);
	shmq__wire_send(sock, &req, bytes, fds, n);
	while (n)
		close(fds[--n]);
}

/* All of them have called, and some said something, before the first is heard. */
__typeof__(files_listen) __real_files_listen, __wrap_files_listen;

int __wrap_files_listen(const struct files *files, const char *path, enum files_door door)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = __real_files_listen(files, path, door);
	unsigned n = (unsigned)bite_below(&offers, CALLERS_MAX);

	CHECK_GE(sock, 0);
	memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
	while (n--) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		unsigned said = (unsigned)bite_below(&offers, 3);

		CHECK_GE(fd, 0);
		CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
		while (said--)
			offer(&offers, fd);
		conn[conns++] = fd;
	}
	return sock;
}

static void set_up(void)
{
	unsigned i;

	fuzz_simulate_time();
	f = fake_new(NULL);
	f->registry->nonce = NONCE;
	store_relaxed(&f->registry->control_pid, (uint32_t)getpid());
	for (i = 0; i < LINK_SLABS_MAX; i++)
		had[i].fd = -1;
	for (i = 0; i < FAKE_SLABS; i++) {
		const struct lay_slab *rec =
			(struct lay_slab *)((char *)f->registry + LAY_SLABS_OFF) + i;

		had[i] = (struct link_slab){ .fd = slab_fd(i),
					     .kind = rec->kind,
					     .page_shift = (uint16_t)rec->page_shift,
					     .bytes = rec->bytes };
	}
	had[FAKE_REGISTRY].kind = LAY_SLAB_REGISTRY; /* which has no record of itself */
	had[FAKE_REGISTRY].page_shift = 12;
	had[FAKE_REGISTRY].bytes = LAY_REGISTRY_BYTES;
}

/* The very memory that was lost, all of it, or nothing. */
static void check_taken(const struct link_slab *slab, int rc)
{
	unsigned i;

	for (i = 0; i < LINK_SLABS_MAX; i++) {
		struct stat got, want;

		if (rc != 1 || had[i].fd < 0) {
			CHECK_EQ(slab[i].fd, -1);
			continue;
		}
		CHECK_EQ(fstat(slab[i].fd, &got), 0);
		CHECK_EQ(fstat(had[i].fd, &want), 0);
		CHECK_EQ(got.st_ino, want.st_ino);
		CHECK_EQ(fcntl(slab[i].fd, F_GETFL) & O_ACCMODE, O_RDWR);
		CHECK_EQ(slab[i].bytes, had[i].bytes);
		CHECK_EQ(slab[i].kind, had[i].kind);
		close(slab[i].fd);
	}
}

/* What such a start comes to that is made these offers. */
static int start(const uint8_t *data, size_t size)
{
	static const struct options options = { .bus = "fuzz" };
	struct link_slab slab[LINK_SLABS_MAX];
	struct shmq__why why = { "" };
	struct files files;
	uint64_t nonce = 0;
	unsigned i;
	int rc;

	log_open("fuzz", LOG_ERROR);
	files_name(&files, test_tmpdir(), "fuzz");
	CHECK_OK(manifest_write(&files, "fuzz", NONCE, had));
	for (i = 0; i < LINK_SLABS_MAX; i++)
		slab[i] = (struct link_slab){ .fd = -1 };
	offers = (struct bites){ data, size };
	rc = WITHIN(STEPS, gather_run(&files, &options, -1, slab, &nonce, &why));
	if (rc == 1)
		CHECK_EQ(nonce, NONCE);
	check_taken(slab, rc);
	while (conns)
		close(conn[--conns]);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int rc, before;

	if (!f)
		set_up();
	before = test_fd_count();
	rc = start(data, size);
	CHECK(rc == 0 || rc == 1);
	CHECK_EQ(test_fd_count(), before);
	return 0;
}

void fuzz_leave(void)
{
	if (f)
		fake_free(f);
	f = NULL;
}

/* ---- what is right comes back --------------------------------------------- */

/* Behind more of those than there is room for. */
TEST(an_honest_offer_is_taken_behind_many_who_say_nothing)
{
	uint8_t bytes[CALLERS_MAX + 8] = { 35 };

	bytes[35] = 1; /* after 34 of none: one offer, */
	bytes[37] = 1; /* of all there is */
	set_up();
	CHECK_EQ(start(bytes, sizeof(bytes)), 1);
	fuzz_leave();
}
